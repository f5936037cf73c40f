"""What is checked of every answer of an environment before anything is learned from it."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from envs.faults import FaultError
from envs.spaces.inference import space_name
from envs.spaces.leaves import leaves
from envs.spaces.specs import EnvSpec

Bounds = dict[str, tuple[np.ndarray, np.ndarray]]  # modality key -> lowest and highest value of each element


class BrokenInfo(dict[str, Any]):
    """Stands in for an info that was no dict; a success rule that looks into it finds a failure, not a mistake in config."""


class SpaceWatch:
    """Sees that an environment's spaces stay what they were when this was made."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        self._env = env
        self._observation, self._action = env.observation_space, env.action_space
        self._description = _description(env)

    def check(self) -> None:
        """Compare by identity, and only where that differs by content.

        Raises:
            FaultError: `space_changed`.
        """
        env = self._env
        observation, action = env.observation_space, env.action_space
        if observation is self._observation and action is self._action:
            return
        found = _description(env)
        for ours, theirs in zip(self._description, found, strict=False):
            if ours != theirs:
                raise FaultError("space_changed", f"{ours[0]} was {ours[1]}, is {theirs[1]}")
        if len(found) != len(self._description):
            raise FaultError("space_changed", f"{len(self._description) - 1} parts were observed, {len(found) - 1} are")
        self._observation, self._action = observation, action


class BatchCheck:
    """Looks through the observations and rewards of all environments at once.

    Args:
        spec: what the environments deliver.
        bounds: of vectors whose space declares some.
    """

    def __init__(self, spec: EnvSpec, bounds: Bounds | None = None) -> None:
        self._floats = [leaf.key for leaf in spec.observations if np.dtype(leaf.dtype).kind == "f"]
        self._classes = {leaf.key: np.array(leaf.classes, np.uint64) for leaf in spec.observations if leaf.classes}
        self._bounds = bounds or {}

    def __call__(self, obs: Mapping[str, np.ndarray], reward: np.ndarray | None = None) -> dict[int, FaultError]:
        """Faults by row: an observation or a reward that is not finite, a category that does not exist.

        Args:
            obs: `{modality key: (n, *shape)}`.
            reward: (n,).
        """
        found: dict[int, FaultError] = {}
        if reward is not None:
            finite = np.isfinite(reward)
            if not finite.all():
                found |= {int(i): FaultError("not_finite", f"a reward of {reward[i]}") for i in np.flatnonzero(~finite)}
        for key in self._floats:
            finite = np.isfinite(obs[key])
            if not finite.all():
                rows = np.flatnonzero(~finite.reshape(len(finite), -1).all(1)).tolist()
                found |= {i: FaultError("not_finite", f"`{key}` holds {_first(obs[key][i], finite[i])}") for i in rows}
        for key, classes in self._classes.items():
            known = obs[key].view(np.uint64) < classes  # (n, elements); as unsigned a negative number is a huge one
            if not known.all():
                rows = np.flatnonzero(~known.all(1)).tolist()
                found |= {
                    i: FaultError("outside_space", f"`{key}` holds category {_first(obs[key][i], known[i])}, counted from 0")
                    for i in rows
                }
        return found

    def beyond_bounds(self, obs: Mapping[str, np.ndarray]) -> dict[int, str]:
        """Rows with numbers beyond declared bounds, and what they are. They do no harm: vectors are scaled, never looked up."""
        found: dict[int, str] = {}
        for key, (low, high) in self._bounds.items():
            beyond = (obs[key] < low) | (obs[key] > high)  # not so of NaN, which is a fault of its own
            if beyond.any():
                rows = np.flatnonzero(beyond.any(1)).tolist()
                found |= {i: f"`{key}` holds {_first(obs[key][i], ~beyond[i]):g}" for i in rows}
        return found


def declared_bounds(space: spaces.Space[Any], spec: EnvSpec) -> Bounds:
    """The bounds of vectors that have any, a little widened: float32 rounds."""
    found: Bounds = {}
    by_key = {leaf.key: leaf.space for leaf in leaves(space)}
    for modality in spec.observations:
        box = by_key.get(modality.key)
        if modality.kind == "vector" and isinstance(box, spaces.Box) and not modality.optional:  # zeros stand for "missing"
            low, high = box.low.ravel().astype(np.float32), box.high.ravel().astype(np.float32)
            if np.isfinite(low).any() or np.isfinite(high).any():
                found[modality.key] = low - 1e-5 * np.abs(low), high + 1e-5 * np.abs(high)
    return found


def clean_info(info: Any) -> tuple[dict[str, Any], str]:
    """An episode's last info as a dict with names for keys, and what was odd about it, if anything."""
    if not isinstance(info, Mapping):
        return BrokenInfo(), f"a {type(info).__name__} in place of a dict"
    odd = [key for key in info if not isinstance(key, str)]
    if not odd:
        return dict(info), ""
    return {key: value for key, value in info.items() if isinstance(key, str)}, f"the key {odd[0]!r}"


def picklable_info(info: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """What of an info can be sent to another process, and what was left out, if anything."""
    kept, odd = type(info)(), ""
    for key, value in info.items():
        try:
            pickle.dumps(value)
        except Exception as error:  # anything may happen inside `__reduce__`
            odd = f"`{key}` cannot be pickled ({error})"
        else:
            kept[key] = value
    return kept, odd


def plain_reward(reward: Any) -> float:
    """A reward as a float, arrays of one number among them.

    Raises:
        FaultError: it is no number.
    """
    try:
        return float(reward)
    except (TypeError, ValueError):
        try:
            return float(np.asarray(reward).item())
        except (TypeError, ValueError):
            raise FaultError("not_finite", f"a reward of type {type(reward).__name__}") from None


def _description(env: gym.Env[Any, Any]) -> list[tuple[str, str]]:
    """Names, not spaces: text spaces may carry their task's own vocabulary."""
    parts = [(f"`{leaf.key}`", space_name(leaf.space)) for leaf in leaves(env.observation_space)]
    return [("the action space", str(env.action_space)), *parts]


def _first(row: np.ndarray, good: np.ndarray) -> Any:
    return row.ravel()[int(np.argmin(good.ravel()))].item()
