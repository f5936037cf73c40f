"""One rollout as the worker and as the manager see it, by hand-worked numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from hierarchy.abstract import abstract_trajectory, segment_reward, split_trajectory
from tests.hierarchy.toy import trajectory

PATH = replace(
    trajectory([0, 1, 2, 3, 4, 5, 6], [10, 11, 12, 13, 14, 15], [-1, -2, -3, -4, -5, -6], [1, 2, 3, 4, 5, 6]),
    cont=torch.tensor([[1.0, 0.5, 1.0, 0.8, 1.0, 0.25]]),
    weight=torch.tensor([[1.0, 1.0, 0.5, 0.5, 0.4, 0.4, 0.1]]),
    h=torch.arange(20.0, 27.0).view(1, 7, 1).expand(1, 7, 4),  # as z, and 20 more
    boundary=torch.tensor([[False, False, False, True, False, False, False]]),  # between the two segments
)


def test_segments_share_the_state_where_one_goal_ends_and_the_next_begins():
    parts = split_trajectory(PATH, 3)
    assert parts.z[..., 0].tolist() == [[0, 1, 2, 3], [3, 4, 5, 6]]
    assert parts.action.tolist() == [[10, 11, 12], [13, 14, 15]] and parts.log_prob.tolist() == [[-1, -2, -3], [-4, -5, -6]]
    assert parts.reward.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert parts.h.shape == (2, 4, 4) and parts.h[..., 0].tolist() == [[20, 21, 22, 23], [23, 24, 25, 26]]
    assert parts.boundary.tolist() == [[False, False, False, True], [True, False, False, False]]


def test_what_lies_behind_a_predicted_end_counts_as_little_in_a_segment_as_in_the_rollout():
    weight = split_trajectory(PATH, 3).weight
    assert torch.allclose(weight, torch.tensor([[1.0, 1.0, 0.5, 0.5], [0.5, 0.4, 0.4, 0.1]]))


def test_segments_of_several_rollouts_follow_each_other_rollout_by_rollout():
    two = PATH.rows(torch.tensor([0, 0]))
    two = replace(two, z=torch.stack([PATH.z[0], PATH.z[0] + 100]))
    assert split_trajectory(two, 3).z[:, 0, 0].tolist() == [0, 3, 100, 103]


def test_a_manager_step_earns_the_discounted_rewards_of_the_steps_that_are_still_taken():
    # 1 + 0.9 * 2 + 0.81 * 0.5 * 3 and 4 + 0.9 * 0.8 * 5 + 0.81 * 0.8 * 6
    reward = segment_reward(PATH.reward, PATH.cont, 3, 0.9, "sum")
    assert torch.allclose(reward, torch.tensor([[1 + 1.8 + 1.215, 4 + 3.6 + 3.888]]))


def test_a_mean_reward_is_undiscounted_and_still_weighs_by_the_chance_to_get_there():
    reward = segment_reward(PATH.reward, PATH.cont, 3, 0.9, "mean")
    assert torch.allclose(reward, torch.tensor([[(1 + 2 + 1.5) / 3, (4 + 4 + 4.8) / 3]]))


def test_the_manager_sees_every_kth_state_and_goes_on_if_all_steps_between_do():
    goal, log_prob = torch.tensor([[[1, 2], [3, 4]]]), torch.tensor([[-0.5, -0.7]])
    path = abstract_trajectory(PATH, goal, log_prob, 3, 0.9)
    assert path.z[..., 0].tolist() == [[0, 3, 6]]
    assert path.h.shape == (1, 3, 4) and path.h[..., 0].tolist() == [[20, 23, 26]]
    assert torch.allclose(path.cont, torch.tensor([[0.5, 0.2]]))
    assert torch.allclose(path.weight, torch.tensor([[1.0, 0.5, 0.1]])), "the chance to be there at all"
    assert path.action.tolist() == goal.tolist() and path.log_prob is log_prob
    assert path.boundary.tolist() == [[False, True, False]]


def test_summed_rewards_and_a_discount_of_gamma_to_the_k_are_worth_what_the_single_steps_are():
    gamma, r, c = 0.9, PATH.reward[0], PATH.cont[0]
    alive = torch.cat([torch.ones(1), c[:-1].cumprod(0)])
    single = (alive * gamma ** torch.arange(6) * r).sum()
    path = abstract_trajectory(PATH, torch.zeros(1, 2, 1), torch.zeros(1, 2), 3, gamma)
    whole = path.reward[0, 0] + gamma**3 * path.cont[0, 0] * path.reward[0, 1]
    assert whole.item() == pytest.approx(single.item())


@pytest.mark.parametrize("period", [4, 5])
def test_a_period_that_does_not_divide_the_rollout_is_refused(period: int):
    with pytest.raises(ValueError, match=f"6 steps cannot be cut into segments of {period}"):
        split_trajectory(PATH, period)


def test_a_manager_of_managers_sees_the_same_whether_steps_are_abstracted_at_once_or_level_by_level():
    goals = torch.zeros(1, 3, 1)
    below = abstract_trajectory(PATH, goals, torch.zeros(1, 3), 2, 0.9)
    twice = abstract_trajectory(below, goals[:, :1], torch.zeros(1, 1), 3, 0.9**2)
    once = abstract_trajectory(PATH, goals[:, :1], torch.zeros(1, 1), 6, 0.9)
    for name in ("z", "h", "reward", "cont", "weight", "boundary"):
        assert torch.allclose(getattr(twice, name).float(), getattr(once, name).float()), name
