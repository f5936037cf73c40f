"""`Strata-Obstacles-v0`: a MiniGrid room whose size and density of obstacles are numbers, given at every reset."""

from __future__ import annotations

from functools import cache
from typing import Any

import gymnasium as gym

RANGES = {"density": (0.0, 0.4), "size": (5.0, 16.0)}
DRAWS = 100  # of a room in which the goal can be reached


def check_numbers(numbers: dict[str, Any]) -> dict[str, float]:
    """The numbers of a room, those that are not given by default.

    Raises:
        ValueError: a number it does not know, or one out of range.
    """
    found = {"density": 0.1, "size": 8.0}
    for name, number in numbers.items():
        if name not in RANGES:
            raise ValueError(f"{name} is none of {', '.join(RANGES)}")
        low, high = RANGES[name]
        if not low <= number <= high:
            raise ValueError(f"{name}={number} is out of its range, {low:g} to {high:g}")
        found[name] = float(number)
    return found


def obstacles(**kwargs: Any) -> gym.Env[Any, Any]:
    """Reach the goal in a square room of `size` cells a side, walls included; `density` is the share of free cells that are
    blocked. The goal can always be reached. `reset(options={"density": ..., "size": ...})`."""
    found: gym.Env[Any, Any] = _room()(**kwargs)
    return found


@cache
def _room() -> type[Any]:
    from minigrid.core.grid import Grid
    from minigrid.core.mission import MissionSpace
    from minigrid.core.world_object import Goal, Wall
    from minigrid.minigrid_env import MiniGridEnv

    class Obstacles(MiniGridEnv):
        task_ranges = RANGES

        def __init__(self, **kwargs: Any) -> None:
            self.numbers = check_numbers({})
            side = int(RANGES["size"][1])
            super().__init__(MissionSpace(lambda: "get to the green goal square"), grid_size=side, max_steps=100, **kwargs)

        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
            self.numbers = check_numbers(options or {})
            return super().reset(seed=seed, options=options)

        def _gen_grid(self, width: int, height: int) -> None:
            size = round(self.numbers["size"])
            self.max_steps = 4 * size**2
            self.mission = "get to the green goal square"
            free = [(x, y) for x in range(1, size - 1) for y in range(1, size - 1)]
            blocked = min(round(self.numbers["density"] * len(free)), len(free) - 2)
            for _ in range(DRAWS):
                order = [free[i] for i in self.np_random.permutation(len(free))]
                start, goal, walls = order[0], order[1], set(order[2 : 2 + blocked])
                if _connected(start, goal, set(free) - walls):
                    break
            else:
                walls = set()
            self.grid = Grid(width, height)
            self.grid.wall_rect(0, 0, size, size)
            for place in walls:
                self.grid.set(place[0], place[1], Wall())
            self.grid.set(goal[0], goal[1], Goal())
            self.agent_pos, self.agent_dir = start, int(self.np_random.integers(4))

    return Obstacles


def _connected(start: tuple[int, int], goal: tuple[int, int], free: set[tuple[int, int]]) -> bool:
    seen, edge = {start}, [start]
    while edge:
        x, y = edge.pop()
        near = {(x + 1, y), (x - 1, y), (x, y + 1), (x, y - 1)} & free - seen
        seen |= near
        edge += near
    return goal in seen


gym.register("Strata-Obstacles-v0", entry_point="envs.suites.obstacles:obstacles")
