"""MuJoCo's warnings, in the log. By itself it writes them into `MUJOCO_LOG.TXT` in whatever folder a run was started from.

Importing this sees to it. Gymnasium's own HalfCheetah brings one: its `settotalmass` is deprecated, and obeyed all the same.
"""

from __future__ import annotations

import logging
import re

import mujoco

log = logging.getLogger(__name__)

_told: set[str] = set()


def tell(text: str) -> None:
    """Log a warning; once, whatever time and numbers it carries, and below the level that is shown where nothing can be done."""
    kind = re.sub(r"[-+.\d]+(e[-+]?\d+)?", "#", text)
    if kind not in _told:
        _told.add(kind)
        log.log(logging.DEBUG if "deprecated" in text else logging.WARNING, "MuJoCo: %s (told once)", text.strip())


mujoco.set_mju_user_warning(tell)
