"""Figures of goal-reaching, by hand."""

from __future__ import annotations

import pytest
import torch

from hierarchy.diagnostics import SegmentEnds, code_perplexity, heard, reach, segment_ends
from hierarchy.goal_rewards import GoalView

USUAL = torch.full((1, 4), 0.25)


def came(path: list[list[int]], goals: list[int], cont: list[list[float]] | None = None) -> SegmentEnds:
    own = view(path, goals)
    own.cont = own.cont if cont is None else torch.tensor(cont)
    return segment_ends(own)


def view(path: list[list[int]], goals: list[int]) -> GoalView:
    """States (N, K+1) of one group of four classes, under certain goals (N,)."""
    codes = torch.tensor(path).unsqueeze(-1)
    goal = torch.nn.functional.one_hot(torch.tensor(goals), 4).float().unsqueeze(1)
    return GoalView(codes, torch.ones(codes.shape, dtype=torch.bool), goal, USUAL, torch.ones(len(path), len(path[0]) - 1))


PATH = [[0, 1], [0, 2], [3, 3], [0, 0]]


def test_reach_tells_who_arrived_from_who_was_there_from_the_start():
    """The first two go to their goals; the third is sent where it is, and stays; the fourth stays though it is sent away."""
    found = reach(came(PATH, [1, 2, 3, 1]), torch.ones(4))
    assert found["reached"] == pytest.approx(3 / 4)
    assert found["start"] == pytest.approx((3 * -0.25 + 0.75) / 4, abs=1e-6)
    assert found["end"] == pytest.approx((3 * 0.75 - 0.25) / 4)


def test_a_goal_is_heard_if_where_it_led_is_more_like_it_than_like_another_drawn_beside_it():
    own, other = came(PATH, [1, 2, 3, 1]), came(PATH, [2, 1, 0, 2])
    assert heard(own, other, torch.ones(4))["heard"] == pytest.approx((1 + 1 + 1 + 0.5) / 4), "the last is neither's"
    assert heard(own, other, torch.tensor([1.0, 0.0, 0.0, 1.0]))["heard"] == pytest.approx((1 + 0.5) / 2), "of some alone"
    found = heard(own, came(PATH, [1, 1, 3, 2]), torch.ones(4))
    assert found["told"] == pytest.approx(3 / 4) and found["untold"] == pytest.approx(2 / 4), "the first and the third"
    assert heard(own, other, torch.zeros(4)) == {"heard": 0.5, "told": 0.0, "untold": 0.0}, "nothing to compare"


def test_a_deaf_worker_is_found_out_even_if_all_that_its_manager_asks_for_comes_about():
    """Segments go as they go; the manager draws what comes with 0.9. Every pair that it may draw, weighed by how likely it is."""
    ends, often = [1, 2, 3, 0], 0.9
    drawn = [(i, g, o) for i in range(4) for g in range(4) for o in range(4) if g != o]
    chance = torch.tensor([[often if x == ends[i] else (1 - often) / 3 for x in (g, o)] for i, g, o in drawn]).prod(1)
    path = [[(ends[i] + 1) % 4, ends[i]] for i, _, _ in drawn]
    own, other = came(path, [g for _, g, _ in drawn]), came(path, [o for _, _, o in drawn])
    assert heard(own, other, chance)["heard"] == pytest.approx(0.5)
    assert reach(came([[2, 1]], [1]), torch.ones(1))["reached"] == 1, "which looks well"


def test_a_segment_ends_where_its_episode_does():
    cont = [[1.0, 1.0, 1.0], [1.0, 0.2, 0.9], [0.0, 0.0, 1.0], [1.0, 1.0, 0.1]]
    assert came([[0, 1, 2, 2]] * 4, [1] * 4, cont).index.tolist() == [3, 2, 1, 3]
    own, other = (came([[0, 1, 2, 2]], [goal], [[0.1, 1.0, 1.0]]) for goal in (1, 2))
    assert reach(own, torch.ones(1)) == {"reached": 1.0, "start": -0.25, "end": 0.75}, "what is imagined after that is nothing"
    assert heard(own, other, torch.ones(1)) == {"heard": 1.0, "told": 1.0, "untold": 0.0}


def test_segments_that_lie_behind_the_end_of_an_episode_do_not_count():
    assert reach(came(PATH, [1, 2, 3, 1]), torch.tensor([0.0, 0.0, 0.0, 0.5]))["reached"] == 0


def test_a_goal_that_leaves_things_open_is_reached_by_its_likeliest_state():
    own = view([[0, 1], [0, 2]], [1, 1])
    own.goal = torch.tensor([[[0.0, 0.6, 0.4, 0.0]]]).expand(2, -1, -1)
    assert reach(segment_ends(own), torch.ones(2))["reached"] == 0.5


def test_perplexity_of_codes_is_one_where_they_never_change_and_all_where_each_comes_as_often():
    assert code_perplexity(torch.tensor([[2, 1], [2, 1]]), 4) == pytest.approx(1.0)
    assert code_perplexity(torch.arange(4).unsqueeze(-1).expand(-1, 2), 4) == pytest.approx(4.0)
    some = torch.tensor([True, True, False, False])
    assert code_perplexity(torch.arange(4).unsqueeze(-1).expand(-1, 2), 4, some) == pytest.approx(2.0)
