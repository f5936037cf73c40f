"""Our environments for Stable-Baselines3: the same tasks, layouts and observations, as one flat vector.

Imports Stable-Baselines3 (the `bench` extra): import this module where it is used.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv

from benchmarks.criterion import Mastery
from benchmarks.peer_curriculum import SequentialTasks
from envs import SuccessRule, TaskVectorEnv
from envs.spaces.specs import EnvSpec, ModalitySpec

GRID_CLASSES = (11, 6, 4)  # MiniGrid's objects, colours and states, one more state than its doors use
WORD_BUCKETS = 64


class Encoder:
    """Observations as one float32 vector: symbols one-hot, vectors as they are, text as a hashed bag of words."""

    def __init__(self, spec: EnvSpec) -> None:
        self._leaves = spec.observations
        self.size = sum(_width(leaf) for leaf in self._leaves)

    def __call__(self, obs: dict[str, np.ndarray]) -> np.ndarray:
        """`{modality key: (N, *shape)}` -> (N, size)."""
        parts = [_encode(leaf, obs[leaf.key]) for leaf in self._leaves]
        return np.concatenate(parts, axis=1, dtype=np.float32)


def _width(leaf: ModalitySpec) -> int:
    if leaf.kind == "grid":
        return leaf.shape[0] * leaf.shape[1] * sum(GRID_CLASSES)
    if leaf.kind == "categorical":
        return sum(leaf.classes)
    if leaf.kind == "text":
        return WORD_BUCKETS
    return int(np.prod(leaf.shape))


def _encode(leaf: ModalitySpec, values: np.ndarray) -> np.ndarray:
    N = len(values)
    if leaf.kind == "grid":  # (N, rows, columns, channels)
        hot = [np.eye(n, dtype=np.float32)[values[..., channel]] for channel, n in enumerate(GRID_CLASSES)]
        return np.concatenate(hot, axis=-1).reshape(N, -1)
    if leaf.kind == "categorical":  # (N, elements)
        return np.concatenate([np.eye(n, dtype=np.float32)[values[:, i]] for i, n in enumerate(leaf.classes)], axis=1)
    if leaf.kind == "text":  # (N, max_bytes)
        return np.stack([bag_of_words(row.tobytes()) for row in values])
    return values.reshape(N, -1)


def bag_of_words(text: bytes) -> np.ndarray:
    """Which words a zero-padded text holds: (WORD_BUCKETS,), each word hashed to an entry."""
    bag = np.zeros(WORD_BUCKETS, np.float32)
    for word in text.rstrip(b"\0").split():
        bag[zlib.crc32(word) % WORD_BUCKETS] = 1.0
    return bag


class CurriculumVecEnv(VecEnv):
    """The training split as Stable-Baselines3 wants it: resets itself, each episode on the task that the curriculum samples.

    Attributes:
        env_steps: steps of all environments on all tasks so far.
        mastery: success of the training episodes.
    """

    def __init__(
        self, envs: TaskVectorEnv, curriculum: SequentialTasks, mastery: Mastery, success: SuccessRule, clock: Callable[[], float]
    ) -> None:
        self.encode = Encoder(envs.spec)
        box = spaces.Box(-np.inf, np.inf, (self.encode.size,), np.float32)
        super().__init__(envs.num_envs, box, spaces.Discrete(envs.spec.action.size))
        self.mastery = mastery
        self.env_steps = 0
        self._envs = envs
        self._curriculum = curriculum
        self._success = success
        self._clock = clock
        self._tasks = [curriculum.sample() for _ in range(envs.num_envs)]
        self._returns = np.zeros(envs.num_envs)
        self._actions = np.zeros(envs.num_envs, np.int64)

    def reset(self) -> np.ndarray:
        self._returns[:] = 0
        return self.encode(self._envs.reset(self._tasks))

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = np.asarray(actions, np.int64)

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        obs, reward, terminated, truncated, last_infos = self._envs.step(self._actions)
        self.env_steps += self.num_envs
        self._returns += reward
        ended = terminated | truncated
        encoded = self.encode(obs)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for i in np.flatnonzero(ended):
            won = self._success.judge(float(self._returns[i]), float(reward[i]), bool(terminated[i]), last_infos[i])
            self.mastery.record(self._tasks[i].id, won, self.env_steps, self._clock())
            self._curriculum.update()
            # What Stable-Baselines3 bootstraps from where an episode was only cut off.
            infos[i] = {"terminal_observation": encoded[i], "TimeLimit.truncated": bool(truncated[i] and not terminated[i])}
        if ended.any():
            for i in np.flatnonzero(ended):
                self._tasks[i] = self._curriculum.sample()
            encoded = self.encode(self._envs.reset(self._tasks, ended))
            self._returns[ended] = 0
        return encoded, reward, ended, infos

    def close(self) -> None:
        self._envs.close()

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        if attr_name == "render_mode":
            return [None] * self.num_envs
        raise AttributeError(attr_name)

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise AttributeError(attr_name)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        raise AttributeError(method_name)


def evaluate(
    envs: TaskVectorEnv,
    task_id: str,
    episodes: int,
    act: Callable[[np.ndarray], np.ndarray],
    success: SuccessRule,
    rng: np.random.Generator,
) -> dict[str, float]:
    """Play `episodes` episodes of one task on the layouts of `envs`'s split: `{"success": share, "return": mean}`.

    The environments get the same number of episodes each: counting whichever end first would favour quick ones.
    """
    encode = Encoder(envs.spec)
    task = envs.tasks[task_id]
    left = np.full(envs.num_envs, episodes // envs.num_envs)
    left[: episodes % envs.num_envs] += 1
    wins: list[bool] = []
    scores: list[float] = []
    returns = np.zeros(envs.num_envs)

    def drawn(mask: np.ndarray) -> Sequence[Any]:
        return [task.with_seed(int(rng.integers(2**31))) if chosen else None for chosen in mask]

    everyone = np.ones(envs.num_envs, bool)
    obs = envs.reset(drawn(everyone), everyone)
    while left.sum() > 0:
        step = envs.step(np.asarray(act(encode(obs)), np.int64))
        obs = step.obs
        returns += step.reward
        ended = step.terminated | step.truncated
        for i in np.flatnonzero(ended):
            if left[i] > 0:
                left[i] -= 1
                scores.append(float(returns[i]))
                wins.append(success.judge(scores[-1], float(step.reward[i]), bool(step.terminated[i]), step.infos[i]))
        if ended.any():
            obs = envs.reset(drawn(ended), ended)
            returns[ended] = 0
    return {"success": float(np.mean(wins)), "return": float(np.mean(scores))}
