"""Gymnasium spaces written as JSON, in the form that Minari's data sets have: `{"type": "Box", "shape": ..., "low": ...}`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

LONGEST_TEXT = 1 << 16  # of a text space that does not say


def read_space(text: str | Mapping[str, Any]) -> spaces.Space[Any]:
    """The space that a JSON text, or what was read from one, describes. Nothing in it is evaluated.

    Raises:
        ValueError, TypeError, KeyError: it describes none that is known.
    """
    data = json.loads(text) if isinstance(text, str) else text
    if not isinstance(data, Mapping):
        raise ValueError("a space that is no JSON object")
    kind = data.get("type")
    if kind == "Dict":
        return spaces.Dict({str(name): read_space(part) for name, part in data["subspaces"].items()})
    if kind == "Tuple":
        return spaces.Tuple([read_space(part) for part in data["subspaces"]])
    if kind == "Box":
        return _box(data)
    if kind == "Discrete":
        return spaces.Discrete(int(data["n"]), start=int(data.get("start", 0)))
    if kind == "MultiDiscrete":
        nvec = np.asarray(data["nvec"], np.int64)
        return spaces.MultiDiscrete(nvec, start=np.asarray(data.get("start", np.zeros_like(nvec)), np.int64))
    if kind == "MultiBinary":
        return spaces.MultiBinary(data["n"])
    if kind in ("Text", "MissionSpace"):  # MiniGrid's missions come with an example in the place of a length
        return spaces.Text(int(data.get("max_length", LONGEST_TEXT)), min_length=int(data.get("min_length", 0)))
    raise ValueError(f"a space of type {kind}, which is not read")


def _box(data: Mapping[str, Any]) -> spaces.Box:
    dtype = np.dtype(str(data["dtype"]))
    if dtype.kind not in "biuf":
        raise ValueError(f"a Box of {dtype}")
    shape = tuple(int(size) for size in data["shape"])
    low, high = (np.asarray(data[name], np.float64 if dtype.kind == "f" else None) for name in ("low", "high"))
    if low.shape not in (shape, ()) or high.shape not in (shape, ()):
        raise ValueError(f"a Box of shape {shape} whose bounds have other shapes")
    low, high = (np.broadcast_to(bound, shape).astype(dtype) for bound in (low, high))
    return spaces.Box(low, high, shape, dtype.type)
