"""Actor and critic: what the losses push, what they leave alone, and that both of them solve a world of two states."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from envs.errors import UserError
from envs.spaces.specs import ActionSpec
from hierarchy.actor_critic import ActorCritic, greatest_entropy
from hierarchy.config import HierarchyConfig
from hierarchy.flat import FlatPolicy, imagined_trajectory
from hierarchy.networks import ema_update
from hierarchy.trajectory import LatentTrajectory
from tests.hierarchy.toy import ACTIONS, LATENTS, WIDTH, TwoStates, actor_critic, states, trajectory
from world_model.imagination import Rollout

LOSSES = pytest.mark.parametrize("loss", ["ppo", "a2c"])


def make(seed: int = 0, actions: int = 2, **keys: Any) -> ActorCritic:
    torch.manual_seed(seed)
    module = ActorCritic(LATENTS, WIDTH, ActionSpec("discrete", actions), actor_critic(**keys))
    for net in (module.actor.net, module.critic.net):  # which start at zero, where many a mistake makes no difference
        for parameter in net[-1].parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return module


def log_probs(module: ActorCritic, path: LatentTrajectory) -> Tensor:
    logits = module.actor(path.z[:, :-1], path.h[:, :-1])
    return logits.gather(-1, path.action.unsqueeze(-1)).squeeze(-1).detach()


def gradients(module: ActorCritic, path: LatentTrajectory, advantage: Tensor) -> list[Tensor]:
    module.zero_grad()
    module.policy_loss(path, advantage)[0].backward()
    return [p.grad.clone() for p in module.actor.parameters() if p.grad is not None]


# -- the actor -----------------------------------------------------------------------------------------------------------


def test_a_new_actor_is_uniform_and_a_new_critic_says_zero():
    module = ActorCritic(LATENTS, WIDTH, ActionSpec("discrete", 5), actor_critic())
    z, h = states(0, 1)
    assert module.actor(z, h).flatten().tolist() == pytest.approx([-math.log(5)] * 10)
    assert module.critic(z, h).tolist() == module.target(z, h).tolist() == [0, 0]


def test_every_action_keeps_its_share_of_the_uniform_mixture():
    module = make(unimix=0.05, actions=4)
    with torch.no_grad():
        module.actor.net[-1].bias.copy_(torch.tensor([50.0, 0, 0, 0]))  # type: ignore[operator]
    probability = module.actor(*states(0)).exp()[0].tolist()
    assert probability == pytest.approx([0.95 + 0.0125, 0.0125, 0.0125, 0.0125], abs=1e-6)


def test_actions_are_drawn_as_often_as_the_policy_says_with_its_log_probabilities():
    module = make(actions=3)
    n = 6000
    z, h = states(*[1] * n)
    action, log_prob = module.act(z, h)
    expected = module.actor(z[:1], h[:1])[0].detach()
    for a, p in enumerate(expected.exp().tolist()):
        assert abs((action == a).sum().item() - n * p) <= 4 * math.sqrt(n * p * (1 - p))
    torch.testing.assert_close(log_prob, expected[action])


def test_a_greedy_action_is_the_likeliest():
    module = make(actions=3)
    z, h = states(0, 1)
    action, log_prob = module.act(z, h, greedy=True)
    logits = module.actor(z, h)
    assert action.tolist() == logits.argmax(-1).tolist() and log_prob.tolist() == logits.amax(-1).tolist()


@LOSSES
@pytest.mark.parametrize("advantage", [1.0, -1.0])
def test_a_step_makes_an_action_likelier_when_its_advantage_is_positive_and_rarer_when_negative(loss: str, advantage: float):
    module = make(loss=loss, entropy=0.0)
    path = trajectory([0, 0], [1])
    path.log_prob = log_probs(module, path)
    optimizer = torch.optim.SGD(module.actor.parameters(), lr=0.01)
    optimizer.zero_grad()
    module.policy_loss(path, torch.tensor([[advantage]]))[0].backward()
    optimizer.step()
    assert torch.sign(log_probs(module, path) - path.log_prob).item() == advantage


def test_ppo_and_a2c_have_the_same_gradient_where_the_policy_has_not_moved_yet():
    path = trajectory([0, 1, 0, 1], [1, 0, 0])
    advantage = torch.tensor([[0.7, -1.3, 2.0]])
    found = []
    for loss in ("ppo", "a2c"):
        module = make(loss=loss, entropy=0.01)
        path.log_prob = log_probs(module, path)
        found.append(gradients(module, path, advantage))
    assert any(g.abs().max() > 1e-3 for g in found[0])
    for ppo, a2c in zip(*found, strict=True):
        torch.testing.assert_close(ppo, a2c, atol=1e-7, rtol=1e-4)


@pytest.mark.parametrize(("ratio", "advantage", "moves"), [(1.5, 1, False), (1.5, -1, True), (0.6, -1, False), (0.6, 1, True)])
def test_ppo_pushes_no_further_once_the_policy_has_moved_beyond_the_clip_range(ratio: float, advantage: float, moves: bool):
    module = make(loss="ppo", clip=0.2, entropy=0.0)
    path = trajectory([0, 0], [1])
    path.log_prob = log_probs(module, path) - math.log(ratio)
    moved = any(g.abs().max() > 1e-6 for g in gradients(module, path, torch.tensor([[advantage]])))
    assert moved is moves


@LOSSES
def test_the_entropy_bonus_pulls_towards_the_uniform_policy(loss: str):
    module = make(loss=loss, entropy=1.0)
    path = trajectory([0, 0], [1])
    path.log_prob = log_probs(module, path)

    def entropy() -> float:
        logits = module.actor(*states(0))
        return -(logits.exp() * logits).sum().item()

    before = entropy()
    optimizer = torch.optim.SGD(module.actor.parameters(), lr=0.01)
    optimizer.zero_grad()
    module.policy_loss(path, torch.zeros(1, 1))[0].backward()
    optimizer.step()
    assert entropy() > before


@LOSSES
@pytest.mark.parametrize(("target", "moves"), [(0.2, -1), (0.99, 1)])
def test_a_weight_holds_the_entropy_at_its_target(loss: str, target: float, moves: int):
    """The policy's entropy is 0.8 to 0.95 of the greatest: more than one target, for which less weight will do, less than the
    other."""
    module = make(loss=loss, entropy=0.01, entropy_target=target, actions=4)
    logits = module.actor(*states(0))
    assert 0.8 < -(logits.exp() * logits).sum().item() / math.log(4) < 0.95
    path = trajectory([0, 0], [1])
    path.log_prob = log_probs(module, path)
    module.policy_loss(path, torch.zeros(1, 1))
    weight = module.entropy_weight
    assert weight is not None and weight().item() == pytest.approx(0.01 * 1.1**moves)


def test_the_greatest_entropy_is_that_of_uniform_choices():
    assert greatest_entropy(ActionSpec("discrete", 7)) == pytest.approx(math.log(7))
    assert greatest_entropy(ActionSpec("multi_discrete", 2, classes=(3, 5))) == pytest.approx(math.log(15))
    with pytest.raises(UserError, match=r"actor_critic\.entropy_target"):
        greatest_entropy(ActionSpec("box", 2))


@LOSSES
def test_steps_of_weight_zero_count_for_nothing(loss: str):
    module = make(loss=loss)
    path = trajectory([0, 1, 0, 1], [1, 0, 1], weight=torch.tensor([[1.0, 0.0, 1.0, 1.0]]))
    path.log_prob = log_probs(module, path)
    advantage, returns = torch.tensor([[0.5, 0.1, -1.0]]), torch.tensor([[1.0, 2.0, 3.0]])
    expected = gradients(module, path, advantage)
    values = [module.policy_loss(path, advantage)[0], module.critic_loss(path, returns)]

    path.z[0, 1], path.h[0, 1], path.action[0, 1] = 0, 7.0, 1
    path.log_prob[0, 1], advantage[0, 1], returns[0, 1] = -3.0, 100.0, -50.0
    for before, after in zip(expected, gradients(module, path, advantage), strict=True):
        assert torch.equal(before, after)
    assert [module.policy_loss(path, advantage)[0], module.critic_loss(path, returns)] == values

    advantage[0, 2] = 5.0
    assert module.policy_loss(path, advantage)[0] != values[0], "what has weight does count"


@LOSSES
def test_a_step_that_is_half_likely_to_be_reached_weighs_half(loss: str):
    module = make(loss=loss, entropy=0.0)
    one, other = trajectory([0, 0], [1]), trajectory([1, 0], [0])
    both = trajectory([0, 1, 0], [1, 0], weight=torch.tensor([[1.0, 0.5, 0.5]]))
    for path in (one, other, both):
        path.log_prob = log_probs(module, path)
    first = module.policy_loss(one, torch.tensor([[2.0]]))[0]
    second = module.policy_loss(other, torch.tensor([[-1.0]]))[0]
    mixed = module.policy_loss(both, torch.tensor([[2.0, -1.0]]))[0]
    torch.testing.assert_close(mixed, (first + 0.5 * second) / 1.5)


def test_a_loss_that_does_not_exist_is_refused_with_those_that_do():
    with pytest.raises(UserError, match=r"hierarchy\.actor_critic\.loss must be ppo or a2c, not 'sac'"):
        make(loss="sac")


# -- the critic ----------------------------------------------------------------------------------------------------------


def test_the_critic_learns_the_mean_of_what_it_is_given():
    module = make()
    path = trajectory([0, 1, 0, 1, 0], [0, 0, 0, 0])
    returns = torch.tensor([[3.0, -2.0, 5.0, -2.0]])
    optimizer = torch.optim.Adam(module.critic.parameters(), lr=1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        module.critic_loss(path, returns).backward()
        optimizer.step()
    assert module.critic(*states(0, 1)).tolist() == pytest.approx([4.0, -2.0], abs=0.05)


def test_returns_bootstrap_from_the_slow_copy_of_the_critic():
    module = make(gamma=0.5, lmbda=0.5)
    path = trajectory([0, 1], [1], reward=[1.0])
    assert module.targets(path)[0].tolist() == [[1.0]]
    module.target.load_state_dict(module.critic.state_dict())
    value = module.target(*states(0, 1))
    returns, advantage = module.targets(path)
    assert returns.item() == pytest.approx(1 + 0.5 * value[1].item()) and abs(value[1]) > 0.1
    assert advantage.item() == pytest.approx(returns.item() - value[0].item())


def test_the_slow_critic_follows_by_a_share_at_every_step_and_takes_no_gradient():
    source, target = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    for module, number in ((source, 8.0), (target, 0.0)):
        for parameter in module.parameters():
            torch.nn.init.constant_(parameter, number)
    ema_update(target, source, decay=0.75)
    assert target.weight.item() == target.bias.item() == 2.0
    ema_update(target, source, decay=0.75)
    assert target.weight.item() == 3.5  # .75 * 2 + .25 * 8
    assert not any(p.requires_grad for p in make().target.parameters())


# -- the flat policy -----------------------------------------------------------------------------------------------------


def test_an_imagined_state_weighs_as_much_as_it_is_likely_to_be_reached():
    zeros, cont = torch.zeros(1, 3), torch.tensor([[1.0, 0.5, 0.25]])
    z, h = torch.zeros(1, 4, 1).long(), torch.zeros(1, 4, WIDTH)
    rollout = Rollout(z, h, zeros.long(), zeros, zeros, cont, zeros + 0.5, zeros + 0.25)
    path = imagined_trajectory(rollout)
    assert path.weight.tolist() == [[1.0, 1.0, 0.5, 0.125]]
    assert not path.boundary.any() and path.source == "imagined"
    assert path.reward.tolist() == [[0, 0, 0]] and imagined_trajectory(rollout, explore=4.0).reward.tolist() == [[2, 2, 2]]
    assert imagined_trajectory(rollout, explore=4.0, discovery=2.0).reward.tolist() == [[2.5, 2.5, 2.5]]


def learn(policy: FlatPolicy, updates: int, real: LatentTrajectory, env: Any = None) -> None:
    optimizer = torch.optim.Adam([p for p in policy.parameters() if p.requires_grad], lr=1e-2)
    env = env or TwoStates()
    starts: Any = None
    for _ in range(updates):
        for learning in policy.learn(env, starts, real):
            optimizer.zero_grad()
            learning.loss.backward()
            optimizer.step()
            learning.after()


@LOSSES
def test_both_losses_solve_a_world_of_two_states(loss: str):
    torch.manual_seed(0)
    config = HierarchyConfig(replay_value=0.0, actor_critic=actor_critic(loss=loss, gamma=0.9, target_decay=0.8, unimix=0.0))
    policy = FlatPolicy(LATENTS, WIDTH, ACTIONS, config)
    learn(policy, 100, trajectory([0, 1], [1]))
    right = policy.policy.actor(*states(0, 1)).exp()[:, 1]
    assert right.min() > 0.9, right
    assert policy.policy.critic(*states(0, 1)).tolist() == pytest.approx([0.9, 1.0], abs=0.1)


@LOSSES
def test_the_policy_can_learn_from_real_rollouts_alone(loss: str):
    """Dyna's other half: nothing is to be had in imagination, but what really happened shows which action pays."""

    class Nothing(TwoStates):
        def imagine(self, *args: Any) -> Rollout:
            rollout = super().imagine(*args)
            rollout.reward.zero_()
            return rollout

    torch.manual_seed(0)
    config = HierarchyConfig(real=1.0, replay_value=1.0, actor_critic=actor_critic(loss=loss, entropy=0.0))
    policy = FlatPolicy(LATENTS, WIDTH, ACTIONS, config)
    optimizer = torch.optim.Adam([p for p in policy.parameters() if p.requires_grad], lr=1e-2)
    env: Any = Nothing(rollouts=4)
    starts: Any = None
    real = trajectory([0, 0, 0], [1, 0], reward=[1.0, 0.0], cont=torch.zeros(1, 2))
    for _ in range(30):
        real.log_prob = log_probs(policy.policy, real)
        for learning in policy.learn(env, starts, real):
            optimizer.zero_grad()
            learning.loss.backward()
            optimizer.step()
            learning.after()
    assert policy.policy.actor(*states(0)).exp()[0, 1] > 0.7


def test_what_is_no_step_of_a_real_episode_changes_nothing_that_is_learned():
    """At an episode's last step there is no action: whatever stands there, and the reward that seems to follow, is another's."""
    config = HierarchyConfig(real=1.0, replay_value=1.0, actor_critic=actor_critic())
    last = torch.tensor([[False, True, False, False]])
    arguments = dict(weight=(~last).float(), boundary=last)

    def losses(real: LatentTrajectory) -> list[Tensor]:
        torch.manual_seed(0)
        policy = FlatPolicy(LATENTS, WIDTH, ACTIONS, config)
        env: Any = TwoStates(rollouts=4)
        starts: Any = None
        return [learning.loss.detach() for learning in policy.learn(env, starts, real)]

    before = losses(trajectory([0, 1, 0, 1], [1, 0, 1], [-0.7] * 3, [1.0, 0.0, 0.5], **arguments))
    after = losses(trajectory([0, 1, 0, 1], [1, 1, 1], [-0.7, -9.0, -0.7], [1.0, 77.0, 0.5], **arguments))
    assert before == after
    assert before != losses(trajectory([0, 1, 0, 1], [1, 0, 1], [-0.7] * 3, [1.0, 0.0, 9.0], **arguments))
