"""Where a goal is to be reached, as a picture of the view shows it, beside what real moves do to a view of MiniGrid."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch

from agent.dream.places import CYAN, direction, placed
from envs.rendering import is_minigrid, render_grid
from world_model.lattice import cells_of, turned

PIVOT = [3, 6]  # of MiniGrid's view: the agent, in the middle of the lower edge
LEFT, RIGHT, FORWARD = range(3)
TILE = 16


def views(actions: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """What is seen of a room with eight objects before some moves, and after them."""
    env = gymnasium.make("minigrid:BabyAI-GoToLocal-v0")
    before = env.reset(seed=8)[0]["image"]
    for action in actions:
        after = env.step(action)[0]["image"]
    env.close()
    return before, after


def way_between(before: np.ndarray, after: np.ndarray) -> list[int]:
    """The way by which most of the cells that both views show are the same, found by trying all."""
    cells, pivot = cells_of(7, 7), torch.tensor(PIVOT)
    share: dict[tuple[int, int, int], float] = {}
    for turns in range(4):
        for row in range(-3, 4):
            for column in range(-3, 4):
                at = pivot + turned(cells - pivot, torch.full((49,), turns)) + torch.tensor([row, column])
                inside = ((at >= 0) & (at < 7)).all(-1)
                old, new = before[tuple(at[inside].T.numpy())], after[tuple(cells[inside].T.numpy())]
                both = (old[:, 0] > 0) & (new[:, 0] > 0)
                same = (old == new).all(-1)[both]
                share[turns, row, column] = float(same.sum()) - 2 * float((~same).sum())
    best = max(share.items(), key=lambda item: item[1])[0]
    return list(best)


@pytest.mark.parametrize(
    ("actions", "words"),
    [
        ([LEFT], "here, turn left"),
        ([RIGHT], "here, turn right"),
        ([RIGHT, FORWARD, LEFT], "1 right"),
        ([LEFT, FORWARD, FORWARD, RIGHT], "2 left"),
        ([RIGHT, FORWARD], "1 right, turn right"),
        ([FORWARD, FORWARD], "2 up"),
    ],
)
def test_words_tell_what_real_moves_do(actions: list[int], words: str):
    before, after = views(actions)
    assert direction(before, way_between(before, after)) == words


def test_the_words_of_another_grid_are_of_its_picture_where_the_first_axis_goes_down():
    grid = np.arange(12).reshape(3, 4, 1)
    assert not is_minigrid(grid)
    assert direction(grid, [0, 1, -2]) == "2 left, 1 down" and direction(grid, [0, 0, 0]) == "here"
    assert direction(grid, [1, -1, 0]) == "1 up, turn right", "its views look to the left: up is right of that"


@pytest.mark.parametrize(("turns", "tip"), [(0, "up"), (1, "left"), (2, "down"), (3, "right")])
def test_an_arrow_stands_in_the_cell_and_points_where_to_look(turns: int, tip: str):
    view = views([LEFT])[0]
    plain = render_grid(view, TILE)
    drawn = placed(view, plain, PIVOT, [turns, 2, -1])  # two to the right, one ahead
    there = (drawn == CYAN).all(-1)
    assert (drawn != plain).any(-1)[~there].sum() == 0 and not (plain == CYAN).all(-1).any(), "nothing else changes"
    rows, columns = np.nonzero(there)
    assert set(rows // TILE) == {5} and set(columns // TILE) == {5}
    cell = there[5 * TILE : 6 * TILE, 5 * TILE : 6 * TILE]
    ends = {"up": cell[: TILE // 2], "down": cell[TILE // 2 :], "left": cell[:, : TILE // 2], "right": cell[:, TILE // 2 :]}
    assert min(ends, key=lambda side: ends[side].sum()) == tip, "an arrow is thin at its tip"


def test_what_is_out_of_view_is_not_drawn():
    view = views([LEFT])[0]
    plain = render_grid(view, TILE)
    for way in ([0, 4, 0], [0, -4, 0], [0, 0, 1], [0, 0, -7]):
        assert placed(view, plain, PIVOT, way) is plain
