"""Pictures of symbolic grids."""

from __future__ import annotations

import numpy as np
import pytest

from envs.rendering import AGENT, BALL, BOX, DOOR, EMPTY, GOAL, KEY, LAVA, UNSEEN, WALL, is_minigrid, render_grid


def test_a_minigrid_view_is_drawn_with_its_first_axis_to_the_right() -> None:
    codes = np.full((3, 2, 3), (EMPTY, 0, 0), np.uint8)
    codes[2, 0] = (WALL, 5, 0)  # x = 2, y = 0
    picture = render_grid(codes, tile=8)
    assert picture.shape == (16, 24, 3) and picture.dtype == np.uint8
    wall = picture[:8, 16:]
    assert (wall == wall[0, 0]).all()
    assert (picture[8:, 16:] != wall).any(axis=-1).all()


@pytest.mark.parametrize("tile", [8, 12, 16])
def test_every_object_colour_and_door_state_looks_different(tile: int) -> None:
    cells = [(UNSEEN, 0, 0), (EMPTY, 0, 0), (WALL, 5, 0), (GOAL, 1, 0), (LAVA, 0, 0)]
    cells += [(DOOR, colour, state) for colour in range(6) for state in range(3)]
    cells += [(kind, colour, 0) for kind in (KEY, BALL, BOX) for colour in range(6)]
    cells += [(AGENT, 0, direction) for direction in range(4)]
    picture = render_grid(np.array(cells).reshape(len(cells), 1, 3), tile)
    tiles = {picture[:, i * tile : (i + 1) * tile].tobytes() for i in range(len(cells))}
    assert len(tiles) == len(cells)


def test_a_goal_is_green_and_the_unseen_is_dark() -> None:
    picture = render_grid(np.array([[[GOAL, 1, 0], [UNSEEN, 0, 0]]]), tile=8)
    red, green, blue = picture[:8].reshape(-1, 3).mean(axis=0)
    assert green > 1.5 * max(red, blue)
    assert picture[8:].max() < 20


def test_an_agent_points_where_it_faces() -> None:
    right, down, left, up = (render_grid(np.array([[[AGENT, 0, d]]]), 16)[1:, 1:, 0] > 100 for d in range(4))
    weight = np.arange(15) - 7
    assert (right.sum(0) @ weight < 0) and (left.sum(0) @ weight > 0)  # the mass of a triangle lies behind its tip
    assert (down.sum(1) @ weight < 0) and (up.sum(1) @ weight > 0)


def test_other_grids_get_a_colour_for_each_distinct_cell_value() -> None:
    codes = np.arange(30).reshape(5, 6, 1)
    picture = render_grid(codes, tile=8)
    assert picture.shape == (40, 48, 3)
    colours = picture[::8, ::8].reshape(30, 3)
    assert len(np.unique(colours, axis=0)) == 30
    again = render_grid(codes[::-1], tile=8)
    assert np.array_equal(again[::8, ::8].reshape(5, 6, 3)[::-1].reshape(30, 3), colours)


def test_symbols_outside_minigrids_vocabulary_are_told_apart_from_it() -> None:
    assert is_minigrid(np.full((2, 2, 3), (DOOR, 4, 2)))
    assert not is_minigrid(np.full((2, 2, 3), (DOOR, 9, 2)))
    assert not is_minigrid(np.zeros((2, 2, 4), int))


def test_a_grid_without_channels_is_refused() -> None:
    with pytest.raises(ValueError, match="rows, columns and channels"):
        render_grid(np.zeros((3, 3), int))
