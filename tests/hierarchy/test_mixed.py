"""Several rewards in one policy: whose share of what is learned from is how large."""

from __future__ import annotations

import pytest
import torch

from hierarchy.mixed import Assessment, MixedPolicy
from tests.hierarchy.toy import ACTIONS, LATENTS, WIDTH, actor_critic, trajectory


def test_shares_are_of_weighed_advantages_of_those_actions_that_are_learned_from():
    policy = MixedPolicy(LATENTS, WIDTH, ACTIONS, actor_critic(), {"extrinsic": 1.0, "goal": 1.0})
    large, small = torch.tensor([[3.0, -1.0], [0.0, 9.0]]), torch.tensor([[-1.0, 1.0], [0.0, 0.0]])
    assessed = {"extrinsic": Assessment(large, large), "goal": Assessment(small, small)}
    counts = torch.tensor([[1.0, 0.5], [1.0, 0.0]])
    found = policy.shares(assessed, {"extrinsic": 1.0, "goal": 2.0}, counts)
    expected = (3 + 0.5) / (3 + 0.5 + 2 * 1 + 2 * 0.5)
    assert found["advantage_share/extrinsic"] == pytest.approx(expected)
    assert found["advantage_share/goal"] == pytest.approx(1 - expected)
    assert found["return_share/extrinsic"] == pytest.approx(expected), "both scales are 1"


def test_what_was_not_drawn_or_lies_behind_an_end_has_no_share():
    policy = MixedPolicy(LATENTS, WIDTH, ACTIONS, actor_critic(), {"extrinsic": 1.0, "goal": 1.0})
    path = trajectory([0, 1, 0, 1], [0, 1, 0], log_prob=[-0.7] * 3, weight=torch.tensor([[1.0, 1.0, 0.0, 0.0]]))
    first, second = torch.tensor([[2.0, 50.0, 70.0]]), torch.tensor([[1.0, 0.0, 0.0]])
    assessed = {"extrinsic": Assessment(first, first), "goal": Assessment(second, second)}
    (lesson,) = policy.learn(path, assessed, {"extrinsic": 1.0, "goal": 1.0}, "it", own=torch.tensor([[True, False, True]]))
    assert lesson.metrics["it/advantage_share/extrinsic"] == pytest.approx(2 / 3)
