"""Action spaces: from the environment's to the agent's and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium import spaces

from envs.errors import UserError
from envs.spaces.specs import ActionSpec

UNBOUNDED = 1e8  # a bound beyond this is none: nobody means to act over its whole range


def action_spec(space: spaces.Space[Any]) -> ActionSpec:
    """What the agent chooses from.

    Raises:
        UserError: for a space that no policy of ours can act in.
    """
    if isinstance(space, spaces.Discrete):
        return ActionSpec(kind="discrete", size=int(space.n), start=int(space.start))
    if isinstance(space, spaces.MultiBinary):
        size = int(np.prod(space.shape))
        return ActionSpec("multi_discrete", size, classes=(2,) * size, starts=(0,) * size, env_shape=space.shape, dtype="int8")
    if isinstance(space, spaces.MultiDiscrete):
        classes = tuple(int(n) for n in space.nvec.ravel())
        starts = tuple(int(n) for n in np.broadcast_to(space.start, space.shape).ravel())
        dtype = str(np.dtype(space.dtype))
        return ActionSpec("multi_discrete", len(classes), classes=classes, starts=starts, env_shape=space.shape, dtype=dtype)
    if isinstance(space, spaces.Box) and np.prod(space.shape) > 0:
        low, high = _finite_bounds(space.low.ravel().astype(np.float64), space.high.ravel().astype(np.float64))
        dtype = str(np.dtype(space.dtype))
        return ActionSpec("box", len(low), low=tuple(low), high=tuple(high), env_shape=space.shape, dtype=dtype)
    raise UserError(
        f"the action space {space} is not supported: Discrete, MultiDiscrete, MultiBinary and Box are; "
        "turn it into one of these with a wrapper (env.wrappers)."
    )


def adapted_action_space(spec: ActionSpec) -> spaces.Space[Any]:
    """The space of the agent's own actions."""
    if spec.kind == "discrete":
        return spaces.Discrete(spec.size)
    if spec.kind == "multi_discrete":
        return spaces.MultiDiscrete(list(spec.classes))
    return spaces.Box(-1.0, 1.0, spec.shape, np.float32)


def to_environment(spec: ActionSpec) -> Callable[[Any], Any]:
    """A function from the agent's action to the environment's.

    Discrete ones become Python integers: environments compare actions with enumerations, which is slow for numpy scalars.
    Numbers are clipped to -1 .. 1 and stretched to the space's bounds.
    """
    if spec.kind == "discrete":
        start = spec.start
        return (lambda action: int(action) + start) if start else int
    shape, dtype = spec.env_shape, np.dtype(spec.dtype)
    if spec.kind == "multi_discrete":
        starts = np.asarray(spec.starts, np.int64)
        return lambda action: (np.asarray(action, np.int64) + starts).astype(dtype).reshape(shape)
    low, high = np.asarray(spec.low), np.asarray(spec.high)

    def stretch(action: Any) -> np.ndarray:
        share = (np.clip(np.asarray(action, np.float64), -1, 1) + 1) / 2
        value = np.clip(low + share * (high - low), low, high)  # rounding must not carry it over a bound
        return (value if dtype.kind == "f" else value.round()).astype(dtype).reshape(shape)

    return stretch


def from_environment(spec: ActionSpec) -> Callable[[np.ndarray], np.ndarray]:
    """The inverse of `to_environment`, of many at once: (T, *env shape) -> (T, *spec.shape) in the agent's dtype."""
    if spec.kind == "discrete":
        return lambda actions: np.asarray(actions, np.int64) - spec.start
    if spec.kind == "multi_discrete":
        return lambda actions: np.asarray(actions, np.int64).reshape(len(actions), spec.size) - np.asarray(spec.starts, np.int64)
    low, high = np.asarray(spec.low), np.asarray(spec.high)
    span = np.where(high > low, high - low, 1.0)

    def shrink(actions: np.ndarray) -> np.ndarray:
        share = (np.asarray(actions, np.float64).reshape(len(actions), spec.size) - low) / span
        return (2 * share - 1).clip(-1, 1).astype(np.float32)

    return shrink


def no_actions(spec: ActionSpec, *shape: int) -> np.ndarray:
    """Actions (*shape, *spec.shape), all zero."""
    return np.zeros((*shape, *spec.shape), spec.agent_dtype)


def can_be_taken(spec: ActionSpec, actions: np.ndarray) -> bool:
    """Whether all of (..., *spec.shape) are actions. Numbers may lie outside -1 .. 1: the adapter clips them."""
    if spec.kind == "box":
        return bool(np.isfinite(actions).all())
    return bool(((actions >= 0) & (actions < np.asarray(spec.classes or spec.size))).all())


def describe_actions(spec: ActionSpec) -> str:
    """One line for people."""
    if spec.kind == "discrete":
        return f"one of {spec.size}" + (f", from {spec.start}" if spec.start else "")
    if spec.kind == "multi_discrete":
        return f"{spec.size} choices, one of {', '.join(map(str, spec.classes[:8]))}{' ...' if spec.size > 8 else ''}"
    ranges = [f"{low:g}..{high:g}" for low, high in zip(spec.low, spec.high, strict=True)]
    shown = ranges[0] if len(set(ranges)) == 1 else ", ".join(ranges[:8]) + (" ..." if len(ranges) > 8 else "")
    return f"{spec.size} number{'s' * (spec.size > 1)} in {shown}"


def _finite_bounds(low: np.ndarray, high: np.ndarray) -> tuple[list[float], list[float]]:
    """Bounds to stretch -1 .. 1 over; where one is missing the interval is 2 long, so that numbers stand for themselves."""
    no_low, no_high = ~(low > -UNBOUNDED), ~(high < UNBOUNDED)
    lowest = np.where(no_low, np.where(no_high, -1.0, high - 2.0), low)
    highest = np.where(no_high, np.where(no_low, 1.0, low + 2.0), high)
    return lowest.tolist(), highest.tolist()
