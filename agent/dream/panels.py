"""Observations as pictures, with what is wrong outlined in red. Arrays in, arrays out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.rendering import is_minigrid, render_grid
from envs.spaces.images import to_colours
from envs.spaces.specs import ModalitySpec

PICTURED = ("grid", "image")
TILE = 16  # pixels of a grid's cell
SIDE = 112  # pixels of an image's longer side, at least
RED = (235, 40, 60)

Array = NDArray[Any]


def panel(leaf: ModalitySpec, observation: Array, wrong: Array | None, patch: int) -> Array:
    """A grid or an image as RGB (height, width, 3) uint8, its wrong cells or patches (rows, columns) outlined."""
    if leaf.kind == "grid":
        picture, cell = render_grid(observation, TILE), TILE
        if wrong is not None and is_minigrid(observation):
            wrong = wrong.T
    else:
        colours = to_colours(observation)
        times = max(1, -(-SIDE // max(colours.shape[:2])))
        picture, cell = colours.repeat(times, 0).repeat(times, 1), patch * times
    return picture if wrong is None else outlined(picture, wrong, cell)


def outlined(picture: Array, wrong: Array, cell: int) -> Array:
    """A copy of a picture with the cells of `wrong` (rows, columns), `cell` pixels a side, framed in red."""
    picture = picture.copy()
    width = max(1, cell // 12)
    for row, column in np.argwhere(wrong):
        box = picture[row * cell : (row + 1) * cell, column * cell : (column + 1) * cell]
        box[:width], box[-width:], box[:, :width], box[:, -width:] = RED, RED, RED, RED
    return picture


def amount(leaf: ModalitySpec, wrong: Array) -> str:
    """How much of one imagined picture is wrong, in words."""
    count, part = int(wrong.sum()), "cell" if leaf.kind == "grid" else "patch"
    if not count:
        return "all right"
    return f"{count} {part}{'' if count == 1 else 's' if part == 'cell' else 'es'} wrong"
