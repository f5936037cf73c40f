"""MiniGrid families as task spaces (Chevalier-Boisvert et al. 2023, arXiv:2306.13831)."""

from __future__ import annotations

from typing import Any

import numpy as np

from envs.tasks import Task


def doorkey() -> tuple[Task, ...]:
    """Take the key, open the door, reach the goal; four sizes of room."""
    return tuple(_task(f"DoorKey-{n}x{n}", f"MiniGrid-DoorKey-{n}x{n}-v0") for n in (5, 6, 8, 16))


def multiroom() -> tuple[Task, ...]:
    """Rooms in a row, joined by closed doors; two, four and six of them.

    Built from one registered id with the number of rooms given: `MiniGrid-MultiRoom-N4-S5-v0` has six rooms, for all its name.
    """
    rooms = {2: 4, 4: 5, 6: 10}  # number of rooms -> largest room
    return tuple(
        _task(f"MultiRoom-N{n}", "MiniGrid-MultiRoom-N6-v0", minNumRooms=n, maxNumRooms=n, maxRoomSize=size)
        for n, size in rooms.items()
    )


def keycorridor() -> tuple[Task, ...]:
    """Find a key in one room to fetch a ball from another; room size S and number of rows R grow."""
    sizes = ("S3R1", "S3R2", "S3R3", "S4R3", "S5R3", "S6R3")
    return tuple(_task(f"KeyCorridor-{size}", f"MiniGrid-KeyCorridor{size}-v0") for size in sizes)


def layout_bytes(env: Any) -> bytes:
    """What makes two episodes the same: the grid, where the agent starts and faces, and its mission."""
    start = np.asarray((*env.agent_pos, env.agent_dir), np.int64)
    grid: np.ndarray = env.grid.encode()
    return grid.tobytes() + start.tobytes() + str(env.mission).encode("utf-8")


def _task(name: str, env_id: str, **kwargs: Any) -> Task:
    return Task(name, {"env": env_id, "kwargs": kwargs})
