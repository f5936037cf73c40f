"""The wrapper between an environment and everything else: flat numeric observations out, the agent's actions in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from envs.faults import FaultError
from envs.spaces.actions import adapted_action_space, to_environment
from envs.spaces.images import image_converter
from envs.spaces.leaves import Leaf, leaves
from envs.spaces.ranges import integer_ranges
from envs.spaces.specs import EnvSpec, ModalitySpec, presence_key

Observation = dict[str, np.ndarray]  # modality key -> array
Convert = Callable[[Any], np.ndarray]

FAR_BELOW = -(2**31)  # a bound of an integer type, rather than a symbol's number
ABSENT, PRESENT = np.zeros(1, np.int64), np.ones(1, np.int64)
MAX_FLOAT32 = float(np.finfo(np.float32).max)


class Adapter(gym.Wrapper[Any, Any, Any, Any]):
    """Delivers observations as `{modality key: array}` as the spec says; takes the agent's actions.

    Where an optional part is missing, or None, zeros stand in its place, and its presence is 0.
    Raises a `FaultError` (`outside_space`) for an observation that cannot be brought into that form.
    """

    def __init__(self, env: gym.Env[Any, Any], spec: EnvSpec) -> None:
        super().__init__(env)
        self.observation_space = adapted_space(spec)
        self.action_space = adapted_action_space(spec.action)
        self._to_environment = to_environment(spec.action)
        by_key = {leaf.key: leaf for leaf in leaves(env.observation_space)}
        self._parts: list[tuple[Leaf, Convert]] = []
        self._nothing = {leaf.key: np.zeros(leaf.shape, leaf.dtype) for leaf in spec.observations if leaf.optional}
        presences = {presence_key(key) for key in self._nothing}
        for modality in spec.observations:
            if modality.key in by_key:
                leaf = by_key[modality.key]
                self._parts.append((leaf, converter(leaf.space, modality)))
            elif not (modality.optional or modality.key in presences):
                raise KeyError(modality.key)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        return self._adapt(observation), info

    def step(self, action: Any) -> tuple[Observation, SupportsFloat, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(self._to_environment(action))
        return self._adapt(observation), reward, terminated, truncated, info

    def _adapt(self, observation: Any) -> Observation:
        adapted: Observation = {}
        for key, nothing in self._nothing.items():
            adapted[key], adapted[presence_key(key)] = nothing, ABSENT
        for leaf, convert in self._parts:
            try:
                if leaf.key in self._nothing:
                    value = leaf.value_if_there(observation)
                    if value is None:
                        continue
                    adapted[presence_key(leaf.key)] = PRESENT
                else:
                    value = leaf.value(observation)
                check_array(value, leaf.space)
                adapted[leaf.key] = convert(value)
            except (TypeError, ValueError, LookupError, AttributeError, OverflowError) as error:
                raise FaultError("outside_space", f"`{leaf.key}`: {type(error).__name__}: {error}") from error
        return adapted


def check_array(value: Any, space: spaces.Space[Any]) -> None:
    """See that an array of two or more axes has its space's shape, and that integers of another type fit into the space's.

    Reshaping and casting would take both without a word.

    Raises:
        ValueError: it does not fit.
    """
    shape, dtype = space.shape, space.dtype
    if not shape or dtype is None or (getattr(value, "dtype", None) == dtype and value.shape == shape):
        return
    array = np.asarray(value)
    if len(shape) > 1 and array.shape != shape:
        raise ValueError(f"an array of shape {array.shape} where the space has {shape}")
    if dtype.kind in "iu" and not np.can_cast(array.dtype, dtype, "safe"):
        with np.errstate(invalid="ignore"):
            if not np.array_equal(array.astype(dtype), array):
                raise ValueError(f"{array.dtype} numbers that do not fit into {dtype}")


def adapted_space(spec: EnvSpec) -> spaces.Dict:
    """The flat space of what the adapter delivers: one Box per modality."""
    boxes: dict[str, spaces.Space[Any]] = {}
    for modality in spec.observations:
        dtype = np.dtype(modality.dtype)
        if dtype == np.float32:
            boxes[modality.key] = spaces.Box(-np.inf, np.inf, modality.shape, np.float32)
        else:
            limits = np.iinfo(dtype)
            boxes[modality.key] = spaces.Box(limits.min, limits.max, modality.shape, dtype.type)
    return spaces.Dict(boxes)


def converter(space: spaces.Space[Any], modality: ModalitySpec) -> Convert:
    """A function from a raw value of `space` to the array that `modality` promises.

    Categories are shifted so that the lowest one is 0; cells of a grid only where the space allows (not too) negative ones.
    """
    shape, dtype = modality.shape, np.dtype(modality.dtype)
    if modality.kind == "text":
        return TextEncoder(shape[0])
    if modality.kind == "image":
        assert isinstance(space, spaces.Box)  # inference gives this kind to such spaces only
        return image_converter(space, shape)
    ranges = integer_ranges(space)
    if modality.kind in ("categorical", "grid"):
        assert ranges is not None  # inference gives these kinds to integer spaces only
        low = ranges.low if modality.kind == "categorical" else np.where(ranges.low > FAR_BELOW, ranges.low.clip(max=0), 0)
        offset = low.reshape(shape)
        if offset.any():
            return lambda value: (np.asarray(value, np.int64).reshape(shape) - offset).astype(dtype, copy=False)
    if dtype == np.float32 and ranges is None:
        return lambda value: _to_float32(np.asarray(value)).reshape(shape)
    return lambda value: np.asarray(value).astype(dtype, copy=False).reshape(shape)


def _to_float32(value: np.ndarray) -> np.ndarray:
    """As float32; what is finite stays finite."""
    if value.dtype.kind != "f" or value.dtype.itemsize <= 4:
        return value.astype(np.float32, copy=False)
    return np.where(np.isfinite(value), value.clip(-MAX_FLOAT32, MAX_FLOAT32), value).astype(np.float32)


class TextEncoder:
    """Text to `size` utf-8 bytes, cut between characters and padded with zeros. The last text is remembered: missions repeat."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._text: str | None = None
        self._bytes = np.zeros(size, np.uint8)

    def __call__(self, text: str) -> np.ndarray:
        if text != self._text:
            # A lone surrogate, which is no character, becomes a question mark.
            data = text.encode("utf-8", "replace")[: self._size].decode("utf-8", errors="ignore").encode("utf-8")
            self._bytes = np.frombuffer(data.ljust(self._size, b"\0"), np.uint8)
            self._text = text
        return self._bytes


def decode_text(data: np.ndarray) -> str:
    """The text of `TextEncoder`'s bytes, for people to read."""
    return bytes(data).rstrip(b"\0").decode("utf-8", errors="replace")
