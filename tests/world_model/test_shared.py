"""The shared groups carry what the next codes have in common: outcomes that belong together come together."""

from __future__ import annotations

import math

import pytest
import torch

from envs.spaces.specs import ActionSpec, EnvSpec, ModalitySpec
from tests.world_model.conftest import SPEC, nothing_seen, random_sequences, tiny_config
from world_model.imagination import ImaginationEnv
from world_model.model import Sequences, WorldModel
from world_model.shared import balanced_kl, categorical_kl
from world_model.starts import Starts, choose_starts, previous_history

COINS = EnvSpec((ModalitySpec("coins", "categorical", (2,), "int64", classes=(2, 2)),), ActionSpec("discrete", 2))


def shared_model(**changes: object) -> WorldModel:
    torch.manual_seed(0)
    return WorldModel(SPEC, tiny_config(shared_groups=2, shared_classes=4, **changes))


def distribution(*probabilities: list[float]) -> torch.Tensor:
    return torch.tensor(probabilities).log()


def test_the_divergence_is_summed_over_the_groups():
    """0.75 ln(0.75 / 0.5) + 0.25 ln(0.25 / 0.5) = 0.1308 nats in the first group, none in the second."""
    q, p = distribution([0.75, 0.25], [0.2, 0.8]), distribution([0.5, 0.5], [0.2, 0.8])
    assert categorical_kl(q, p).item() == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5), rel=1e-5)
    assert categorical_kl(p, p).item() == pytest.approx(0, abs=1e-7)


def test_free_nats_are_free_for_each_step_and_for_the_posterior_alone():
    """Two steps, of 0.1308 and 0.5108 nats; 0.2 are free: of the first step nothing draws the posterior to the prior."""
    q = torch.stack([distribution([0.75, 0.25]), distribution([0.9, 0.1])]).requires_grad_()
    p = distribution([0.5, 0.5]).expand(2, 1, 2).clone().requires_grad_()
    one, two = 0.75 * math.log(1.5) + 0.25 * math.log(0.5), 0.9 * math.log(1.8) + 0.1 * math.log(0.2)
    loss = balanced_kl(q, p, rep=0.5, free=0.2)
    assert loss.tolist() == pytest.approx([one + 0.5 * 0.2, two + 0.5 * two], rel=1e-4)
    loss.sum().backward()
    assert q.grad is not None and p.grad is not None
    assert q.grad[0].eq(0).all() and q.grad[1].ne(0).any(), "a batch's mean, 0.25, would have freed neither or both"
    torch.testing.assert_close(p.grad, -q.detach().exp(), msg="the prior follows at full weight, free nats or not")


def tosses(batch: int, length: int, generator: torch.Generator) -> Sequences:
    """Both coins show the same side, tossed anew at every step."""
    side = torch.randint(2, (batch, length, 1), generator=generator)
    first = torch.zeros(batch, length, dtype=torch.bool)
    first[:, 0] = True
    never, nothing = torch.zeros_like(first), torch.zeros(batch, length)
    return Sequences({"coins": side.expand(-1, -1, 2)}, nothing.long(), nothing, first, never, never)


@pytest.mark.parametrize(("groups", "classes"), [(0, 2), (4, 16)])
def test_cells_that_flip_together_are_imagined_together_only_with_shared_groups(groups: int, classes: int):
    torch.manual_seed(0)
    model = WorldModel(COINS, tiny_config(layers=1, shared_groups=groups, shared_classes=classes))
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, total_iters=200)
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        optimizer.zero_grad()
        model(tosses(16, 8, generator)).loss.backward()
        optimizer.step()
        schedule.step()
    model.eval()
    batch = tosses(64, 8, generator)
    with torch.no_grad():
        output = model(batch)
        starts = choose_starts(output, batch, 4)
    env = ImaginationEnv(model, 4, 256)
    env.set_seed(0)
    imagined = env.imagine(lambda z, h: (torch.zeros(256, dtype=torch.int64), torch.zeros(256)), starts).z[:, 1:]
    mixed = (imagined[..., 0] != imagined[..., 1]).float().mean().item()
    heads = imagined.float().mean().item()
    assert 0.4 < heads < 0.6, "both sides come as often as in truth"
    nats = output.losses["prior/coins"].item()
    if groups:
        assert mixed < 0.1
        assert nats == pytest.approx(math.log(2), abs=0.2), "one toss: held-out losses do not know how it falls"
    else:
        assert 0.4 < mixed < 0.6
        assert nats == pytest.approx(2 * math.log(2), abs=0.05), "two tosses"


def test_its_posterior_prior_and_embedding_learn_and_the_state_stays_as_it_is():
    model = shared_model().train()
    batch = random_sequences(model, 4, 8, ends={0: 3})
    output = model(batch)
    assert output.z.shape[-1] == model.latents.groups == WorldModel(SPEC, tiny_config()).latents.groups
    assert output.losses["shared"] > 0 and torch.isfinite(output.metrics["shared_nats"])
    output.loss.backward()
    assert model.shared is not None
    for name, parameter in model.shared.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    assert "shared" in model.parts()


def test_without_them_a_model_is_as_it_was():
    torch.manual_seed(0)
    model = WorldModel(SPEC, tiny_config())
    assert model.shared is None and model.noise_width == model.latents.groups
    output = model(random_sequences(model, 2, 6))
    assert "shared" not in output.losses and "shared_nats" not in output.metrics
    assert not [name for name in model.state_dict() if name.startswith("shared")]


def test_held_out_losses_and_accuracies_do_not_know_what_comes_and_are_the_same_every_time():
    model = shared_model().eval()
    batch = random_sequences(model, 3, 7)
    with torch.no_grad():
        model.shared.link.weight.normal_()  # type: ignore[union-attr]
        before = model(batch)
        assert model(batch).losses == before.losses
        for parameter in model.shared.posterior.parameters():  # type: ignore[union-attr]
            parameter.normal_()
        after = model(batch)
    changed = {name for name in before.losses if before.losses[name] != after.losses[name]}
    assert changed == {"shared"}
    assert {name for name in before.metrics if before.metrics[name] != after.metrics[name]} == {"shared_nats"}


def test_the_likelihood_is_the_mean_over_what_the_shared_groups_may_be():
    """Of 8 drawn values of c some give a code with probability p_i: its surprise is -ln of their mean."""
    model = shared_model().eval()
    batch = random_sequences(model, 2, 4)
    with torch.no_grad():
        output = model(batch)
        h, z, after = output.h[0, :1], output.z[0, :1], output.z[0, 1:2]
        recalled = nothing_seen(model, 1)
        found = model.surprise(h, z, after, recalled)["pose.0"]
        likelihoods = []
        for c in model.shared.draws(h, 8):  # type: ignore[union-attr]
            probability = model.prior_logits(h, z, recalled, c)["pose.0"].softmax(-1)  # (1, 2, 4)
            pose = model.latents.split(after)["pose.0"]
            likelihoods.append(probability.gather(-1, pose.unsqueeze(-1)).prod())
    assert len(set(map(float, likelihoods))) > 1
    assert found.item() == pytest.approx(-math.log(torch.stack(likelihoods).mean().item()), rel=1e-4)


def test_imagined_steps_equal_a_full_pass_over_what_was_imagined():
    model = shared_model().eval()
    batch = random_sequences(model, 2, 8, ends={0: 3})
    with torch.no_grad():
        output = model(batch)
        z, h, context = model.prefill({key: x[:, :4] for key, x in batch.obs.items()}, batch.action[:, :4], batch.first[:, :4])
    starts = Starts(
        torch.full((2, 1), 3), z[:, 3:4], previous_history(h, batch.first[:, :4])[:, 3:4], batch.first[:, :4], context
    )
    actions = iter([batch.action[:, 3], batch.action[:, 4], batch.action[:, 5]])
    rollout = ImaginationEnv(model, 3, 2).imagine(lambda z, h: (next(actions), torch.zeros(2)), starts)
    whole = torch.cat([output.z[:, :3], rollout.z[:, :3]], 1)
    with torch.no_grad():
        first = batch.first[:, :6].clone()
        first[:, 4:] = False
        full, _ = model._history(whole, batch.action[:, :6], first)
    row = 1  # row 0 begins a new episode at its start
    torch.testing.assert_close(rollout.h[row, 1:], full[row, 3:], atol=1e-4, rtol=1e-4)


def test_the_same_noise_imagines_the_same_and_the_likeliest_needs_none():
    model = shared_model().eval()
    z = model(random_sequences(model, 2, 6)).z[:, 0]
    h = torch.randn(2, 32)
    noise = torch.rand(2, model.noise_width)
    recalled = nothing_seen(model, 2)
    assert torch.equal(model.sample_next(h, z, noise, recalled), model.sample_next(h, z, noise, recalled))
    c = model.shared.imagine(h)  # type: ignore[union-attr]
    likeliest = model.prior_logits(h, z, recalled, c)["image"].argmax(-1)
    assert torch.equal(model.sample_next(h, z, None, recalled)[:, :9], likeliest)


def test_weights_loaded_into_a_new_model_give_the_same_losses():
    model, loaded = shared_model().eval(), shared_model().eval()
    for parameter in loaded.parameters():
        torch.nn.init.normal_(parameter)
    batch = random_sequences(model, 2, 6)
    with torch.no_grad():
        before = loaded(batch).losses
        loaded.load_state_dict(model.state_dict())
        assert model(batch).losses == loaded(batch).losses != before
