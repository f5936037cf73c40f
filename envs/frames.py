"""Wrappers that config keys name: idle starts, frame skip, resize, frame stack; over every fitting part of an observation."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from PIL import Image

from envs.config import EnvConfig
from envs.errors import UserError
from envs.spaces.inference import InferenceLimits
from envs.spaces.leaves import Leaf, leaves

Path = tuple[Any, ...]
Steps = tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]


def skip_frames(env: gym.Env[Any, Any], config: EnvConfig) -> gym.Env[Any, Any]:
    """`env` with `env.noop_start` and `env.frame_skip`, which act on its own steps.

    Raises:
        UserError: settings out of range, or an action space without an idle action.
    """
    if config.noop_start < 0:
        raise UserError(f"env.noop_start={config.noop_start} has to be 0 or more.")
    if config.frame_skip < 1:
        raise UserError(f"env.frame_skip={config.frame_skip} has to be 1 or more.")
    if config.noop_start:
        env = IdleStart(env, config.noop_start)
    return FrameSkip(env, config.frame_skip, flickers(env)) if config.frame_skip > 1 else env


def shape_frames(env: gym.Env[Any, Any], config: EnvConfig) -> gym.Env[Any, Any]:
    """`env` with `env.resize` and `env.frame_stack`, which act on what is observed.

    Raises:
        UserError: settings out of range, or nothing observed that they could act on.
    """
    if config.resize is not None:
        if len(config.resize) != 2 or min(config.resize) < 1:
            raise UserError(f"env.resize={list(config.resize)} has to be [rows, columns], or null.")
        env = Resize(env, int(config.resize[0]), int(config.resize[1]))
    if config.frame_stack < 1:
        raise UserError(f"env.frame_stack={config.frame_stack} has to be 1 or more.")
    return FrameStack(env, config.frame_stack) if config.frame_stack > 1 else env


def flickers(env: gym.Env[Any, Any]) -> bool:
    """Whether an environment draws some things in every other frame alone, as Atari games do."""
    return any(base.__module__.partition(".")[0] == "ale_py" for base in type(env.unwrapped).__mro__)


class IdleStart(gym.Wrapper[Any, Any, Any, Any]):
    """Begins every episode with 1 to `most` idle steps, as many as its seed says (Mnih et al. 2015); action 0 has to be idle."""

    def __init__(self, env: gym.Env[Any, Any], most: int) -> None:
        if not isinstance(env.action_space, spaces.Discrete):
            raise UserError(f"env.noop_start needs discrete actions, not {env.action_space}; set env.noop_start=0.")
        super().__init__(env)
        self._most, self._idle = most, env.action_space.start
        self._rng = np.random.default_rng()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        observation, info = self.env.reset(seed=seed, options=options)
        for _ in range(int(self._rng.integers(1, self._most + 1))):
            observation, _, terminated, truncated, info = self.env.step(self._idle)
            if terminated or truncated:
                observation, info = self.env.reset(options=options)
        return observation, info


class FrameSkip(gym.Wrapper[Any, Any, Any, Any]):
    """Repeats every action `skip` times or until the episode ends; rewards add up, the last observation and info are kept.

    With `pool` images show the larger value of the last two frames in every pixel (Mnih et al. 2015).
    """

    def __init__(self, env: gym.Env[Any, Any], skip: int, pool: bool = False) -> None:
        super().__init__(env)
        self._skip, self._pool = skip, pool and isinstance(env.observation_space, spaces.Box)

    def step(self, action: Any) -> Steps:
        total, before = 0.0, None
        for i in range(self._skip):
            observation, reward, terminated, truncated, info = self.env.step(action)
            total += float(reward)
            if terminated or truncated or i == self._skip - 1:
                break
            before = observation
        if self._pool and before is not None:
            observation = np.maximum(before, observation)
        return observation, total, terminated, truncated, info


class Resize(gym.ObservationWrapper[Any, Any, Any]):
    """Every image observed at `rows` x `columns` pixels, each the mean of those it covers; grids of symbols stay as they are."""

    def __init__(self, env: gym.Env[Any, Any], rows: int, columns: int) -> None:
        super().__init__(env)
        self._size = (columns, rows)
        self._changes: dict[Path, Callable[[Any], Any]] = {}
        resized: dict[Path, spaces.Space[Any]] = {}
        for leaf in leaves(env.observation_space):
            if is_picture(leaf):
                self._changes[leaf.path] = self._resized
                shape = (rows, columns, *(leaf.space.shape or ())[2:])
                resized[leaf.path] = spaces.Box(0, 255, shape, np.uint8)
        if not resized:
            raise UserError(f"env.resize: {env.observation_space} holds no image; set env.resize=null.")
        self.observation_space = replaced_space(env.observation_space, resized)

    def observation(self, observation: Any) -> Any:
        return replaced(observation, self.env.observation_space, self._changes)

    def _resized(self, image: np.ndarray) -> np.ndarray:
        channels = image[..., None] if image.ndim == 2 else image
        planes = [
            np.asarray(Image.fromarray(np.ascontiguousarray(channels[..., c])).resize(self._size, Image.Resampling.BOX))
            for c in range(channels.shape[-1])
        ]
        return planes[0] if image.ndim == 2 else np.stack(planes, -1)


class FrameStack(gym.Wrapper[Any, Any, Any, Any]):
    """The last `number` frames in one, oldest first, of every Box observed; an episode begins with its first frame repeated.

    Frames lie one behind the other along the last axis: (H, W, C) becomes (H, W, C * number), (n,) becomes (n * number,);
    (H, W) becomes (H, W, number), and a single number (number,).
    """

    def __init__(self, env: gym.Env[Any, Any], number: int) -> None:
        super().__init__(env)
        self._leaves = [leaf for leaf in leaves(env.observation_space) if isinstance(leaf.space, spaces.Box)]
        if not self._leaves:
            raise UserError(f"env.frame_stack: {env.observation_space} holds no Box to stack; set env.frame_stack=1.")
        stacked: dict[Path, spaces.Space[Any]] = {}
        for leaf in self._leaves:
            assert isinstance(leaf.space, spaces.Box)
            low, high = (join([bound] * number) for bound in (leaf.space.low, leaf.space.high))
            stacked[leaf.path] = spaces.Box(low, high, dtype=leaf.space.dtype)
        self.observation_space = replaced_space(env.observation_space, stacked)
        self._frames: dict[Path, deque[np.ndarray]] = {leaf.path: deque(maxlen=number) for leaf in self._leaves}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        for frames in self._frames.values():
            frames.clear()
        self._take(observation)
        return self._stacked(observation), info

    def step(self, action: Any) -> Steps:
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._take(observation)
        return self._stacked(observation), reward, terminated, truncated, info

    def _take(self, observation: Any) -> None:
        """Keep copies of the frames, as some environments write over theirs; one that is missing is passed over."""
        for leaf in self._leaves:
            frames, value = self._frames[leaf.path], leaf.value_if_there(observation)
            if value is not None:
                frames.extend([np.array(value)] * (1 if frames else frames.maxlen or 1))

    def _stacked(self, observation: Any) -> Any:
        def latest(path: Path) -> Callable[[Any], np.ndarray]:
            return lambda _: join(list(self._frames[path]))

        return replaced(observation, self.env.observation_space, {path: latest(path) for path in self._frames})


def is_picture(leaf: Leaf) -> bool:
    """Whether a leaf is an image for sure: uint8, of more cells than a grid of symbols may have."""
    shape = leaf.space.shape or ()
    is_bytes = isinstance(leaf.space, spaces.Box) and leaf.space.dtype == np.uint8
    return is_bytes and len(shape) in (2, 3) and shape[0] * shape[1] > InferenceLimits().grid_cells


def join(frames: list[np.ndarray]) -> np.ndarray:
    """Frames one behind the other along the last axis, or a new one where there is none for it."""
    return np.stack(frames, -1) if frames[0].ndim in (0, 2) else np.concatenate(frames, -1)


def replaced_space(space: spaces.Space[Any], leaf_spaces: Mapping[Path, spaces.Space[Any]], path: Path = ()) -> spaces.Space[Any]:
    """A nested space with some of its leaves exchanged."""
    if isinstance(space, spaces.Dict):
        return spaces.Dict({name: replaced_space(child, leaf_spaces, (*path, name)) for name, child in space.spaces.items()})
    if isinstance(space, spaces.Tuple):
        return spaces.Tuple([replaced_space(child, leaf_spaces, (*path, i)) for i, child in enumerate(space.spaces)])
    return leaf_spaces.get(path, space)


def replaced(value: Any, space: spaces.Space[Any], changes: Mapping[Path, Callable[[Any], Any]], path: Path = ()) -> Any:
    """A nested observation with some of its leaves changed; what is missing stays so."""
    if value is None:
        return None
    if isinstance(space, spaces.Dict):
        known = {name: child for name, child in space.spaces.items() if name in value}
        return {name: replaced(value[name], child, changes, (*path, name)) for name, child in known.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(replaced(value[i], child, changes, (*path, i)) for i, child in enumerate(space.spaces))
    return changes[path](value) if path in changes else value
