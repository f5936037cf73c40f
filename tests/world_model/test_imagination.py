"""The imagination environment: a TorchRL environment and a fast rollout that are one and the same."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import pytest
import torch
from torch import Tensor
from torchrl.envs.utils import check_env_specs

from tests.world_model.conftest import SPEC, random_sequences, tiny_config
from world_model import imagination
from world_model.imagination import ImaginationCache, ImaginationEnv, Rollout
from world_model.model import WorldModel
from world_model.packing import _available
from world_model.starts import Starts, choose_starts, previous_history

HORIZON = 5


def undying(model: WorldModel) -> WorldModel:
    """Never ends an imagined episode: a TorchRL rollout resets what has ended."""
    with torch.no_grad():
        model.continue_head[-1].bias.fill_(50.0)  # type: ignore[operator]
    return model


def starts_of(model: WorldModel, per_sequence: int = 3) -> Starts:
    batch = random_sequences(model, 2, 8, ends={0: 3})
    with torch.no_grad():
        return choose_starts(model(batch), batch, per_sequence, torch.Generator().manual_seed(0))


@pytest.fixture
def starts(model: WorldModel) -> Starts:
    return starts_of(model)


@pytest.fixture
def env(model: WorldModel, starts: Starts) -> ImaginationEnv:
    env = ImaginationEnv(model, HORIZON, starts.step.numel())
    env.begin(starts)
    return env


def random_policy(z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    return torch.randint(5, (len(z),)), torch.full((len(z),), -1.6)


def test_it_keeps_torchrls_rules_for_environments(env: ImaginationEnv):
    check_env_specs(env)


def test_the_policys_layers_are_laid_out_for_a_rollout_too(model: WorldModel, starts: Starts):
    net, found = torch.nn.Linear(model.view_width, 4096), []

    def policy(z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        found.append("forward" in vars(net))
        return net(h).argmax(-1) % 5, torch.zeros(len(z))

    env = ImaginationEnv(model, HORIZON, starts.step.numel())
    env.imagine(policy, starts, [net])
    assert found == [_available()] * HORIZON and "forward" not in vars(net)


def test_a_torchrl_rollout_goes_in_half_precision():
    torch.manual_seed(0)
    model = WorldModel(SPEC, tiny_config(precision="bf16")).eval()
    starts = starts_of(model)
    env = ImaginationEnv(undying(model), HORIZON, starts.step.numel())
    env.begin(starts)
    steps = env.rollout(HORIZON)
    assert steps["next", "h"].dtype == torch.float32 and steps["next", "h"].isfinite().all()


def test_a_torchrl_rollout_equals_imagine_under_the_same_noise_and_actions(model: WorldModel, starts: Starts):
    env = ImaginationEnv(undying(model), HORIZON, starts.step.numel())
    env.begin(starts)
    env.set_seed(3)
    steps = env.rollout(HORIZON)
    actions = iter(steps["action"].unbind(1))
    env.set_seed(3)
    rollout = env.imagine(lambda z, h: (next(actions), torch.zeros(len(z))), starts)
    assert torch.equal(rollout.action, steps["action"])
    assert torch.equal(rollout.z, torch.cat([steps["z"], steps["next", "z"][:, -1:]], 1))
    assert torch.allclose(rollout.h, torch.cat([steps["h"], steps["next", "h"][:, -1:]], 1), atol=1e-5)
    torch.testing.assert_close(rollout.reward, steps["next", "reward"].squeeze(-1))
    torch.testing.assert_close(rollout.cont, steps["next", "cont"].squeeze(-1))
    assert rollout.z.unique(dim=1).shape[1] > 1, "something happened"


def test_a_rollout_begins_at_its_starts_sequence_by_sequence(env: ImaginationEnv, starts: Starts):
    rollout = env.imagine(random_policy, starts)
    assert torch.equal(rollout.z[:, 0], starts.z.flatten(0, 1)) and torch.equal(rollout.h[:, 0], starts.h.flatten(0, 1))
    assert rollout.z.shape == (6, HORIZON + 1, env.model.latents.groups) and rollout.h.shape == (6, HORIZON + 1, 32)
    for part in (rollout.action, rollout.log_prob, rollout.reward, rollout.cont):
        assert part.shape == (6, HORIZON)


def test_the_policy_is_shown_every_state_but_the_last_and_its_answers_are_kept(env: ImaginationEnv, starts: Starts):
    seen: list[tuple[Tensor, Tensor]] = []

    def policy(z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        seen.append((z, h))
        return torch.full((len(z),), len(seen) % 5), torch.full((len(z),), -float(len(seen)))

    rollout = env.imagine(policy, starts)
    assert torch.equal(torch.stack([z for z, _ in seen], 1), rollout.z[:, :-1])
    assert torch.equal(torch.stack([h for _, h in seen], 1), rollout.h[:, :-1])
    assert rollout.action[0].tolist() == [1, 2, 3, 4, 0] and rollout.log_prob[0].tolist() == [-1, -2, -3, -4, -5]


def test_static_codes_are_carried_through_and_the_others_stay_within_their_classes(env: ImaginationEnv, starts: Starts):
    rollout = env.imagine(random_policy, starts)
    parts = env.model.latents.split(rollout.z)
    assert torch.equal(parts["mission"], parts["mission"][:, :1].expand_as(parts["mission"]))
    for block in env.model.latents.blocks:
        assert (parts[block.key] < torch.tensor(block.classes)).all() and (parts[block.key] >= 0).all()


def test_rewards_and_continuations_are_the_models_at_the_state_that_is_reached(env: ImaginationEnv, starts: Starts):
    with torch.no_grad():
        for parameter in env.model.reward_head.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        rollout = env.imagine(random_policy, starts)
        torch.testing.assert_close(rollout.reward, env.model.reward(rollout.h[:, 1:]))
    assert rollout.reward.std() > 0 and torch.equal(rollout.cont, torch.full((6, HORIZON), 0.5))


def test_a_rollout_that_is_over_is_not_kept(env: ImaginationEnv, starts: Starts):
    """Nor one that something ended midway."""

    def watched(z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        assert env._memory is not None
        memories.append(weakref.ref(env._memory))
        if ended:
            raise KeyboardInterrupt
        return random_policy(z, h)

    for ended in (False, True):
        memories: list[weakref.ref[ImaginationCache]] = []
        with pytest.raises(KeyboardInterrupt) if ended else nullcontext():
            env.imagine(watched, starts)
        gc.collect()
        assert memories and memories[0]() is None and env._starts is None


def test_what_one_start_does_changes_no_other_although_they_share_a_context(env: ImaginationEnv, starts: Starts):
    def imagine(action_of_start_1: int) -> Rollout:
        actions = torch.tensor([1, action_of_start_1, 3, 4, 0, 2])
        env.set_seed(0)
        return env.imagine(lambda z, h: (actions, torch.zeros(6)), starts)

    one, other = imagine(2), imagine(4)
    rest = [0, 2, 3, 4, 5]
    assert torch.equal(one.h[rest], other.h[rest]) and torch.equal(one.z[rest], other.z[rest])
    assert not torch.equal(one.h[1, 1:], other.h[1, 1:])


def test_the_same_seed_dreams_the_same_and_another_does_not(env: ImaginationEnv, starts: Starts):
    def imagine(seed: int) -> Tensor:
        env.set_seed(seed)
        return env.imagine(lambda z, h: (torch.zeros(6, dtype=torch.int64), torch.zeros(6)), starts).z

    assert torch.equal(imagine(1), imagine(1)) and not torch.equal(imagine(1), imagine(2))


def test_no_gradient_leads_from_imagination_into_the_model(env: ImaginationEnv, starts: Starts):
    rollout = env.imagine(random_policy, starts)
    assert not any(part.requires_grad for part in (rollout.h, rollout.reward, rollout.cont))


@pytest.mark.parametrize("packable", [True, False])
def test_policies_are_asked_without_a_graph_whatever_the_weights_are(
    env: ImaginationEnv, starts: Starts, packable: bool, monkeypatch: pytest.MonkeyPatch
):
    if not packable:
        monkeypatch.setattr(imagination, "packable", lambda part: False)

    def policy(z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        assert not torch.is_grad_enabled() and not h.requires_grad
        assert torch.is_inference_mode_enabled() == (packable and _available())
        return random_policy(z, h)

    rollout = env.imagine(policy, starts)
    assert not rollout.h.is_inference() and not rollout.z.is_inference() and not rollout.log_prob.is_inference()


def test_a_terminated_state_is_drawn_from_the_predicted_continuation(env: ImaginationEnv, starts: Starts):
    with torch.no_grad():
        env.model.continue_head[-1].bias.fill_(-50.0)  # type: ignore[operator]
    assert env.rollout(1)["next", "terminated"].all()
    undying(env.model)
    assert not env.rollout(1)["next", "terminated"].any()


def test_no_step_goes_beyond_the_horizon(model: WorldModel, starts: Starts):
    env = ImaginationEnv(undying(model), 2, starts.step.numel())
    env.begin(starts)
    env.rollout(2)
    env.rollout(2)  # a reset begins anew
    with pytest.raises(RuntimeError, match="horizon of 2 steps; it cannot take another"):
        env.rollout(3)


def test_it_has_to_be_told_where_to_begin_and_by_how_many_starts(model: WorldModel, starts: Starts):
    with pytest.raises(RuntimeError, match="call begin"):
        ImaginationEnv(model, HORIZON, 6).reset()
    with pytest.raises(ValueError, match="imagination of 4 states was given 6 starts"):
        ImaginationEnv(model, HORIZON, 4).begin(starts)


def test_the_time_of_a_rollout_can_be_watched(env: ImaginationEnv, starts: Starts):
    watched: list[str] = []

    @contextmanager
    def watch() -> Iterator[None]:
        watched.append("in")
        yield
        watched.append("out")

    env.watch = watch
    env.imagine(random_policy, starts)
    assert watched == ["in", "out"]


def test_a_policy_sees_the_history_before_a_state_and_none_where_an_episode_starts():
    h = torch.arange(1.0, 7).view(1, 6, 1)
    first = torch.tensor([[True, False, False, True, False, False]])
    assert previous_history(h, first)[0, :, 0].tolist() == [0, 1, 2, 0, 4, 5]
    cut = torch.tensor([[False] * 6])  # a slice from the middle of an episode
    assert previous_history(h, cut)[0, :, 0].tolist() == [0, 1, 2, 3, 4, 5]


def test_policies_see_the_history_and_what_texts_point_at_now():
    """The first D numbers of the view are the history, which alone foretells rewards; the rest belongs to the present codes."""
    torch.manual_seed(0)
    model = WorldModel(SPEC, tiny_config(text_heads=2)).eval()
    starts = starts_of(model)
    env = ImaginationEnv(model, HORIZON, starts.step.numel())
    assert model.view_width == 32 + 2 * (3 * 3 + 2 * 3), "two measures of a text, over the cells of a grid and of an image"
    rollout = env.imagine(random_policy, starts)
    assert rollout.h.shape[-1] == model.view_width
    history, pointed = rollout.h[..., :32], rollout.h[..., 32:]
    assert torch.equal(history[:, 0], starts.h.flatten(0, 1))
    assert torch.equal(pointed, model.embed_latent.similarities(rollout.z))
    assert torch.equal(rollout.reward, model.reward(history[:, 1:]))
    env.begin(starts)
    check_env_specs(env)
