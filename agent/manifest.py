"""A folder's list of its files with sizes and checksums, written last: what tells a whole checkpoint from a damaged one."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from agent.files import sha256, sync, write_json

FORMAT = 1
MANIFEST = "manifest.json"


def write_manifest(folder: Path) -> None:
    """Flush every file of `folder` to the disk and list it."""
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        sync(path)
        files[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
    write_json(folder / MANIFEST, {"format": FORMAT, "files": files})
    for path in (*(path for path in folder.rglob("*") if path.is_dir()), folder):
        sync(path)


def fault(folder: Path, expected: Collection[str], checksums: bool = True, others: bool = False) -> str | None:
    """Why `folder` cannot be trusted to hold the `expected` files as they were written, or `None`; with `others`, every file that
    the manifest names, too."""
    try:
        files = _entries(folder)
        for name in dict.fromkeys((*expected, *(files if others else ()))):
            if name not in files:
                return f"{name} is not named in {MANIFEST}"
            found = _file_fault(folder / name, files[name], checksums)
            if found:
                return f"{name} {found}"
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{MANIFEST} cannot be used ({error})"
    return None


def _entries(folder: Path) -> dict[str, Any]:
    data = json.loads((folder / MANIFEST).read_text())
    if data["format"] != FORMAT:
        raise ValueError(f"its format is {data['format']}, this version reads {FORMAT}")
    return dict(data["files"])


def _file_fault(path: Path, entry: dict[str, Any], checksums: bool) -> str | None:
    if not path.is_file():
        return "is missing"
    if path.stat().st_size != entry["bytes"]:
        return f"has {path.stat().st_size} bytes in place of {entry['bytes']}"
    return "does not match its checksum" if checksums and sha256(path) != entry["sha256"] else None
