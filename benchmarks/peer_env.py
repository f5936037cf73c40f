"""Our environments for Stable-Baselines3: the same tasks, layouts and observations, as one flat vector.

Imports Stable-Baselines3 (the `bench` extra): import this module where it is used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.vec_env import VecEnv

from agent.metrics import SuccessTracker
from benchmarks.peer_encoding import Encoder
from curriculum import Curriculum
from envs import SuccessRule, TaskVectorEnv
from envs.spaces.specs import EnvSpec
from envs.tasks import Outcome, Task


class CurriculumVecEnv(VecEnv):
    """The training environments as Stable-Baselines3 wants them: they reset themselves, on the tasks that the curriculum samples.

    Args:
        envs: the environments.
        curriculum: decides the task of each episode.
        tracker: told of every finished episode.
        rule: when an episode counts as a success.
        clock: seconds of training so far.
        rng: draws tasks and the seeds of episodes.

    Attributes:
        env_steps: steps of all environments on all tasks so far.
    """

    def __init__(
        self,
        envs: TaskVectorEnv,
        curriculum: Curriculum,
        tracker: SuccessTracker,
        rule: SuccessRule,
        clock: Callable[[], float],
        rng: np.random.Generator,
    ) -> None:
        self.encode = Encoder(envs.spec)
        box = spaces.Box(-np.inf, np.inf, (self.encode.size,), np.float32)
        super().__init__(envs.num_envs, box, spaces.Discrete(envs.spec.action.size))
        self.env_steps = 0
        self._envs, self._curriculum, self._tracker, self._rule, self._clock, self._rng = (
            envs,
            curriculum,
            tracker,
            rule,
            clock,
            rng,
        )
        self._playing: list[Task] = []
        self._scores = np.zeros(envs.num_envs)
        self._lengths = np.zeros(envs.num_envs, np.int64)
        self._actions = np.zeros(envs.num_envs, np.int64)

    def reset(self) -> np.ndarray:
        self._playing = self._curriculum.sample(self.num_envs, self._rng)
        self._scores[:], self._lengths[:] = 0, 0
        return self.encode(self._envs.reset(self._playing))

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = np.asarray(actions, np.int64)

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        obs, reward, terminated, truncated, last_infos = self._envs.step(self._actions)[:5]
        self.env_steps += self.num_envs
        self._scores += reward
        self._lengths += 1
        ended = terminated | truncated
        encoded = self.encode(obs)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for i in np.flatnonzero(ended):
            # What Stable-Baselines3 bootstraps from where an episode was only cut off.
            infos[i] = {"terminal_observation": encoded[i], "TimeLimit.truncated": bool(truncated[i] and not terminated[i])}
            score = float(self._scores[i])
            won = self._rule.judge(score, float(reward[i]), bool(terminated[i]), last_infos[i])
            outcome = Outcome(self._playing[i].id, score, won, int(self._lengths[i]), self.env_steps)
            self._tracker.record(outcome, self._clock())
            self._curriculum.update([outcome])
        if ended.any():
            encoded = self.encode(self._begin(ended))
        return encoded, reward, ended, infos

    def _begin(self, mask: np.ndarray) -> dict[str, np.ndarray]:
        for i, task in zip(np.flatnonzero(mask), self._curriculum.sample(int(mask.sum()), self._rng), strict=True):
            self._playing[i] = task
        self._scores[mask], self._lengths[mask] = 0, 0
        return self._envs.reset(self._playing, mask)

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


class PeerAgent:
    """A trained policy as `agent.evaluation` plays it: memoryless, so it has no state."""

    def __init__(self, policy: BasePolicy, spec: EnvSpec) -> None:
        self._policy = policy
        self._encode = Encoder(spec)
        self.device = policy.device

    def initial_state(self, num_envs: int) -> None:
        return None

    def act(
        self, obs: dict[str, np.ndarray], first: np.ndarray, state: None, mode: str = "sample"
    ) -> tuple[np.ndarray, None, None]:
        """`{modality key: (N, *shape)}` -> actions (N,), and nothing in the place of log-probabilities and state."""
        actions, _ = self._policy.predict(self._encode(obs), deterministic=mode == "greedy")
        return np.asarray(actions, np.int64), None, None
