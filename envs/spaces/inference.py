"""Decide what each leaf of an observation space is: a grid, an image, categories, text, a vector.

By shape, bounds and a short probe of real observations, since a space alone does not tell a symbolic grid from a small picture.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from gymnasium import spaces

from envs.errors import UserError
from envs.spaces.images import MOST_CHANNELS, can_be_image, image_layout, is_brightness, shrunk_size
from envs.spaces.leaves import Leaf, leaves
from envs.spaces.overrides import Override, read_overrides
from envs.spaces.ranges import integer_ranges
from envs.spaces.specs import KINDS, EnvSpec, ModalitySpec, presence_key

log = logging.getLogger(__name__)

Samples = Mapping[str, Sequence[Sequence[Any]]]  # leaf key -> probe episodes -> raw values
NOTHING_ASKED = Override()


@dataclass(frozen=True)
class InferenceLimits:
    """Where one kind ends and the next begins.

    Attributes:
        grid_cells: an integer array of more cells is no grid but a picture; so is a float array of brightnesses.
        distinct_values: as is one in which the probe met more distinct numbers than this.
        categories: a 1-d integer Box is categorical when no element has more values than this, else a vector.
        groups: a leaf of more categories than this is a vector.
        logits: as is one that takes more than this to predict: a Discrete of a million values is a number, not a choice.
        logits_asked: more than this are refused, even if asked for.
        vector_size: a vector of more elements is refused unless asked for by name.
    """

    grid_cells: int = 32 * 32
    distinct_values: int = 64
    categories: int = 64
    groups: int = 1024
    logits: int = 2**14
    logits_asked: int = 2**20
    vector_size: int = 4096


def infer_modalities(
    space: spaces.Space[Any],
    samples: Samples,
    kinds: Mapping[str, Any] | None = None,
    text_bytes: int = 96,
    limits: InferenceLimits | None = None,
    image_size: int = 0,
) -> tuple[ModalitySpec, ...]:
    """One `ModalitySpec` per leaf of `space`.

    Args:
        space: a (nested) Gymnasium observation space.
        samples: raw values of each leaf, by probe episode (see `envs.probe`); only used where the space does not decide.
        kinds: `env.modalities`, leaf key -> what to read it as, where the user knows better (see `envs.spaces.overrides`).
        text_bytes: length to which text is cut and padded.
        limits: thresholds, `InferenceLimits()` if not given.
        image_size: pixels of an image's longer side that larger ones are shrunk to; 0: none is.

    Raises:
        UserError: an override that names no leaf or no kind, or a leaf that cannot be mapped.
    """
    limits = limits or InferenceLimits()
    found = leaves(space)
    asked = read_overrides(kinds or {}, [leaf.key for leaf in found])
    specs = []
    for leaf in found:
        override = asked.get(leaf.key, NOTHING_ASKED)
        if not override.ignored:
            found_spec = _modality(leaf, samples.get(leaf.key, ()), override, text_bytes, limits, image_size)
            specs += _with_presence(found_spec) if override.optional else [found_spec]
    keys = [spec.key for spec in specs]
    for spec in specs:
        if spec.optional and keys.count(presence_key(spec.key)) > 1:
            raise UserError(
                f"`{spec.key}` cannot be optional, because `{presence_key(spec.key)}`, which would say so, is observed already: "
                "leave that out (=ignore), or rename it with an observation wrapper (env.wrappers)."
            )
    if not specs:
        raise UserError("env.modalities ignores all there is to observe; leave at least one part.")
    return tuple(specs)


def _with_presence(spec: ModalitySpec) -> list[ModalitySpec]:
    """An optional modality, and the category that says whether it is there. Even a constant one may go and come back."""
    origin = f"whether `{spec.key}` is there"
    there = ModalitySpec(presence_key(spec.key), "categorical", (1,), "int64", classes=(2,), origin=origin)
    return [replace(spec, optional=True), there]


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
    leaf: Leaf, episodes: Sequence[Sequence[Any]], asked: Override, text_bytes: int, limits: InferenceLimits, image_size: int
) -> ModalitySpec:
    kind = asked.kind or _kind(leaf, episodes, limits)
    space, name, static = leaf.space, space_name(leaf.space), bool(asked.static)
    if kind == "text" and is_text(space):
        _tell_of_cuts(leaf.key, episodes, text_bytes)
        if asked.static is None:
            constant = all(all(value == episode[0] for value in episode) for episode in episodes)
            static = constant and bool(episodes) and not asked.optional
        return ModalitySpec(leaf.key, kind, (text_bytes,), "uint8", static=static, origin=name)
    size = int(np.prod(space.shape)) if space.shape is not None and not is_text(space) else 0
    if kind == "vector" and size:
        return ModalitySpec(leaf.key, kind, (size,), "float32", static=static, origin=name)
    ranges = integer_ranges(space)
    if kind == "categorical" and ranges is not None and size and ranges.logits <= limits.logits_asked:
        classes = tuple(int(n) for n in ranges.count.ravel())
        return ModalitySpec(leaf.key, kind, (len(classes),), "int64", classes=classes, static=static, origin=name)
    if kind == "grid" and ranges is not None and size and space.shape is not None and len(space.shape) in (2, 3):
        shape = space.shape if len(space.shape) == 3 else (*space.shape, 1)
        dtype = "uint8" if ranges.within(0, 255) else "int64"
        return ModalitySpec(leaf.key, kind, tuple(shape), dtype, static=static, origin=name)
    if kind == "image" and can_be_image(space):
        layout = image_layout(space.shape or ())
        assert layout is not None
        shape = (*shrunk_size(layout.height, layout.width, image_size), layout.channels)
        return ModalitySpec(leaf.key, kind, shape, "uint8", static=static, origin=name)
    if kind == "image":
        raise UserError(
            f"`{leaf.key}` ({name}) cannot be read as an image, which is a bounded Box of shape (H, W), (H, W, C), (C, H, W) or "
            f"a stack of such frames with at most {MOST_CHANNELS} channels in all; choose another kind by "
            f"env.modalities.{leaf.key}=..., or reshape it with an observation wrapper (env.wrappers)."
        )
    if asked.kind and kind not in KINDS and size:  # a modality that was added: it gets the numbers as they are
        dtype = "int64" if ranges is not None else "float32"
        return ModalitySpec(leaf.key, kind, space.shape or (1,), dtype, static=static, origin=name)
    raise UserError(_refusal(leaf.key, name, space, asked.kind))


def _refusal(key: str, name: str, space: spaces.Space[Any], asked: str | None) -> str:
    """Why a leaf cannot be read, and what to do about it."""
    leave_out = f"leave it out by env.modalities.{key}=ignore, or replace it with an observation wrapper (env.wrappers)."
    if space.shape is None and not is_text(space):
        return f"`{key}` ({name}) cannot be read, because its values differ in size or kind from step to step; {leave_out}"
    if space.shape is not None and 0 in space.shape:
        return f"`{key}` ({name}) cannot be read, because it is empty; {leave_out}"
    ranges = integer_ranges(space)
    if asked == "categorical" and ranges is not None:
        return (
            f"`{key}` ({name}) cannot be read as categorical, because it has too many values; "
            f"choose env.modalities.{key}=vector, or {leave_out}"
        )
    how = f" as {asked}" if asked else ", because it is too large for a vector"
    return f"`{key}` ({name}) cannot be read{how}; choose a kind that fits by env.modalities.{key}=KIND, {leave_out}"


def _tell_of_cuts(key: str, episodes: Iterable[Sequence[Any]], text_bytes: int) -> None:
    longest = max((len(str(value).encode("utf-8", "replace")) for episode in episodes for value in episode), default=0)
    if longest > text_bytes:
        _warn_once(f"texts of `{key}` have up to {longest} bytes or more and are cut to {text_bytes}: raise env.text_bytes")


@lru_cache(maxsize=256)
def _warn_once(message: str) -> None:
    log.warning(message)


def _kind(leaf: Leaf, episodes: Iterable[Sequence[Any]], limits: InferenceLimits) -> str:
    """The kind that fits best; `unknown` where none does."""
    space = leaf.space
    if is_text(space):
        return "text"
    ranges = integer_ranges(space)
    pixels = _pixels(space) if is_brightness(space) else 0
    if ranges is not None and space.shape is not None and len(space.shape) in (2, 3):
        cells = int(np.prod(space.shape[:2]))
        if max(cells, pixels) <= limits.grid_cells and _distinct(episodes) <= limits.distinct_values:
            return "grid"
        if space.dtype == np.uint8:
            return "image"
    if pixels > limits.grid_cells:
        return "image"
    if ranges is not None and ranges.count.size <= limits.groups and ranges.logits <= limits.logits:
        if not isinstance(space, spaces.Box):
            return "categorical"
        if len(space.shape) <= 1 and ranges.count.max(initial=0) <= limits.categories:
            return "categorical"
    if space.shape is not None and np.prod(space.shape) <= limits.vector_size:
        return "vector"
    return "unknown"


def _pixels(space: spaces.Space[Any]) -> int:
    layout = image_layout(space.shape or ())
    return layout.height * layout.width if layout else 0


def _distinct(episodes: Iterable[Sequence[Any]]) -> int:
    """How many different numbers the probe met."""
    seen = [np.asarray(value).ravel() for episode in episodes for value in episode]
    return len(np.unique(np.concatenate(seen or [np.zeros(1)])))


def is_text(space: spaces.Space[Any]) -> bool:
    """Whether a leaf's values are strings: Text, or a space of its own such as MiniGrid's missions, which is no subclass."""
    return isinstance(space, spaces.Text) or (space.dtype is not None and space.dtype.kind == "U")
