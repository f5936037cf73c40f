"""Our environments for sheeprl: the same tasks, layouts and observations as a Gymnasium environment, and what is counted."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from agent.metrics import SuccessTracker
from benchmarks.dreamerv3_config import OBSERVATION
from benchmarks.peer_encoding import Encoder
from envs import EnvConfig, SuccessRule, make_envs, make_task_space
from envs.tasks import Outcome


class Mastered(BaseException):  # not an error, and not for sheeprl's `except Exception`
    """The task's training success reached the threshold: training is over."""


@dataclass
class Ledger:
    """What the environments of one training run did, together.

    Attributes:
        tracker: told of every finished episode.
        rule: when an episode counts as a success.
        path: a JSON line goes there every `log_every` env steps.
        clock: seconds of training so far.
        updates: gradient steps so far, counted by who trains.
        env_steps: steps of all environments so far.
    """

    tracker: SuccessTracker
    rule: SuccessRule
    path: Path
    log_every: int
    clock: Callable[[], float]
    updates: int = 0
    env_steps: int = 0

    def step(self) -> None:
        """Charge one step of one environment."""
        self.env_steps += 1
        if self.env_steps % self.log_every == 0:
            line = {"env_steps": self.env_steps, "updates": self.updates, "seconds": self.clock(), **self.tracker.metrics()}
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    def episode(self, task: str, score: float, won: bool, length: int) -> None:
        """Count a finished episode.

        Raises:
            Mastered: its task reached the threshold by it.
        """
        if self.tracker.record(Outcome(task, score, won, length, self.env_steps), self.clock()):
            raise Mastered


@dataclass
class _Shared:
    ledger: Ledger | None = None


# Of this process: sheeprl builds its environments by name, from plain data, so there is no other way to hand it over.
SHARED = _Shared()


class PeerEnv(gym.Env[Any, Any]):
    """One of our environments on training layouts of one task. Observes `{"symbols": float32 (size,)}`, see `Encoder`.

    `reset(seed=...)` seeds the draws of layouts; later resets without a seed go on from there.
    """

    def __init__(self, suite: str, task: str) -> None:
        config = EnvConfig(suite=suite, tasks=[task], num_envs=1)
        tasks = make_task_space(config)
        self._task = tasks.hardest
        self._envs = make_envs(config, tasks, split="train")
        self._encode = Encoder(self._envs.spec)
        self._rng = np.random.default_rng()
        self._score, self._length = 0.0, 0
        self.observation_space = spaces.Dict({OBSERVATION: spaces.Box(-np.inf, np.inf, (self._encode.size,), np.float32)})
        self.action_space = spaces.Discrete(self._envs.spec.action.size)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        self._score, self._length = 0.0, 0
        obs = self._envs.reset([self._task.with_seed(int(self._rng.integers(2**31)))])
        return self._observe(obs), {}

    def step(self, action: np.int64) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        step = self._envs.step(np.array([action], np.int64))
        reward, terminated, truncated = float(step.reward[0]), bool(step.terminated[0]), bool(step.truncated[0])
        self._score += reward
        self._length += 1
        ledger = SHARED.ledger
        if ledger is not None:
            ledger.step()
            if terminated or truncated:
                won = ledger.rule.judge(self._score, reward, terminated, step.infos[0])
                ledger.episode(self._task.id, self._score, won, self._length)
        return self._observe(step.obs), reward, terminated, truncated, {}

    def layout(self) -> str:
        """The name (a hash) of the layout that is being played."""
        return self._envs.layout(0)

    def close(self) -> None:
        self._envs.close()

    def _observe(self, obs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {OBSERVATION: self._encode(obs)[0]}
