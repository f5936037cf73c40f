"""Environments that break their promises in one way each, in episodes of some seeds: `tests.envs.bad:Bad-v0`."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Bad(gym.Env[Any, Any]):
    """Six steps to a reward of 1, except where the seed is `odds - 1` modulo `odds`: there `fault` happens at step `at`.

    `x` counts the steps, `odd_x` shows what the fault does to observations.
    """

    def __init__(self, fault: str = "", at: int = 3, odds: int = 100) -> None:
        self.observation_space = spaces.Dict({"x": spaces.Box(-10, 10, (2,), np.float32), "kind": spaces.Discrete(3)})
        self.action_space = spaces.Discrete(2)
        self._fault, self._at, self._odds = fault, at, odds

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, Any]:
        super().reset(seed=seed)
        self._t = 0
        self._bad = seed is not None and seed % self._odds == self._odds - 1
        if self._bad and self._fault == "raise_reset":
            raise OSError("the level file is gone")
        if self._bad and self._fault == "hang_reset":
            time.sleep(100)
        return self._observe(), {}

    def step(self, action: Any) -> Any:
        self._t += 1
        done = self._t == 6
        fault = self._fault if self._bad and self._t >= self._at else ""
        obs = self._observe()
        reward: Any = float(done)
        info: Any = {"is_success": done}
        if fault == "raise":
            raise ZeroDivisionError("physics\nbroke down")
        if fault == "hang":
            while True:
                try:
                    time.sleep(100)
                except Exception:
                    continue
        if fault == "deaf":  # as C code that never comes back
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
            time.sleep(100)
        if fault == "die":
            os._exit(3)
        if fault == "old_api":
            return obs, reward, done, info
        if fault == "space":
            self.observation_space = spaces.Dict({"x": spaces.Box(-10, 10, (3,), np.float32), "kind": spaces.Discrete(3)})
            obs["x"] = np.zeros(3, np.float32)
        if fault == "action_space":
            self.action_space = spaces.Discrete(5)
        changes: dict[str, dict[str, Any]] = {
            "shape": {"x": np.zeros(3, np.float32)},
            "words": {"x": "nonsense"},
            "category": {"kind": 7},
            "below": {"kind": -1},
            "nan": {"x": np.array([0.0, np.nan], np.float32)},
            "bounds": {"x": np.array([0.0, 11.0], np.float32)},
        }
        obs |= changes.get(fault, {})
        if fault == "missing":
            del obs["kind"]
        reward = {"inf_reward": np.inf, "no_reward": None, "array_reward": np.array([0.5])}.get(fault, reward)
        info = {"list": ["won"], "keys": {1: "a", "is_success": True}, "lambda": {"is_success": True, "f": lambda: 0}}.get(
            fault, info
        )
        return obs, reward, done, False, info

    def _observe(self) -> Any:
        return {"x": np.full(2, self._t, np.float32), "kind": self._t % 3}


gym.register("Bad-v0", entry_point=f"{__name__}:Bad")
