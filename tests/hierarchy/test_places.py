"""Goals that hold where to be on the map of a grid."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from hierarchy.config import GoalConfig
from hierarchy.goal import NO_GOAL, PLACE, Goal
from hierarchy.goal_rewards import best, progress, similarity
from hierarchy.goals import GoalSpace
from world_model.latents import LatentBlock, LatentSpec
from world_model.lattice import SIDE, turned

LATENTS = LatentSpec(
    (LatentBlock("view", "grid", (5,) * 4, layout=(2, 2), mapped=True), LatentBlock("clock", "categorical", (3,)))
)
V, REACH = 6, 3


def goal_space(place: float = 1.0) -> GoalSpace:
    torch.manual_seed(0)
    config = GoalConfig(groups=3, classes=4, hidden=16, symbol_width=4, cell_width=4, place=place)
    return GoalSpace(LATENTS, V, config, REACH)


def at(*poses: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """States that look alike, in these places: z (n, 5), h (n, V + 3)."""
    return torch.zeros(len(poses), 5).long(), torch.cat([torch.randn(len(poses), V), torch.tensor(poses).float()], 1)


def goal_at(goals: GoalSpace, anchor: Tensor, *way: int) -> Goal:
    """A goal of nothing but a place, sure of it: quarter turns, rows, columns from the anchor (1, 3)."""
    groups = torch.zeros(1, goals.groups, dtype=torch.int64)
    groups[0, -3:] = torch.tensor([way[0], way[1] + REACH, way[2] + REACH])
    there = torch.arange(goals.groups)[None] >= goals.groups - 3
    probability = torch.nn.functional.one_hot(groups, goals.exists.shape[1]).float()
    return Goal(torch.zeros(1, 3).long(), probability, groups, there, anchor)


def test_a_state_is_told_by_where_it_is_seen_from_its_anchor():
    goals = goal_space()
    assert [block.key for block in goals.spec.blocks] == ["view", "clock", PLACE + "view"]
    z, h = at((1, 10, 10), (1, 13, 9), (3, 10, 30))
    place = goals.codes(z, h, torch.tensor([1, 10, 10]))[:, -3:]
    assert place.tolist() == [[0, 3, 3], [0, 3 + 1, 3 + 3], [2, 0, 3]], "as far as it is told: 20 columns count as three"
    assert torch.equal(goals.poses(h), torch.tensor([[1, 10, 10], [1, 13, 9], [3, 10, 30]]))
    assert goal_space(place=0.0).groups == 5, "goals without places know of none"


def test_the_same_goal_is_chosen_wherever_the_same_lies_ahead():
    goals = goal_space()
    z, h = at((0, 2, 1), (1, 1, SIDE - 2))
    seen = goals.codes(z, h, torch.tensor([[0, 0, 0], [1, 0, 0]]))
    assert torch.equal(seen[0], seen[1]), "two rows on and a column, seen from either anchor"
    assert not torch.equal(*goals.codes(z, h, torch.zeros(3).long()))


def test_a_worker_sees_how_far_it_is_still_to_its_place():
    goals = goal_space()
    anchor = torch.tensor([[1, 10, 10]])
    goal = goal_at(goals, anchor, 2, 1, 3)  # the pose (3, 13, 9)
    for pose, way in (((1, 10, 10), (2, 1, 3)), ((3, 13, 9), (0, 0, 0)), ((0, 13, 9), (3, 0, 0)), ((0, 11, 9), (3, 2, 0))):
        seen = goals.ahead(goal, at(pose)[1])
        assert seen[0, -3:].tolist() == [way[0], way[1] + REACH, way[2] + REACH] and not seen[0, :-3].any()
    steps = torch.stack([at((1, 10, 10), (3, 13, 9))[1]])  # (1, 2, V + 3), the steps of one segment
    assert goals.ahead(goal.each(), steps)[0, :, -3:].tolist() == [[2, 1 + REACH, 3 + REACH], [0, REACH, REACH]]


def test_coming_near_a_place_pays_and_no_more_than_being_there():
    goals = goal_space()
    z, h = at((0, 0, 0), (0, 1, 0), (0, 2, 0), (0, 3, 0))
    anchor = torch.zeros(1, 3).long()
    goals.observe(*at(*[(0, i % 7 - 3, i % 5 - 2) for i in range(35)]), anchor.expand(35, -1))  # anywhere about
    view = goals.view(z[None], h[None], goal_at(goals, anchor, 0, 3, 0), torch.ones(1, 3))
    near = similarity(view)[0]
    assert (near[1:] > near[:-1]).all() and near[-1].item() == pytest.approx(best(view)[0, 0].item())
    assert (progress(view) > 0).all()
    away = goals.view(z[None], h[None], goal_at(goals, anchor, 0, -3, 0), torch.ones(1, 3))
    assert (progress(away) <= 0).all()


def walks(n: int, generator: torch.Generator) -> Tensor:
    """Poses (n, REACH + 1, 3) of walks that begin anywhere and go on or turn to either side, at random."""
    poses = [torch.cat([torch.randint(4, (n, 1), generator=generator), torch.randint(SIDE, (n, 2), generator=generator)], 1)]
    for _ in range(REACH):
        turn = torch.tensor([0, 1, 3])[torch.randint(3, (n,), generator=generator)]
        ahead = turned(torch.tensor([-1, 0]), poses[-1][:, 0]) * (turn == 0).unsqueeze(1)
        poses.append(torch.cat([(poses[-1][:, :1] + turn.unsqueeze(1)) % 4, (poses[-1][:, 1:] + ahead) % SIDE], 1))
    return torch.stack(poses, 1)


def test_a_walk_earns_next_to_nothing_under_another_walks_goal_and_much_under_its_own():
    """As `hierarchy=director` weighs places; goals are sure, and what is to be seen comes by chance."""
    goals, N = goal_space(place=4.0), 4096
    generator = torch.Generator().manual_seed(0)
    poses = walks(N, generator)
    z = torch.randint(3, (N, REACH + 1, 5), generator=generator)
    h = torch.cat([torch.zeros(N, REACH + 1, V), poses.float()], -1)
    anchor = poses[:, 0]
    goals.observe(z, h, anchor.unsqueeze(1))
    end = goals.codes(z[:, -1], h[:, -1], anchor)
    sure = torch.nn.functional.one_hot(end, goals.exists.shape[1]).float()
    goal = Goal(torch.zeros(N, 3).long(), sure, end, torch.ones_like(end, dtype=torch.bool), anchor)
    another = replace(goal.map(lambda x: x.roll(N // 2, 0)), anchor=anchor)  # seen from where one is oneself
    own, other = (progress(goals.view(z, h, each, torch.ones(N, REACH))).sum(1) for each in (goal, another))
    assert abs(other.mean().item()) < 0.01, "0.002, with a standard error of 0.003; 0.007 of 65,536 walks, as all of them go on"
    assert own.mean().item() > 0.53, "0.540, with a standard error of 0.002"
    assert (own > other).float().mean().item() > 0.99


def test_places_count_for_as_much_as_their_weight_says():
    z, h = at((0, 0, 0), (0, 2, 0))
    anchor = torch.zeros(1, 3).long()
    gains, turns = [], []
    for place in (1.0, 8.0):
        goals = goal_space(place)
        goal = goal_at(goals, anchor, 0, 2, 0)
        goal = replace(goal, there=torch.ones_like(goal.there))
        goal.probability[0, :4] = torch.tensor([0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0])  # another view than all the states'
        goals.observe(*at(*[(0, i % 7 - 3, i % 5 - 2) for i in range(35)]), anchor.expand(35, -1))
        gains.append(float(progress(goals.view(z[None], h[None], goal, torch.ones(1, 1)))))
        turns.append(goals.emphasis[-3:].tolist())
    assert gains[1] > 2 * gains[0] > 0
    assert turns == [[0.25, 1.0, 1.0], [2.0, 8.0, 8.0]], "a turn counts for a quarter: it comes on the way, too"


def test_no_goal_is_no_place():
    goals = goal_space()
    none = goals.decode(torch.full((2, 3), NO_GOAL), torch.zeros(2, 3).long())
    assert not none.there.any() and not none.groups.any()
