"""Where a goal is to be reached: drawn into a grid's picture, and in words. Arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from agent.dream.panels import TILE, Array
from envs.rendering import is_minigrid
from world_model.lattice import turned

CYAN = (60, 225, 235)
AHEAD = (0, -1)  # row and column that a view looks along, as a map has it
UP_LEFT_DOWN_RIGHT = ((-1, 0), (0, -1), (1, 0), (0, 1))  # quarter turns to the left, in a picture


def placed(observation: Array, picture: Array, pivot: list[int], way: list[int]) -> Array:
    """A copy of a grid's picture with an arrow where a goal's place is, if that is in view, pointing where to look.

    Args:
        pivot: row and column of the cell that turns in its place, as the agent's own does.
        way: quarter turns, rows and columns from there, as `GoalSpace.ways` has them.
    """
    turns, at = way[0], [pivot[0] + way[1], pivot[1] + way[2]]
    rows, columns = observation.shape[:2]
    if not (0 <= at[0] < rows and 0 <= at[1] < columns):
        return picture
    row, column = _as_drawn(observation, at)
    picture = picture.copy()
    box = picture[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE]
    y, x = np.indices((TILE, TILE)) + 0.5
    up = (y > 0.2 * TILE) & (y < 0.8 * TILE) & (abs(x - TILE / 2) < (y - 0.2 * TILE) * 0.6)
    box[np.rot90(up, _facing(observation, turns))] = CYAN
    return picture


def direction(observation: Array, way: list[int]) -> str:
    """The same way in words, as it lies in the picture: `1 left, 2 up, turn left`."""
    down, right = _as_drawn(observation, way[1:])
    steps = [(right, "right" if right > 0 else "left"), (down, "down" if down > 0 else "up")]
    words = [f"{abs(count)} {where}" for count, where in steps if count] or ["here"]
    turn = ("", "turn left", "turn round", "turn right")[(_facing(observation, way[0]) - _facing(observation, 0)) % 4]
    return ", ".join([*words, turn] if turn else words)


def _facing(observation: Array, turns: int) -> int:
    """Where a view looks in the picture after so many quarter turns on the map: its number in `UP_LEFT_DOWN_RIGHT`."""
    ahead = turned(torch.tensor(AHEAD), torch.tensor(turns)).tolist()
    return UP_LEFT_DOWN_RIGHT.index(_as_drawn(observation, ahead))


def _as_drawn(observation: Array, x: Sequence[int]) -> tuple[int, int]:
    """A row and a column of a grid, or of a way on it, as (down, right) in its picture (`envs.rendering.render_grid`)."""
    return (x[1], x[0]) if is_minigrid(observation) else (x[0], x[1])
