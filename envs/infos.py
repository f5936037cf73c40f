"""Numbers in an environment's infos."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def lookup(info: Mapping[str, Any], key: str) -> Any:
    """The entry called `key`; where there is none, the one that its parts lead to: `achievements.collect_wood`.

    Raises:
        KeyError: there is neither.
    """
    if key in info:
        return info[key]
    value: Any = info
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            raise KeyError(key)
        value = value[part]
    return value


def number(value: Any) -> float | None:
    """A number, truth value or array of one element as a float; None for anything else."""
    array = np.asarray(value)
    return float(array.item()) if array.size == 1 and array.dtype.kind in "biuf" else None


def entries(info: Mapping[str, Any]) -> str:
    """The names of what an info holds, for error messages."""
    return ", ".join(sorted(map(str, info))) or "nothing"
