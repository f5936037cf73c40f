"""Poses on a map: how one lies to another."""

from __future__ import annotations

import torch

from world_model.lattice import SIDE, displaced, displacement, quarter_turns, turned


def test_turns_of_each_vector_are_those_of_all():
    x = torch.tensor([[2, 5], [-1, 3]])
    every = quarter_turns(x)  # (4, 2, 2)
    for turns in range(-4, 8):
        assert torch.equal(turned(x, torch.full((2,), turns)), every[turns % 4])
    assert torch.equal(turned(torch.tensor([2, 5]), torch.arange(4)), every[:, 0]), "one vector, turned in many ways"


def test_how_poses_lie_to_others_by_hand():
    start = torch.tensor([[0, 10, 10], [1, 10, 10], [3, 0, SIDE - 1], [2, 5, 5]])
    end = torch.tensor([[0, 13, 9], [1, 13, 9], [0, 1, 1], [2, 5, 5]])
    # A quarter turn is (row, column) -> (column, -row): seen after one, the way (3, -1) is turned back, to (1, 3).
    # Over the edge of the torus the way is (1, 2); three quarters back are one on: (2, -1).
    assert displacement(start, end).tolist() == [[0, 3, -1], [0, 1, 3], [1, 2, -1], [0, 0, 0]]


def test_to_go_the_way_to_another_pose_leads_there():
    generator = torch.Generator().manual_seed(0)
    start, end = (
        torch.cat([torch.randint(4, (500, 1), generator=generator), torch.randint(SIDE, (500, 2), generator=generator)], 1)
        for _ in range(2)
    )
    assert torch.equal(displaced(start, displacement(start, end)), end)
