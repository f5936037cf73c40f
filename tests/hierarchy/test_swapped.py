"""Goals taken away: another episode's, or none."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hierarchy import make_hierarchy
from hierarchy.base import PolicyState
from hierarchy.config import WorkerConfig
from hierarchy.goal import NO_GOAL
from hierarchy.swapped import SwappedGoals, acts_without_goals, has_goals
from tests.hierarchy.test_director import config, director
from tests.hierarchy.toy import ACTIONS, LATENTS, WIDTH, states


def steps(hierarchy: SwappedGoals, firsts: list[list[bool]]) -> list[PolicyState]:
    """What was acted on at each step."""
    batch = len(firsts[0])
    state = hierarchy.initial_state(batch)
    found = []
    for first in firsts:
        z, h = states(*([0] * batch))
        action, _, state = hierarchy.act(z, h, state, torch.tensor(first))
        assert action.shape == (batch,)
        found.append(state)
    return found


def numbered(hierarchy: SwappedGoals) -> list[Tensor]:
    """Every goal that is chosen is told apart: the n-th choice is made of the digits of n. Answers them as they come."""
    given: list[Tensor] = []

    def choose(z: Tensor, h: Tensor, greedy: bool = False) -> tuple[Tensor, Tensor]:
        numbers = torch.arange(len(z)) + len(z) * len(given)
        given.append(torch.stack([numbers // 16 % 4, numbers // 4 % 4, numbers % 4], -1))
        return given[-1], torch.zeros(len(z))

    hierarchy.inner.manager.policy.act = choose  # type: ignore
    return given


def test_a_shuffled_goal_is_one_that_another_episode_has_chosen():
    hierarchy = SwappedGoals(director(), "shuffled")
    given = numbered(hierarchy)
    found = steps(hierarchy, [[True] * 3, [False] * 3, [False] * 3])
    for step, drawn_from in ((0, given[:1]), (2, [given[0], given[2]])):
        for row in range(3):
            others = torch.cat([goals[torch.arange(3) != row] for goals in drawn_from]).tolist()
            assert found[step]["goal"][row].tolist() in others
    assert torch.equal(found[1]["goal"], found[0]["goal"]), "it lasts as long as a goal does"
    assert hierarchy.unchanged == 0


def test_alone_and_at_first_there_is_nothing_to_shuffle_with():
    hierarchy = SwappedGoals(director(), "shuffled")
    given = numbered(hierarchy)
    found = steps(hierarchy, [[True], [False], [False], [True]])
    assert hierarchy.unchanged == 2, "both goals of the first episode"
    assert found[2]["goal"][0].tolist() == given[2][0].tolist()
    assert found[3]["goal"][0].tolist() in [given[0][0].tolist(), given[2][0].tolist()]


def test_every_evaluation_begins_without_the_goals_of_the_one_before():
    hierarchy = SwappedGoals(director(), "shuffled")
    numbered(hierarchy)
    steps(hierarchy, [[True] * 2])
    steps(hierarchy, [[True]])
    assert hierarchy.unchanged == 1


def test_zeroed_goals_are_no_goals():
    found = steps(SwappedGoals(director(), "zeroed"), [[True] * 2, [False] * 2])
    assert all((state["goal"] == NO_GOAL).all() for state in found)


def test_without_goals_the_explorer_acts_where_there_is_one():
    assert acts_without_goals(director()) == "worker"
    hierarchy = director(worker=WorkerConfig(free=0.5))
    assert acts_without_goals(hierarchy) == "explorer"
    taken = torch.tensor([3, 1])
    hierarchy.explorer.policy.act = lambda z, h, greedy: (taken, torch.zeros(2))  # type: ignore
    under = SwappedGoals(hierarchy, "zeroed")
    action, _, _ = under.act(*states(0, 1), under.initial_state(2), torch.ones(2).bool())
    assert torch.equal(action, taken)


def test_the_inner_hierarchy_decides_when_and_the_swap_changes_no_draw_of_its_own():
    torch.manual_seed(1)
    own = director()
    torch.manual_seed(1)
    swapped = SwappedGoals(director(), "shuffled")
    numbered(swapped)
    state = swapped.initial_state(2)
    assert torch.equal(swapped.decides(state, torch.ones(2).bool()), own.decides(own.initial_state(2), torch.ones(2).bool()))
    before = torch.get_rng_state()
    swapped.plan(*states(0, 1), state, torch.ones(2).bool())
    assert torch.equal(torch.get_rng_state(), before)


def test_only_goals_can_be_swapped_and_only_in_the_known_ways():
    assert has_goals(director()) and not has_goals(make_hierarchy(config(name="flat"), LATENTS, WIDTH, ACTIONS))
    with pytest.raises(ValueError, match="goals can be shuffled or zeroed, not sold"):
        SwappedGoals(director(), "sold")
