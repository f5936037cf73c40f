"""Purpose-made environments with unusual spaces and known dynamics, registered on import: `tests.envs.odd:Odd-v0`."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Odd(gym.Env[Any, Any]):
    """Every kind of leaf, nested: a Dict in a Tuple in a Dict. Its actions are -1, 0 and 1; `choice` echoes the last."""

    def __init__(self) -> None:
        inner = spaces.Dict({"choice": spaces.Discrete(3, start=-1), "speed": spaces.Box(-1.0, 1.0, (2, 2), np.float64)})
        self.observation_space = spaces.Dict(
            {
                "pair": spaces.Tuple((inner, spaces.MultiBinary(3))),
                "cells": spaces.MultiDiscrete(np.full((2, 3), 4)),
                "dials": spaces.MultiDiscrete([2, 5]),
                "height": spaces.Box(-5, 5, (1,), np.int64),
                "clock": spaces.Box(0, 10**6, (), np.int64),
                "order": spaces.Text(40),
                "chatter": spaces.Text(40),
            }
        )
        self.action_space = spaces.Discrete(3, start=-1)

    def _observe(self, choice: int) -> Any:
        return {
            "pair": ({"choice": choice, "speed": np.full((2, 2), 0.5)}, np.array([1, 0, 1], np.int8)),
            "cells": np.full((2, 3), 3),
            "dials": np.array([1, 4]),
            "height": np.array([-5]),
            "clock": np.array(self._t),
            "order": self._order,
            "chatter": f"tick {self._t}",
        }

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._t = 0
        self._order = f"fetch {'äöü'[self.np_random.integers(3)]}"
        return self._observe(0), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert action in (-1, 0, 1)
        self._t += 1
        return self._observe(int(action)), float(action), False, False, {}


class Line(gym.Env[Any, Any]):
    """Walk right from one of `places` on a line: terminates after `goal` moves with reward 1, truncates after `cut` steps."""

    def __init__(self, goal: int = 3, cut: int | None = None, places: int = 1, size: int = 100) -> None:
        self.observation_space = spaces.Box(0.0, np.inf, (size,), np.float32)
        self.action_space = spaces.Discrete(2)
        self._goal, self._cut, self._places, self._size = goal, cut, places, size

    def _observe(self) -> np.ndarray:
        return np.full(self._size, self._start + self._t, np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._start, self._t, self._steps = 100 * int(self.np_random.integers(self._places)), 0, 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._t += int(action)
        self._steps += 1
        there = self._t >= self._goal
        return self._observe(), float(there), there, self._cut is not None and self._steps >= self._cut, {"steps": self._steps}


class Fixed(gym.Env[Any, Any]):
    """Shows samples of whichever observation and action space it is given."""

    def __init__(self, observation: spaces.Space[Any], action: spaces.Space[Any] | None = None) -> None:
        self.observation_space = observation
        self.action_space = action or spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self.observation_space.sample(), 0.0, False, False, {}


for _name in ("Odd", "Line", "Fixed"):
    gym.register(f"{_name}-v0", entry_point=f"{__name__}:{_name}")
