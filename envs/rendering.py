"""Draw symbolic grids as pictures, to put a dream beside what really happened. Pure numpy, no environment needed."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

# MiniGrid's symbols: a cell is (object, colour, state).
UNSEEN, EMPTY, WALL, FLOOR, DOOR, KEY, BALL, BOX, GOAL, LAVA, AGENT = range(11)
OPEN, CLOSED, LOCKED = range(3)
# red, green, blue, purple, yellow, grey
COLOURS = ((230, 60, 60), (60, 200, 80), (70, 110, 240), (160, 80, 210), (240, 215, 60), (140, 140, 140))
_STATES = 4  # of a door, or the directions of an agent

_DARK = (8, 8, 10)
_GROUND = (38, 38, 42)
_WALL = (112, 112, 116)
_LAVA = (240, 110, 30)
_LINE = (60, 60, 64)

Shade = Callable[[np.ndarray, np.ndarray], np.ndarray]  # x, y in 0..1, y downwards -> bool


def render_grid(codes: np.ndarray, tile: int = 12) -> np.ndarray:
    """A picture of a symbolic grid.

    MiniGrid-like grids (see `is_minigrid`) are drawn with their objects, first axis to the right as MiniGrid stores them;
    any other with one colour for each distinct cell value, first axis downwards.

    Args:
        codes: integers (rows, columns, channels).
        tile: pixels a cell.

    Returns:
        uint8 RGB (height, width, 3): (columns * tile, rows * tile, 3) for a MiniGrid-like grid,
        (rows * tile, columns * tile, 3) for others.
    """
    codes = np.asarray(codes)
    if codes.ndim != 3:
        raise ValueError(f"a grid has rows, columns and channels, got shape {codes.shape}")
    if is_minigrid(codes):
        codes, draw = codes.transpose(1, 0, 2), draw_object
    else:
        draw = draw_value
    rows, columns, channels = codes.shape
    values, where = np.unique(codes.reshape(-1, channels), axis=0, return_inverse=True)
    tiles = np.stack([draw(tuple(int(n) for n in value), tile) for value in values])  # (N, tile, tile, 3)
    picture = tiles[where.reshape(rows, columns)]  # (rows, columns, tile, tile, 3)
    return picture.transpose(0, 2, 1, 3, 4).reshape(rows * tile, columns * tile, 3)


def is_minigrid(codes: np.ndarray) -> bool:
    """Whether all cells could be MiniGrid's (object, colour, state)."""
    if codes.shape[-1] != 3 or codes.size == 0 or codes.min() < 0:
        return False
    return bool((codes.reshape(-1, 3).max(axis=0) < (AGENT + 1, len(COLOURS), _STATES)).all())


@lru_cache(maxsize=1024)
def draw_object(cell: tuple[int, int, int], size: int) -> np.ndarray:
    """One MiniGrid cell, uint8 (size, size, 3)."""
    kind, colour, state = cell
    tint = COLOURS[colour]
    if kind == UNSEEN:
        return _canvas(size, _DARK)
    if kind == WALL:
        return _canvas(size, _WALL)
    if kind == GOAL:
        return _canvas(size, tint)
    picture = _canvas(size, _LAVA if kind == LAVA else _GROUND)
    _fill(picture, _LINE, lambda x, y: (x < 1 / size) | (y < 1 / size))
    if kind == FLOOR:
        _fill(picture, _mix(tint, _GROUND, 0.4), _box(0.1, 0.1, 0.95, 0.95))
    elif kind == LAVA:
        _fill(picture, _DARK, lambda x, y: np.abs(y - 0.5 - 0.15 * np.sin(x * 4 * np.pi)) < 0.07)
    elif kind == DOOR:
        _draw_door(picture, tint, state)
    elif kind == KEY:
        _fill(picture, tint, lambda x, y: np.hypot(x - 0.5, y - 0.28) < 0.2)
        _fill(picture, _GROUND, lambda x, y: np.hypot(x - 0.5, y - 0.28) < 0.09)
        _fill(picture, tint, _box(0.44, 0.45, 0.58, 0.92))
        _fill(picture, tint, _box(0.58, 0.6, 0.74, 0.7))
        _fill(picture, tint, _box(0.58, 0.8, 0.74, 0.9))
    elif kind == BALL:
        _fill(picture, tint, lambda x, y: np.hypot(x - 0.5, y - 0.5) < 0.34)
    elif kind == BOX:
        _fill(picture, tint, _box(0.15, 0.15, 0.88, 0.88))
        _fill(picture, _GROUND, _box(0.27, 0.27, 0.76, 0.76))
        _fill(picture, tint, _box(0.27, 0.46, 0.76, 0.58))
    elif kind == AGENT:
        _fill(picture, tint, lambda x, y: _pointing_right(*_turned(x, y, state)))
    return picture


@lru_cache(maxsize=4096)
def draw_value(value: tuple[int, ...], size: int) -> np.ndarray:
    """One cell of an unknown kind, in a colour of its own; zeros are dark. uint8 (size, size, 3)."""
    if not any(value):
        return _canvas(size, _DARK)
    mixed = 0
    for number in value:
        mixed = (mixed * 1_000_003 + number + 1) % 2**32
    hue = mixed * 0.6180339887 % 1.0  # golden-ratio steps keep neighbouring values apart
    phase = 2 * np.pi * (hue + np.array([0, 1 / 3, 2 / 3]))
    red, green, blue = ((0.6 + 0.2 * (mixed % 3)) * (150 + 100 * np.cos(phase))).astype(int)
    return _canvas(size, (int(red), int(green), int(blue)))


def _draw_door(picture: np.ndarray, tint: tuple[int, int, int], state: int) -> None:
    if state == OPEN:  # swung aside: a thin slab at the edge
        _fill(picture, tint, _box(0.0, 0.06, 0.2, 1.0))
        _fill(picture, _GROUND, _box(0.07, 0.14, 0.13, 0.92))
        return
    _fill(picture, tint, _box(0.0, 0.0, 1.0, 1.0))
    if state == LOCKED:  # filled, with a keyhole
        _fill(picture, _mix(tint, _GROUND, 0.55), _box(0.14, 0.14, 0.86, 0.86))
        _fill(picture, tint, lambda x, y: np.hypot(x - 0.5, y - 0.42) < 0.14)
        _fill(picture, tint, _box(0.44, 0.42, 0.58, 0.74))
    else:  # a frame with a handle
        _fill(picture, _GROUND, _box(0.14, 0.14, 0.86, 0.86))
        _fill(picture, tint, lambda x, y: np.hypot(x - 0.66, y - 0.5) < 0.09)


def _pointing_right(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    inside: np.ndarray = (x > 0.15) & (np.abs(y - 0.5) < 0.38 * (0.9 - x) / 0.75)
    return inside


def _turned(x: np.ndarray, y: np.ndarray, quarters: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates in which a shape that points down, left or up (1, 2, 3 quarters) points right."""
    for _ in range(quarters):
        x, y = y, 1 - x
    return x, y


def _canvas(size: int, colour: tuple[int, int, int]) -> np.ndarray:
    return np.full((size, size, 3), colour, np.uint8)


def _fill(picture: np.ndarray, colour: tuple[int, int, int], shade: Shade) -> None:
    centres = (np.arange(len(picture)) + 0.5) / len(picture)
    x, y = np.meshgrid(centres, centres)
    picture[shade(x, y)] = colour


def _box(left: float, top: float, right: float, bottom: float) -> Shade:
    return lambda x, y: (x >= left) & (x < right) & (y >= top) & (y < bottom)


def _mix(a: tuple[int, int, int], b: tuple[int, int, int], share: float) -> tuple[int, int, int]:
    red, green, blue = (round(share * p + (1 - share) * q) for p, q in zip(a, b, strict=True))
    return red, green, blue
