"""Goal rewards: near zero for an unrelated goal, rising as the goal nears, never a price on the end of an episode."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from hierarchy.goal_rewards import GOAL_REWARDS, GoalView, best, cosine, forgiving, max_cosine, progress, similarity

G, C = 40, 8
# Walls: 36 of 40 groups are nearly always 0, as most of a grid is. The other 4 may be anything.
USUAL = torch.full((G, C), 0.02 / (C - 1))
USUAL[:36, 0] = 0.98
USUAL[36:] = 1 / C
USUAL = USUAL / USUAL.sum(-1, keepdim=True)


def states(n: int, seed: int = 0) -> Tensor:
    """(n, G) drawn from what is usual."""
    generator = torch.Generator().manual_seed(seed)
    return torch.multinomial(USUAL, n, replacement=True, generator=generator).T.contiguous()


def view(codes: Tensor, goal: Tensor, cont: Tensor | None = None) -> GoalView:
    """codes (N, K+1, G) of states; goal (N, G), certain."""
    probability = torch.nn.functional.one_hot(goal, C).float()
    cont = torch.ones(codes.shape[0], codes.shape[1] - 1) if cont is None else cont
    return GoalView(codes, torch.ones(codes.shape, dtype=torch.bool), probability, USUAL, cont)


def approach(n: int = 64, steps: int = 8) -> tuple[Tensor, Tensor]:
    """States (n, steps + 1, G) that become the goal (n, G), the groups that differ one after the other."""
    start, goal = states(n, 1), states(n, 2)
    codes = [start]
    for step in range(1, steps + 1):
        mixed = start.clone()
        upto = G * step // steps
        mixed[:, G - upto :] = goal[:, G - upto :]
        codes.append(mixed)
    return torch.stack(codes, 1), goal


def test_directors_reward_is_high_for_a_goal_that_has_nothing_to_do_with_the_state():
    unrelated = view(states(512, 1).unsqueeze(1).expand(-1, 2, -1), states(512, 2))
    assert max_cosine(unrelated).mean().item() > 0.85


def test_similarity_is_greatest_at_the_goal_and_zero_on_average_elsewhere():
    goal = states(4096, 2)
    own = similarity(view(goal.unsqueeze(1), goal))
    assert torch.equal(own, best(view(goal.unsqueeze(1), goal))) and (own <= 1).all() and (own > 0).all()
    elsewhere = similarity(view(states(4096, 1).unsqueeze(1), goal))
    assert abs(elsewhere.mean().item()) < 0.02


def test_what_is_rare_in_a_goal_counts_for_more_than_what_is_everywhere():
    goal = states(1, 2).expand(2, -1)
    codes = goal.clone()
    codes[0, 0] = 1  # a wall is missing
    codes[1, 39] = (goal[1, 39] + 1) % C  # the key is not there
    wall, key = similarity(view(codes.unsqueeze(1), goal))[:, 0].tolist()
    top = best(view(goal.unsqueeze(1), goal))[0, 0].item()
    assert top - wall < 0.1 * (top - key)


def test_a_goal_of_what_is_usual_anyway_neither_pays_nor_punishes():
    usual = torch.tensor([[0.98, 0.02]]).expand(4, -1)
    goal = torch.tensor([[[1.0, 0.0]] * 4])
    codes = torch.tensor([[[0, 0, 0, 0], [1, 1, 0, 0]]])
    trivial = GoalView(codes, torch.ones(1, 2, 4, dtype=torch.bool), goal, usual, torch.ones(1, 1))
    alike, apart = similarity(trivial)[0].tolist()
    assert alike == pytest.approx(0.02) and apart == pytest.approx(0.02 - 0.5)
    assert (similarity(trivial).abs() <= 1).all(), "Cohen's kappa is -24 of the second"


@pytest.mark.parametrize("name", ["progress", "likelihood", "cosine"])
def test_a_walk_that_has_nothing_to_do_with_the_goal_earns_next_to_nothing(name: str):
    N, K = 512, 8
    walk = states(N * (K + 1), 3).view(N, K + 1, G)
    earned = GOAL_REWARDS[name](view(walk, states(N, 2))).mean()
    assert abs(earned.item()) < 0.02


@pytest.mark.parametrize("name", ["progress", "likelihood"])
def test_coming_nearer_pays_at_every_step_and_going_back_costs_as_much(name: str):
    codes, goal = approach()
    there = GOAL_REWARDS[name](view(codes, goal))
    back = GOAL_REWARDS[name](view(codes.flip(1), goal))
    assert (there.mean(0) > 0).all(), "on average, at every step"
    assert torch.allclose(there.sum(1), -back.sum(1), atol=1e-4)
    if name == "progress":
        assert 0.7 < there.sum(1).mean().item() < 1.1, "all the way is worth about one"


@pytest.mark.parametrize("name", ["cosine", "max_cosine"])
def test_rewards_of_likeness_rise_on_the_way(name: str):
    codes, goal = approach()
    reward = GOAL_REWARDS[name](view(codes, goal)).mean(0)
    assert (reward[1:] > reward[:-1]).all() and reward[-1].item() == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("name", ["progress", "likelihood"])
def test_ending_an_episode_far_from_the_goal_costs_nothing(name: str):
    codes, goal = approach(steps=4)
    going = view(codes.flip(1), goal)
    ended = replace(going, cont=torch.zeros_like(going.cont))
    assert (GOAL_REWARDS[name](ended) >= 0).all() and (GOAL_REWARDS[name](going).sum(1) < 0).all()
    nearer = view(codes, goal, torch.zeros(64, 4))
    assert GOAL_REWARDS[name](nearer).sum(1).mean() > 0, "and ending at the goal pays"


def test_staying_is_worth_nothing_to_progress_and_something_to_likeness():
    goal = states(8, 2)
    near = goal.clone()
    near[:, 39] = (near[:, 39] + 1) % C
    stay = view(near.unsqueeze(1).expand(-1, 4, -1), goal)
    assert (progress(stay) == 0).all() and (cosine(stay) > 0.5).all()


def test_what_is_absent_neither_counts_for_nor_against():
    codes, goal = approach(steps=4)
    whole = view(codes, goal)
    there = whole.there.clone()
    there[..., 20:] = False
    other = codes.clone()
    other[..., 20:] = 0
    for reward in GOAL_REWARDS.values():
        assert torch.equal(reward(replace(whole, there=there)), reward(replace(whole, codes=other, there=there)))


def test_every_goal_reward_is_finite_where_nothing_is_there_at_all():
    codes, goal = approach(4, 2)
    nothing = replace(view(codes, goal), there=torch.zeros(codes.shape, dtype=torch.bool))
    for reward in GOAL_REWARDS.values():
        assert torch.isfinite(reward(nothing)).all() and reward(nothing).shape == (4, 2)


def test_the_end_of_an_episode_is_worth_the_better_of_its_last_step_and_of_what_was_still_to_be_had():
    reward, cont = torch.tensor([[0.2, 0.2, -0.1, 0.2]]), torch.tensor([[1.0, 0.0, 0.0, 0.5]])
    left = torch.tensor([[0.9, 0.5, 0.5, 0.6]])
    assert forgiving(reward, left, cont)[0].tolist() == pytest.approx([0.2, 0.5, 0.5, 0.4])
    assert forgiving(reward, torch.full((1, 4), -1.0), cont).tolist() == reward.tolist()


def test_what_is_to_be_had_at_the_end_of_episodes_does_not_grow_by_being_had():
    """A state that every step ends, and that half of the steps leave a little nearer to the goal."""
    reward, cont, value = torch.tensor([[0.1], [0.0]]), torch.zeros(2, 1), torch.zeros(())
    for _ in range(1000):
        value = forgiving(reward, 0.985 * value.expand(2, 1), cont).mean()
    assert value <= 0.1
