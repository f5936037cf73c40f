"""The model's losses: which there are, what each looks at, and that they can be learned."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.world_model.conftest import SPEC, nothing_seen, random_observations, random_sequences, tiny_config
from world_model.batch import Sequences
from world_model.config import LossScales
from world_model.model import WorldModel

LOSSES = {"motion/image", "prior/image", "prior/pose.0", "prior/speed", "prior/camera", "reconstruction/speed", "reward", "cont"}


def losses(model: WorldModel, batch: Sequences) -> dict[str, Tensor]:
    with torch.no_grad():
        return model(batch).losses


def changed(model: WorldModel, batch: Sequences, t: int, part: str) -> Sequences:
    """The batch with another observation, action or reward at step `t` of every row."""
    if part in ("action", "reward"):
        other = getattr(batch, part).clone()
        other[:, t] = (other[:, t] + 1) % 5
        return replace(batch, **{part: other})
    obs = {key: value.clone() for key, value in batch.obs.items()}
    obs[part][:, t] = (obs[part][:, t] + 1) % (2 if part == "pose.0" else 3)
    return replace(batch, obs=obs)


def ended(batch: Sequences, t: int, how: str) -> Sequences:
    """The batch with an end of every row's episode at step `t`, and the next one's first step after it."""
    flags = {how: getattr(batch, how).clone(), "first": batch.first.clone()}
    flags[how][:, t] = True
    flags["first"][:, t + 1 : t + 2] = True
    return replace(batch, **flags)


def biased(model: WorldModel, number: float) -> WorldModel:
    """Says everywhere that an episode goes on with log-odds `number`."""
    with torch.no_grad():
        model.continue_head[-1].bias.fill_(number)  # type: ignore[operator]
    return model


def randomised(model: WorldModel) -> WorldModel:
    """Heads that start at zero would hide that their loss depends on anything."""
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.eq(0).all():
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def test_there_is_a_prior_for_what_changes_a_reconstruction_for_what_is_learned_and_nothing_for_what_is_static(model):
    output = model(random_sequences(model, 2, 6))
    assert set(output.losses) == LOSSES
    assert all(value.shape == () and torch.isfinite(value) and not value.requires_grad for value in output.losses.values())
    accuracies = {"changed_accuracy/image", "changed_accuracy/pose.0", "changed_accuracy/speed", "changed_accuracy/camera"}
    assert set(output.metrics) == accuracies | {"unknown/image", "unknown/mission"}


def test_the_share_of_symbols_that_found_no_room_is_told():
    torch.manual_seed(0)
    model = WorldModel(SPEC, tiny_config(table_size=4, text_table_size=3))  # of nine kinds of cells, and of red, ball and no word
    batch = random_sequences(model, 4, 8)
    metrics = model(batch).metrics
    assert metrics["unknown/image"] == (batch.obs["image"] == 0).float().mean() > 0.5
    assert metrics["unknown/mission"] == pytest.approx(1 / 3)


def test_the_total_is_the_sum_of_the_named_losses_by_their_scales(model):
    batch = random_sequences(model, 2, 6)
    model.config.losses = LossScales(motion=4.0, prior=2.0, reconstruction=0.5, reward=3.0, cont=0.0)
    output = model(batch)
    named = output.losses
    expected = 2 * sum(named[name] for name in named if name.startswith("prior/")) + 0.5 * named["reconstruction/speed"]
    torch.testing.assert_close(output.loss.detach(), expected + 3 * named["reward"] + 4 * named["motion/image"])
    assert {field.name for field in fields(LossScales)} == {name.split("/")[0] for name in LOSSES} | {"ensemble"}


def test_a_new_model_finds_both_ways_to_go_on_equally_likely_and_expects_no_reward(model):
    batch = random_sequences(model, 2, 6)
    output = model(batch)
    assert output.losses["cont"].item() == pytest.approx(math.log(2))
    assert model.cont(output.h).tolist() == [[0.5] * 6] * 2
    assert model.reward(output.h).eq(0).all()


@pytest.mark.parametrize("how", ["terminated", "truncated"])
@pytest.mark.parametrize("part", ["image", "pose.0", "speed", "reward"])
def test_what_is_observed_after_an_end_changes_no_loss_of_the_step_before(model, how: str, part: str):
    batch = random_sequences(randomised(model), 3, 7)
    cut = ended(batch, 5, how)  # so that step 6 is the first of another episode, of which nothing else is seen
    before, after = losses(model, cut), losses(model, changed(model, cut, 6, part))
    of_steps = LOSSES - {"reconstruction/speed"}  # every observation is reconstructed, the last one too
    assert {name for name in of_steps if before[name] != after[name]} == set()
    assert losses(model, batch) != losses(model, changed(model, batch, 6, part)), "without an end it does"


@pytest.mark.parametrize("how", ["terminated", "truncated"])
def test_the_action_at_an_episodes_last_step_changes_nothing(model, how: str):
    cut = ended(random_sequences(randomised(model), 3, 7), 3, how)
    assert losses(model, cut) == losses(model, changed(model, cut, 3, "action"))
    assert losses(model, cut) != losses(model, changed(model, cut, 2, "action"))


def test_the_reward_at_an_episodes_first_step_changes_nothing_and_that_at_its_last_does(model):
    cut = ended(random_sequences(randomised(model), 3, 7), 3, "terminated")
    for first in (0, 4):
        assert losses(model, cut) == losses(model, changed(model, cut, first, "reward"))
    assert losses(model, cut)["reward"] != losses(model, changed(model, cut, 3, "reward"))["reward"]


def test_the_last_observation_of_an_episode_is_predicted_like_any_other(model):
    cut = ended(random_sequences(randomised(model), 3, 7), 3, "terminated")
    assert losses(model, cut)["prior/image"] != losses(model, changed(model, cut, 3, "image"))["prior/image"]


def test_termination_is_an_end_to_be_predicted_and_truncation_is_not(model):
    """Three steps, of which only the one into step 1 exists; the model says 'goes on' with log-odds 2."""
    batch = random_sequences(biased(model, 2.0), 4, 3)
    assert losses(model, ended(batch, 1, "terminated"))["cont"].item() == pytest.approx(math.log1p(math.e**2), rel=1e-4)
    assert losses(model, ended(batch, 1, "truncated"))["cont"].item() == pytest.approx(math.log1p(math.e**-2), rel=1e-4)


def test_losses_are_means_over_the_steps_that_exist(model):
    """Row 0 terminates at step 2 of 5 (steps 0-1, 1-2, 3-4 exist), row 1 does not (four exist): one end in seven."""
    batch = random_sequences(biased(model, 2.0), 2, 5, ends={0: 2})
    expected = (6 * math.log1p(math.e**-2) + math.log1p(math.e**2)) / 7
    assert losses(model, batch)["cont"].item() == pytest.approx(expected, rel=1e-4)


def test_a_batch_without_a_single_step_has_losses_of_zero_and_no_nan(model):
    batch = random_sequences(model, 2, 2)
    batch.terminated[:, 0] = True
    batch.first[:, 1] = True
    found = losses(model, batch)
    assert all(found[name] == 0 for name in LOSSES - {"reconstruction/speed"}) and torch.isfinite(found["reconstruction/speed"])


def test_priors_are_cross_entropies_summed_over_the_groups(model, monkeypatch: pytest.MonkeyPatch):
    """Equal logits for every class of a group: pose has groups of 4 and 2, so ln 4 + ln 2 a step."""
    batch = random_sequences(model, 2, 6)
    real = model.prior_logits

    def equal(*args: Any) -> dict[str, Tensor]:
        return {key: torch.where(logits < -1e8, logits, torch.zeros(())) for key, logits in real(*args).items()}

    monkeypatch.setattr(model, "prior_logits", equal)
    found = losses(model, batch)
    assert found["prior/pose.0"].item() == pytest.approx(math.log(4) + math.log(2), rel=1e-5)
    assert found["prior/speed"].item() == pytest.approx(4 * math.log(4), rel=1e-5)
    assert found["prior/image"].item() == pytest.approx(9 * math.log(model.modality("image").classes_in_use), rel=1e-5)


def test_accuracy_is_taken_over_what_changed_in_steps_that_exist(model, monkeypatch: pytest.MonkeyPatch):
    batch = random_sequences(model, 1, 4)
    pose = torch.tensor([[[0, 0], [1, 0], [1, 1], [3, 1]]])  # changes: one, one, one
    batch = ended(replace(batch, obs=batch.obs | {"pose.0": pose}), 2, "truncated")  # the last one is no step
    real = model.prior_logits

    def answers(right: Tensor) -> Any:
        return lambda *args: real(*args) | {"pose.0": 9.0 * F.one_hot(right, 4)}

    monkeypatch.setattr(model, "prior_logits", answers(pose[:, :-1]))
    assert model(batch).metrics["changed_accuracy/pose.0"] == 0, "saying that nothing changes is never right"
    monkeypatch.setattr(model, "prior_logits", answers(torch.tensor([[[1, 1], [0, 1], [0, 0]]])))
    assert model(batch).metrics["changed_accuracy/pose.0"] == 1, "what did not change does not count"
    monkeypatch.setattr(model, "prior_logits", answers(torch.tensor([[[1, 0], [1, 0], [3, 1]]])))
    assert model(batch).metrics["changed_accuracy/pose.0"] == 0.5


def test_every_weight_is_trained_by_some_loss(model):
    model(random_sequences(randomised(model), 4, 8, ends={0: 3})).loss.backward()
    idle = [name for name, parameter in model.named_parameters() if parameter.grad is None or parameter.grad.eq(0).all()]
    assert idle == []


def test_codes_are_what_was_observed_and_learned_ones_come_from_their_encoder(model):
    batch = random_sequences(model, 2, 6)
    output = model(batch)
    parts = model.latents.split(output.z)
    for key in ("image", "pose.0", "mission"):
        assert torch.equal(parts[key], batch.obs[key])
    assert torch.equal(parts["speed"], model.modality("speed").encode(batch.obs["speed"])[0])
    assert not output.z.requires_grad and not output.h.requires_grad


def test_static_blocks_are_carried_and_never_drawn(model):
    z = model(random_sequences(model, 2, 6)).z[:, 0]
    h = torch.randn(2, 32)
    for noise in (0.0, 0.5, 0.999):
        drawn = model.sample_next(h, z, torch.full(z.shape, noise), nothing_seen(model, 2))
        part = model.latents.slices["mission"]
        assert torch.equal(drawn[:, part], z[:, part])
    assert "mission" not in model.prior_logits(h, z, nothing_seen(model, 2))


def test_next_codes_are_drawn_from_the_prior(model):
    z = model(random_sequences(randomised(model), 1, 6)).z[:, 0]
    h = torch.randn(1, 32)
    n = 4000
    noise = ((torch.arange(n) + 0.5) / n).unsqueeze(-1).expand(n, z.shape[-1])
    with torch.no_grad():
        drawn = model.latents.split(model.sample_next(h.expand(n, -1), z.expand(n, -1), noise, nothing_seen(model, n)))
        for key, logits in model.prior_logits(h, z, nothing_seen(model, 1)).items():
            probability = logits[0].softmax(-1)  # (groups, C)
            for group in range(probability.shape[0]):
                share = drawn[key][:, group].bincount(minlength=probability.shape[1]) / n
                assert (share - probability[group]).abs().max() <= 2 / n, (key, group)


def test_observations_are_tokenised_by_key_in_the_specs_order_and_every_key_is_needed(model):
    obs = random_observations((2, 3))
    tokens = model.tokenize(dict(reversed(obs.items())))
    assert list(tokens) == [leaf.key for leaf in SPEC.observations]
    with pytest.raises(KeyError, match="speed"):
        model.tokenize({key: value for key, value in obs.items() if key != "speed"})


def test_weights_loaded_into_a_new_model_give_the_same_losses():
    torch.manual_seed(0)
    model, loaded = WorldModel(SPEC, tiny_config()), WorldModel(SPEC, tiny_config())
    batch = random_sequences(model, 2, 6)
    assert losses(model, batch) != losses(loaded, batch)
    loaded.load_state_dict(model.state_dict())
    assert losses(model, batch) == losses(loaded, batch)


def test_a_small_batch_can_be_learned_by_heart():
    torch.manual_seed(0)
    model = WorldModel(SPEC, tiny_config(width=64, hidden=64, cell_width=16, lr=3e-3))
    batch = random_sequences(model, 4, 8, ends={0: 3, 2: 5})
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    before = losses(model, batch)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, total_iters=500)  # or the codes never come to rest
    for _ in range(500):
        optimizer.zero_grad()
        model(batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        schedule.step()
    after = losses(model, batch)
    for name in LOSSES:  # these views do not move: what is not said by chance of motions, test_mapping tests on real ones
        left = 0.6 if name.startswith("motion") else 0.25
        assert after[name] < left * before[name], (name, before[name], after[name])
    output = model(batch)
    assert all(value > 0.9 for name, value in output.metrics.items() if name.startswith("changed_accuracy")), output.metrics
    steps = ~batch.last[:, :-1]
    assert (model.reward(output.h)[:, :-1] - batch.reward[:, 1:])[steps].abs().max() < 0.3
    assert ((model.cont(output.h)[:, :-1] > 0.5) == ~batch.terminated[:, 1:])[steps].all()
