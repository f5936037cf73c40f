"""Distributions over actions: log-probabilities against hand-worked numbers, and a policy that finds a number."""

from __future__ import annotations

import math

import pytest
import torch

from envs.spaces.specs import ActionSpec
from hierarchy.config import HierarchyConfig
from hierarchy.distributions import ActionHead, uniform_actions
from hierarchy.flat import FlatPolicy
from tests.hierarchy.test_actor_critic import learn
from tests.hierarchy.toy import LATENTS, WIDTH, actor_critic, states, trajectory
from world_model.imagination import Rollout

CHOICES = ActionSpec("multi_discrete", 2, classes=(2, 3), starts=(0, 0), env_shape=(2,))
NUMBERS = ActionSpec("box", 2, low=(-1.0, -1.0), high=(1.0, 1.0), env_shape=(2,), dtype="float32")
KINDS = {"discrete": ActionSpec("discrete", 3), "choices": CHOICES, "numbers": NUMBERS}


def head(spec: ActionSpec, unimix: float = 0.0) -> ActionHead:
    return ActionHead(spec, unimix, (0.1, 1.0))


def test_the_log_probability_of_several_choices_is_the_sum_of_theirs():
    raw = torch.tensor([[0.0, math.log(3.0), 0.0, 0.0, math.log(2.0)]])  # 1/4, 3/4; 1/4, 1/4, 1/2
    distribution = head(CHOICES).distribution(head(CHOICES).params(raw))
    assert distribution.log_prob(torch.tensor([[1, 2]])).exp().item() == pytest.approx(3 / 8)
    assert distribution.deterministic_sample.tolist() == [[1, 2]]
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75)) - (0.5 * math.log(0.25) + 0.5 * math.log(0.5))
    assert distribution.entropy().item() == pytest.approx(entropy)


def test_an_element_never_takes_a_choice_that_it_does_not_have():
    raw = torch.zeros(4000, 5)
    action, log_prob = head(CHOICES, unimix=0.5).draw(head(CHOICES, unimix=0.5).params(raw), greedy=False)
    assert action.max(0).values.tolist() == [1, 2] and action.min().item() == 0
    assert log_prob.exp().tolist() == pytest.approx([1 / 6] * 4000, rel=1e-4)


def test_every_choice_keeps_its_share_of_the_uniform_mixture():
    params = head(CHOICES, unimix=0.06).params(torch.tensor([[50.0, 0, 0, 0, 50.0]])).exp()[0]
    assert params.tolist() == pytest.approx([0.97, 0.03, 0.02, 0.02, 0.96], abs=1e-6)


def test_the_log_probability_of_numbers_is_that_of_their_gaussians():
    raw = torch.tensor([[0.0, math.atanh(0.5), -100.0, 100.0]])  # means 0 and 0.5, deviations 0.1 and 1
    distribution = head(NUMBERS).distribution(head(NUMBERS).params(raw))
    expected = -0.5 * 1 - math.log(0.1) - 0.5 * 0.25 - math.log(1.0) - math.log(2 * math.pi)
    assert distribution.log_prob(torch.tensor([[0.1, 1.0]])).item() == pytest.approx(expected, rel=1e-4)
    assert distribution.deterministic_sample[0].tolist() == pytest.approx([0.0, 0.5])


@pytest.mark.parametrize("kind", KINDS)
def test_drawn_actions_carry_the_log_probability_that_the_loss_will_find(kind: str):
    torch.manual_seed(0)
    own = head(KINDS[kind], unimix=0.01)
    params = own.params(torch.randn(50, own.outputs))
    action, log_prob = own.draw(params, greedy=False)
    assert action.shape == (50, *KINDS[kind].shape)
    torch.testing.assert_close(own.distribution(params).log_prob(action), log_prob)


@pytest.mark.parametrize("kind", KINDS)
def test_uniform_actions_are_spread_evenly(kind: str):
    torch.manual_seed(0)
    action, log_prob = uniform_actions(KINDS[kind], 6000, torch.device("cpu"))
    expected = {"discrete": 1.0, "choices": [0.5, 1.0], "numbers": [0.0, 0.0]}[kind]
    assert action.float().mean(0).tolist() == pytest.approx(expected, abs=0.05)
    assert log_prob.exp().unique().tolist() == pytest.approx([{"discrete": 1 / 3, "choices": 1 / 6, "numbers": 1 / 4}[kind]])


class Target:
    """A world of one step: the reward falls with the squared distance of both numbers from 0.5 and -0.5, as `imagine` has it."""

    @torch.no_grad()
    def imagine(self, policy, starts: object = None, nets: object = ()) -> Rollout:
        z, h = states(*[0] * 64)
        action, log_prob = policy(z, h)
        reward = -(action.clamp(-1, 1) - torch.tensor([0.5, -0.5])).square().sum(-1)
        both = torch.stack([z, z], 1), torch.stack([h, h], 1)
        return Rollout(*both, action[:, None], log_prob[:, None], reward[:, None], *(torch.zeros(64, 1) for _ in range(3)))


@pytest.mark.parametrize("loss", ["ppo", "a2c"])
def test_a_policy_over_numbers_finds_the_best_ones(loss: str):
    torch.manual_seed(0)
    config = HierarchyConfig(replay_value=0.0, actor_critic=actor_critic(loss=loss, gamma=0.9, entropy=0.0))
    policy = FlatPolicy(LATENTS, WIDTH, NUMBERS, config)
    real = trajectory([0, 0], [0])
    real.action = torch.zeros(1, 1, 2)
    learn(policy, 250, real, Target())
    action, _ = policy.policy.act(*states(0), greedy=True)
    assert action[0].tolist() == pytest.approx([0.5, -0.5], abs=0.1)
