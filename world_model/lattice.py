"""Where the cells of a view are: quarter turns, shifts, and places on a map that is a torus."""

from __future__ import annotations

import torch
from torch import Tensor

SIDE = 64  # places a side of a map. It is a torus: what lies this far apart shares a place
ROW = 16  # bits by which a row stands above its column where one number holds both
OVERLAP = 0.3  # share of a view that a motion leaves in sight; a square turned about the middle of an edge leaves a third
MOTIONS = 300  # told apart at most, those that leave most in sight


def quarter_turns(x: Tensor) -> Tensor:
    """Lattice vectors (..., 2) -> (4, ..., 2): turned by none to three quarters."""
    row, column = x.unbind(-1)
    return torch.stack([x, torch.stack([column, -row], -1), -x, torch.stack([-column, row], -1)])


def turned(x: Tensor, turns: Tensor) -> Tensor:
    """Lattice vectors (..., 2), or one (2,), turned by so many quarters (...,): (..., 2)."""
    row, column = x.expand(*turns.shape, 2).unbind(-1)
    odd, back = turns % 2 == 1, turns % 4 >= 2
    found = torch.stack([torch.where(odd, column, row), torch.where(odd, -row, column)], -1)
    return torch.where(back.unsqueeze(-1), -found, found)


def displacement(start: Tensor, end: Tensor) -> Tensor:
    """How poses (..., 3) lie to others, seen from there, (..., 3): quarter turns from 0 to 3, rows and columns on either side."""
    turns = (end[..., :1] - start[..., :1]) % 4
    way = (end[..., 1:] - start[..., 1:] + SIDE // 2) % SIDE - SIDE // 2
    return torch.cat([turns, turned(way, -start[..., 0])], -1)


def displaced(start: Tensor, way: Tensor) -> Tensor:
    """The poses (..., 3) that lie so to others: the inverse of `displacement`."""
    turns = (start[..., :1] + way[..., :1]) % 4
    return torch.cat([turns, (start[..., 1:] + turned(way[..., 1:], start[..., 0])) & (SIDE - 1)], -1)


def cells_of(rows: int, columns: int) -> Tensor:
    """(cells, 2), row and column."""
    return torch.cartesian_prod(torch.arange(rows), torch.arange(columns))


def place_numbers(x: Tensor) -> Tensor:
    """Lattice vectors (..., 2) of a torus -> (...,): row and column in one number each, which add up without a carry between."""
    row, column = (x & (SIDE - 1)).unbind(-1)
    return (row << ROW) + column


def motions(rows: int, columns: int) -> tuple[Tensor, Tensor, Tensor]:
    """The motions of a view that leave enough of it in sight; the first is none at all.

    Returns:
        turn (M,) and shift (M, 2): the next view's cell x is the present view's cell `x turned + shift`; and where (M, cells),
        the index of that cell, or `cells` where it was out of sight.
    """
    size, turned = torch.tensor([rows, columns]), quarter_turns(cells_of(rows, columns))  # (4, G, 2)
    low, high = turned.amin(1), turned.amax(1)  # (4, 2)
    span = torch.arange(-2 * max(rows, columns), 2 * max(rows, columns) + 1)
    shifts = torch.cartesian_prod(span, span)  # (N, 2)
    overlap = torch.minimum(high[:, None] + shifts, size - 1) - (low[:, None] + shifts).clamp(min=0) + 1  # (4, N, 2)
    share = (overlap.clamp(min=0).prod(-1) / (rows * columns)).flatten()
    order = share.argsort(descending=True, stable=True)[:MOTIONS]
    order = order[share[order] >= OVERLAP]
    turn, shift = order // len(shifts), shifts[order % len(shifts)]
    source = turned[turn] + shift[:, None]  # (M, G, 2)
    inside = ((source >= 0) & (source < size)).all(-1)
    return turn, shift, torch.where(inside, source[..., 0] * columns + source[..., 1], rows * columns)
