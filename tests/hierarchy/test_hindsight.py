"""What came about, told as if it had been asked for."""

from __future__ import annotations

import math
from dataclasses import fields

import pytest
import torch
from torch import Tensor

from hierarchy.hindsight import MOST, Experience, arrivals, earlier, experience, merit
from hierarchy.trajectory import LatentTrajectory
from tests.hierarchy.toy import trajectory


def led(path: LatentTrajectory, steps: int, value: Tensor | None = None, last: int = 0) -> Experience:
    """What is known, at a discount of 0.5."""
    value = torch.zeros(path.weight.shape) if value is None else value
    found = experience(path, value, torch.tensor(steps), 0.5, last)
    return Experience(*(getattr(found, field.name)[found.weight > 0] for field in fields(found)))


def test_a_state_leads_to_the_one_so_many_steps_later_or_to_the_end_of_its_episode():
    ends = torch.tensor([[False, False, False, True, False, False, False]])  # an episode of states 0..3, the next one from 4 on
    index, known = arrivals(ends, torch.full((1, 6), 2))
    assert index[known].tolist() == [2, 3, 3, 6]
    assert known.tolist() == [[True, True, True, False, True, False]], "no step leads on from 3, and 5 is cut off"
    index, known = arrivals(ends, torch.tensor([[1, 2, 3, 1, 9, 1]]))
    assert index[known].tolist() == [1, 3, 3, 6] and known.tolist() == [[True, True, True, False, False, True]]


def test_where_nothing_ends_the_last_states_are_unknown_and_an_end_at_the_very_last_is_known():
    index, known = arrivals(torch.zeros(2, 5, dtype=torch.bool), torch.full((2, 4), 3))
    assert known.tolist() == [[True, True, False, False]] * 2 and index[:, :2].tolist() == [[3, 4]] * 2
    index, known = arrivals(torch.tensor([[False, False, True]]), torch.full((1, 2), 8))
    assert known.all() and index.tolist() == [[2, 2]]


def test_a_gain_is_what_the_way_brought_and_the_value_there_less_that_here():
    """Rewards 1, 2, 4, discount 0.5, values 8, 4, 2, 16; two steps on: 1 + 2/2 + 2/4 - 8 and 2 + 4/2 + 16/4 - 4."""
    path = trajectory([0, 1, 0, 1], [1, 0, 1], reward=[1.0, 2.0, 4.0])
    found = led(path, 2, torch.tensor([[8.0, 4.0, 2.0, 16.0]]))
    assert found.gain.tolist() == [-5.5, 4.0] and found.action.tolist() == [1, 0]
    assert found.z.flatten().tolist() == [0, 1] and found.later_z.flatten().tolist() == [0, 1]


def test_beyond_an_end_there_is_nothing_and_a_cut_off_episode_may_go_on():
    ends = torch.tensor([[False, False, True]])
    value = torch.tensor([[0.0, 0.0, 4.0]])
    terminated = trajectory([0, 1, 1], [1, 1], reward=[0.0, 1.0], cont=torch.tensor([[1.0, 0.0]]), boundary=ends)
    assert led(terminated, 8, value).gain.tolist() == [0.5, 1.0]
    truncated = trajectory([0, 1, 1], [1, 1], reward=[0.0, 1.0], boundary=ends)
    assert led(truncated, 8, value).gain.tolist() == [0.5 + 1.0, 1.0 + 2.0]


def test_an_imagined_episode_ends_where_it_hardly_goes_on_and_late_states_are_left_out():
    path = trajectory([0, 1, 0, 1, 1], [1, 1, 1, 0], cont=torch.tensor([[0.9, 0.1, 0.9, 0.1]]), source="imagined")
    path.weight = torch.tensor([[1.0, 0.9, 0.09, 0.08, 0.01]])
    found = led(path, 3, last=3)
    assert found.z.flatten().tolist() == [0, 1] and found.later_z.flatten().tolist() == [0, 0], "both lead to state 2"
    assert found.weight.tolist() == pytest.approx([1.0, 0.9]), "from 2 on, only what ends in time would be known"


def test_what_nothing_is_known_of_is_no_experience_and_parts_are_joined():
    path = trajectory([0, 1, 0], [1, 1])
    assert len(led(path, 8).weight) == 0
    both = Experience.join(led(path, 1), led(path, 1))
    assert both.z.shape == (4, 1) and both.later_z.flatten().tolist() == [1, 0, 1, 0]


def test_the_better_it_turned_out_the_more_it_counts_up_to_a_bound():
    """Deviations: 1 of the first, 0.1 at least of the second."""
    three, one = torch.tensor([1.0, 0.0, -1.0]) * math.sqrt(1.5), torch.ones(3)
    assert merit(three, one, 0.5, 0.1).tolist() == pytest.approx([math.exp(2 * x) for x in three.tolist()])
    assert merit(three, 0.5 * one, 0.5, 0.1).tolist() == pytest.approx([0.5 * math.exp(2 * x) for x in three.tolist()])
    assert merit(torch.tensor([0.05, 0.05, 9.0]), torch.tensor([1.0, 1.0, 0.0]), 0.5, 0.1).tolist() == pytest.approx(
        [math.e, math.e, 0]
    )
    assert merit(torch.tensor([9.0] + [0.0] * 80), torch.ones(81), 0.5, 0.1)[0] == MOST


def test_a_part_of_experience_is_drawn_at_random_and_holds_together():
    path = trajectory([0, 1, 1, 1, 1], [1, 0, 1, 0], reward=[0.0, 1.0, 2.0, 3.0])
    whole = experience(path, torch.zeros(path.weight.shape), torch.tensor(1), 0.5)
    known = set(zip(whole.gain.tolist(), whole.action.tolist(), strict=True))
    seen = set()
    for _ in range(30):
        part = whole.draw(0.5)
        assert len(part.gain) == len(part.z) == 2 and len(set(part.gain.tolist())) == 2, "none of them twice"
        seen |= set(zip(part.gain.tolist(), part.action.tolist(), strict=True))
    assert seen == known and len(known) == 4


def test_what_was_some_steps_before_is_of_the_same_episode():
    x = torch.arange(7).view(1, 7, 1)
    ends = torch.tensor([[False, False, True, False, False, False, False]])  # episodes of states 0..2 and 3..6
    for steps, expected in ((0, [0, 1, 2, 3, 4, 5, 6]), (1, [0, 0, 1, 3, 3, 4, 5]), (2, [0, 0, 0, 3, 3, 3, 4])):
        assert earlier(x, ends, torch.full((1, 7), steps)).flatten().tolist() == expected
    assert earlier(x, ends, torch.tensor([[9, 0, 9, 0, 9, 0, 1]])).flatten().tolist() == [0, 1, 0, 3, 3, 5, 5]


def test_what_was_arrived_at_would_have_been_asked_for_a_whole_period_before():
    path = trajectory([0] * 7, [0] * 6)
    path.h[0, :, 0] = torch.arange(7.0)
    found = experience(path, torch.zeros(1, 7), torch.tensor([[1, 2, 3, 3, 2, 1]]), 0.5, period=3)
    assert found.steps.tolist() == [1, 2, 3, 3, 2, 1] and found.h[:, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert found.chosen_h[:, 0].tolist() == [0, 0, 2, 3, 3, 3], "two steps before, one, none; no earlier than there are states"
    now = experience(path, torch.zeros(1, 7), torch.tensor(3), 0.5)
    assert torch.equal(now.chosen_h, now.h)
