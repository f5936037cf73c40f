"""Crafter (Hafner 2021, arXiv:2109.06780) as a Gymnasium environment: `Crafter-v1`. Needs the `suites` extra."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Crafter(gym.Env[np.ndarray, Any]):
    """The package's environment under Gymnasium's interface, with seeds honoured.

    Dying terminates an episode; running out of `length` steps truncates it. The reward is 1 for each of the 22 achievements
    when it is unlocked, and a tenth of every change in health.

    Info beside the package's own (`achievements`: how often each was done, `inventory`, `semantic`, `player_pos`, `discount`):
        unlocked: {achievement: whether it was done at least once in this episode}.
        progress: the share of achievements that are unlocked.

    Args:
        size: pixels of each side of the image.
        length: steps after which an episode is cut off.
        view: cells seen, inventory included.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012  # as Gymnasium has it

    def __init__(
        self, size: int = 64, length: int = 10_000, view: tuple[int, int] = (9, 9), render_mode: str | None = None
    ) -> None:
        self._world = _world(size, length, tuple(view))
        self.observation_space = spaces.Box(0, 255, (size, size, 3), np.uint8)
        self.action_space = spaces.Discrete(len(self._world.action_names))
        self.render_mode = render_mode

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self._world.restart(int(self.np_random.integers(2**31 - 1)))
        observation: np.ndarray = self._world.reset()
        return observation, self._counted({"achievements": self._world.achievements()})

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        observation, reward, done, info = self._world.step(int(action))
        terminated = info["discount"] == 0
        return observation, float(reward), terminated, bool(done) and not terminated, self._counted(info)

    def render(self) -> np.ndarray:
        frame: np.ndarray = self._world.render((512, 512))
        return frame

    @staticmethod
    def _counted(info: dict[str, Any]) -> dict[str, Any]:
        unlocked = {name: count > 0 for name, count in info["achievements"].items()}
        return {**info, "unlocked": unlocked, "progress": sum(unlocked.values()) / len(unlocked)}


def _world(size: int, length: int, view: tuple[int, ...]) -> Any:
    """The package's environment, made to be the same for the same seed in every process."""
    import crafter

    class World(crafter.Env):
        def restart(self, seed: int) -> None:
            self._seed, self._episode = seed, 0

        def achievements(self) -> Mapping[str, int]:
            counts: Mapping[str, int] = self._player.achievements.copy()
            return counts

        def _balance_chunk(self, chunk: Any, objs: Any) -> None:
            # It picks one of a set whose order hangs on memory addresses.
            super()._balance_chunk(chunk, sorted(objs, key=lambda thing: tuple(thing.pos)))

    return World(view=view, size=(size, size), length=length, seed=0)


gym.register("Crafter-v1", entry_point=f"{__name__}:Crafter")
