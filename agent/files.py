"""Files that outlast a kill or a power cut: written under another name, flushed to the disk, then renamed."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def sync(path: Path) -> None:
    """Flush a file's contents, or a folder's names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def publish(temporary: Path, path: Path) -> None:
    """Give a flushed file or folder its real name: readers see all of it or nothing. A file of that name is replaced."""
    temporary.replace(path)
    sync(path.parent)


def file_name(name: str) -> str:
    """A task's or an observation's name as part of a file name: `ALE/Pong-v5` is `ALE-Pong-v5`."""
    return re.sub(r"[^\w.=,+-]+", "-", name).strip(".") or "-"


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write and flush an object; numpy values become numbers and lists. Raises TypeError for what JSON cannot hold."""

    def plain(value: Any) -> Any:
        if isinstance(value, np.generic | np.ndarray):
            return value.tolist()
        raise TypeError(f"{path.name} cannot hold a {type(value).__name__}")

    path.write_text(json.dumps(data, indent=1, default=plain))
    sync(path)


def sha256(path: Path) -> str:
    """Checksum of a file's contents, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
