"""The ensemble disagrees about what it has not seen, agrees on chance, and costs nothing where it is off."""

from __future__ import annotations

import pytest
import torch

from tests.world_model.conftest import SPEC, random_sequences, tiny_config
from world_model.ensemble import Ensemble
from world_model.imagination import ImaginationEnv
from world_model.model import WorldModel
from world_model.starts import choose_starts


def test_disagreement_is_the_heads_variance_in_variances_of_the_target():
    """Two heads that answer 1 and 3 in both features are a variance of 1 apart; targets 0 and 4 have a variance of 4."""
    ensemble = Ensemble(2, 3, 4, 2)
    for head, answer in zip(ensemble.heads, (1.0, 3.0), strict=True):
        torch.nn.init.zeros_(head[-1].weight)  # type: ignore[index]
        torch.nn.init.constant_(head[-1].bias, answer)  # type: ignore[index]
    h, target = torch.randn(1, 2, 3), torch.tensor([[[0.0, 0.0], [4.0, 4.0]]])
    assert ensemble.loss(ensemble(h), target).tolist() == [[10.0, 10.0]], "1 + 9, and 9 + 1"
    assert float(ensemble.scale) == 4.0
    assert ensemble.disagreement(ensemble(h)).tolist() == [[0.25, 0.25]]


def test_it_agrees_on_what_it_has_seen_chance_included_and_not_on_the_rest():
    torch.manual_seed(0)
    ensemble = Ensemble(5, 8, 32, 4)
    optimizer = torch.optim.Adam(ensemble.parameters(), lr=3e-3)
    seen, chance, never = torch.eye(8)[:3] * 3
    sure = torch.randn(4)
    for _ in range(600):
        outcome = torch.where(torch.rand(32, 1) < 0.5, torch.ones(4), -torch.ones(4))
        h = torch.cat([seen.expand(32, 8), chance.expand(32, 8)])
        loss = ensemble.loss(ensemble(h), torch.cat([sure.expand(32, 4), outcome])).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    known, noisy, unknown = ensemble.disagreement(ensemble(torch.stack([seen, chance, never]))).tolist()
    assert known < 0.01 and noisy < 0.05, "noise is no surprise for ever"
    assert unknown > 5 * noisy and unknown > 20 * known


def test_it_learns_beside_the_model_and_sends_nothing_into_it():
    torch.manual_seed(0)
    plain = WorldModel(SPEC, tiny_config())
    torch.manual_seed(0)
    model = WorldModel(SPEC, tiny_config(ensemble=3))
    batch = random_sequences(model, 2, 8, ends={0: 3})
    for leaf in SPEC.observations:  # the same tables and statistics in both
        plain.modality(leaf.key).load_state_dict(model.modality(leaf.key).state_dict())
    output, without = model(batch), plain(batch)
    assert output.losses["ensemble"] > 0 and output.metrics["disagreement"] > 0
    output.loss.backward()
    without.loss.backward()
    others = dict(plain.named_parameters())
    for name, parameter in model.named_parameters():
        if name.startswith("ensemble."):
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0
        else:
            torch.testing.assert_close(parameter.grad, others[name].grad)
    assert "ensemble" not in without.losses and plain.ensemble is None


@pytest.mark.parametrize("heads", [0, 3])
def test_every_imagined_step_says_how_far_the_heads_are_apart(heads: int):
    torch.manual_seed(0)
    model = WorldModel(SPEC, tiny_config(ensemble=heads))
    batch = random_sequences(model, 2, 8)
    starts = choose_starts(model(batch), batch, 3)
    rollout = ImaginationEnv(model, 4, 6).imagine(lambda z, h: (torch.zeros(6).long(), torch.zeros(6)), starts)
    assert rollout.disagreement.shape == (6, 4) and not rollout.disagreement.requires_grad
    assert (rollout.disagreement > 0).all() if heads else (rollout.disagreement == 0).all()
