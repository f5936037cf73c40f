"""Parts of an HDF5 file from outside: nothing is unpickled, and no link to another file is followed.

All raise ValueError, naming the place, for what is not as it should be.
"""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np


def subgroup(parent: h5py.Group, name: str) -> h5py.Group:
    found = linked(parent, name)
    if not isinstance(found, h5py.Group):
        raise ValueError(f"{name} is no group")
    return found


def linked(parent: h5py.Group, path: str) -> Any:
    """What lies at `path`, if it lies in this very file."""
    found: Any = parent
    for name in path.split("/"):
        if not isinstance(found, h5py.Group) or not isinstance(found.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"{str(parent.name).strip('/')}/{path} is missing".strip("/"))
        found = found[name]
    return found


def array(group: h5py.Group, path: str, kinds: str) -> np.ndarray:
    found = linked(group, path)
    where = f"{str(group.name).strip('/')}/{path}"
    if not isinstance(found, h5py.Dataset) or found.is_virtual or found.external or not found.shape:
        raise ValueError(f"{where} is no array in this file")
    if found.dtype.kind not in kinds:
        raise ValueError(f"{where} holds {found.dtype}")
    return np.asarray(found[()])


def flags(group: h5py.Group, name: str, steps: int) -> np.ndarray:
    found = array(group, name, "biu")
    if found.shape != (steps,):
        raise ValueError(f"{str(group.name).strip('/')}/{name} has shape {found.shape} in place of ({steps},)")
    if found.dtype.kind != "b" and ((found != 0) & (found != 1)).any():
        raise ValueError(f"{str(group.name).strip('/')}/{name} holds other numbers than 0 and 1")
    return found.astype(np.bool_)


def texts(group: h5py.Group, path: str) -> list[str]:
    return [value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value) for value in array(group, path, "OS")]
