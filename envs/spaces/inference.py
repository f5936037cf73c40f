"""Decide what each leaf of an observation space is: a grid, categories, text, a vector.

By shape, bounds and a short probe of real observations, since a space alone does not tell a symbolic grid from a small picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

from envs.errors import UserError
from envs.spaces.leaves import Leaf, leaves
from envs.spaces.specs import KINDS, EnvSpec, ModalitySpec

Samples = Mapping[str, Sequence[Sequence[Any]]]  # leaf key -> probe episodes -> raw values


@dataclass(frozen=True)
class InferenceLimits:
    """Where one kind ends and the next begins.

    Attributes:
        grid_cells: an integer array of more cells is no grid but a picture.
        distinct_values: as is one in which the probe met more distinct numbers than this.
        categories: a 1-d integer Box is categorical when no element has more values than this, else a vector.
        vector_size: a vector of more elements is refused unless asked for by name.
    """

    grid_cells: int = 32 * 32
    distinct_values: int = 64
    categories: int = 64
    vector_size: int = 4096


def infer_modalities(
    space: spaces.Space[Any],
    samples: Samples,
    kinds: Mapping[str, str] | None = None,
    text_bytes: int = 96,
    limits: InferenceLimits | None = None,
) -> tuple[ModalitySpec, ...]:
    """One `ModalitySpec` per leaf of `space`.

    Args:
        space: a (nested) Gymnasium observation space.
        samples: raw values of each leaf, by probe episode (see `envs.probe`); only used where the space does not decide.
        kinds: `env.modalities`, leaf key -> kind, for leaves on which the user knows better.
        text_bytes: length to which text is cut and padded.
        limits: thresholds, `InferenceLimits()` if not given.

    Raises:
        UserError: an override that names no leaf or no kind, or a leaf that cannot be mapped.
    """
    limits = limits or InferenceLimits()
    kinds = kinds or {}
    found = leaves(space)
    keys = [leaf.key for leaf in found]
    for key, kind in kinds.items():
        if key not in keys:
            raise UserError(f"env.modalities names `{key}`, which is not observed; observed are: {', '.join(keys)}.")
        if kind not in KINDS:
            raise UserError(f"env.modalities.{key}={kind} is no kind of modality; choose one of {', '.join(KINDS)}.")
    return tuple(_modality(leaf, samples.get(leaf.key, ()), kinds.get(leaf.key), text_bytes, limits) for leaf in found)


def inference_table(spec: EnvSpec) -> list[tuple[str, str, str, str, str]]:
    """What was inferred, for display at start-up: rows of (key, space, kind, shape, static)."""
    return [
        (leaf.key, leaf.origin, leaf.kind, "x".join(map(str, leaf.shape)), "yes" if leaf.static else "no")
        for leaf in spec.observations
    ]


def space_name(space: spaces.Space[Any]) -> str:
    """A short name of a leaf space that is the same in every process (some spaces print memory addresses)."""
    if isinstance(space, spaces.Box):
        low, high = (space.low.min(), space.high.max()) if space.low.size else (0, 0)
        return f"Box({low:g}..{high:g}, {space.shape}, {space.dtype})"
    if isinstance(space, spaces.MultiDiscrete):
        return f"MultiDiscrete({space.shape}, up to {int(space.nvec.max(initial=0))})"
    if is_text(space):
        return type(space).__name__
    return str(space)


def _modality(
    leaf: Leaf, episodes: Sequence[Sequence[Any]], asked: str | None, text_bytes: int, limits: InferenceLimits
) -> ModalitySpec:
    kind = asked or _kind(leaf, episodes, limits)
    space, name = leaf.space, space_name(leaf.space)
    if kind == "text" and is_text(space):
        static = bool(episodes) and all(all(value == episode[0] for value in episode) for episode in episodes)
        return ModalitySpec(leaf.key, kind, (text_bytes,), "uint8", static=static, origin=name)
    if kind == "vector" and isinstance(space, spaces.Box | spaces.MultiDiscrete | spaces.MultiBinary | spaces.Discrete):
        return ModalitySpec(leaf.key, kind, (max(1, _size(space)),), "float32", origin=name)
    bounds = integer_bounds(space)
    if kind == "categorical" and bounds is not None and np.isfinite(bounds).all():
        classes = tuple(int(n) for n in (bounds[1] - bounds[0] + 1).ravel())
        return ModalitySpec(leaf.key, kind, (len(classes),), "int64", classes=classes, origin=name)
    if kind == "grid" and bounds is not None and space.shape is not None and len(space.shape) in (2, 3):
        shape = space.shape if len(space.shape) == 3 else (*space.shape, 1)
        small = bounds[0].min() >= 0 and bounds[1].max() <= 255
        return ModalitySpec(leaf.key, kind, tuple(shape), "uint8" if small else "int64", origin=name)
    if kind == "image":
        raise UserError(
            f"`{leaf.key}` ({name}) looks like an image, which no encoder here reads yet; "
            f"choose another kind by env.modalities.{leaf.key}=grid or vector, "
            "or turn it into symbols with an observation wrapper (env.wrappers)."
        )
    raise UserError(
        f"`{leaf.key}` ({name}) cannot be read{' as ' + asked if asked else ''}; "
        f"choose a kind that fits by env.modalities.{leaf.key}=..., or replace it with an observation wrapper (env.wrappers)."
    )


def _kind(leaf: Leaf, episodes: Iterable[Sequence[Any]], limits: InferenceLimits) -> str:
    """The kind that fits best; `unknown` where none does."""
    space = leaf.space
    if is_text(space):
        return "text"
    if isinstance(space, spaces.Discrete):
        return "categorical"
    bounds = integer_bounds(space)
    if bounds is not None and space.shape is not None and len(space.shape) in (2, 3):
        cells = int(np.prod(space.shape[:2]))
        seen = [np.asarray(value).ravel() for episode in episodes for value in episode]
        values = np.unique(np.concatenate(seen or [np.zeros(1)]))
        if cells <= limits.grid_cells and len(values) <= limits.distinct_values:
            return "grid"
        if space.dtype == np.uint8:
            return "image"
    if isinstance(space, spaces.MultiDiscrete | spaces.MultiBinary):
        return "categorical"
    if isinstance(space, spaces.Box):
        if bounds is not None and len(space.shape) <= 1 and (bounds[1] - bounds[0]).max(initial=0) < limits.categories:
            return "categorical"
        if _size(space) <= limits.vector_size:
            return "vector"
    return "unknown"


def is_text(space: spaces.Space[Any]) -> bool:
    """Whether a leaf's values are strings: Text, or a space of its own such as MiniGrid's missions, which is no subclass."""
    return isinstance(space, spaces.Text) or (space.dtype is not None and space.dtype.kind == "U")


def integer_bounds(space: spaces.Space[Any]) -> tuple[np.ndarray, np.ndarray] | None:
    """Lowest and highest value of each element of an integer space, as float64 arrays of its shape; None for other spaces."""
    if isinstance(space, spaces.Discrete):
        return np.full((1,), float(space.start)), np.full((1,), float(space.start + space.n - 1))
    if isinstance(space, spaces.MultiDiscrete):
        start = np.asarray(space.start, np.float64)
        return start, start + space.nvec - 1
    if isinstance(space, spaces.MultiBinary):
        return np.zeros(space.shape), np.ones(space.shape)
    if isinstance(space, spaces.Box) and (np.issubdtype(space.dtype, np.integer) or space.dtype == np.bool_):
        return space.low.astype(np.float64), space.high.astype(np.float64)
    return None


def _size(space: spaces.Space[Any]) -> int:
    return int(np.prod(space.shape or ()))
