"""The rollout's decoder takes the decoder's steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.world_model.conftest import SPEC, random_sequences, tiny_config
from world_model import imagination
from world_model.decoding import RolloutDecoder
from world_model.imagination import ImaginationCache, ImaginationEnv
from world_model.model import WorldModel
from world_model.packing import _available
from world_model.starts import Starts, choose_starts

pytestmark = pytest.mark.skipif(not _available(), reason="this PyTorch has no oneDNN")
HORIZON = 5


def trained() -> WorldModel:
    """A model whose norms have gains of their own."""
    torch.manual_seed(0)
    model = WorldModel(SPEC, tiny_config(window=4)).eval()
    with torch.no_grad():
        for parameter in [*model.dynamics.parameters(), *model.embed_latent.parameters()]:
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def off(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())


def starts_of(model: WorldModel) -> Starts:
    batch = random_sequences(model, 2, 8, ends={0: 3})
    with torch.no_grad():
        return choose_starts(model(batch), batch, 3, torch.Generator().manual_seed(0))


@torch.no_grad()
def test_every_step_is_that_of_the_decoder_of_mixed_contexts_that_drop_out_of_the_window():
    model = trained()
    starts, dynamics = starts_of(model), model.dynamics
    ours, plain = (ImaginationCache(starts, HORIZON, model.config.window) for _ in range(2))
    decoder = RolloutDecoder(dynamics, starts.positions, ours.mask)
    for k in range(HORIZON):
        tokens = torch.randn(*starts.step.shape, model.config.width)
        h = decoder.step(k, tokens, ours)
        assert off(h, dynamics(tokens, plain.mask_at(k), starts.positions + k, plain)) < 1e-4
        for cache in (ours, plain):
            cache.advance()
        written = ours.filled
        for mine, its in zip(ours.keys + ours.values, plain.keys + plain.values, strict=True):
            assert off(mine[:, :, :written], its[:, :, :written]) < 1e-4


def test_rollouts_go_by_it_and_are_those_of_the_decoder_itself(monkeypatch):
    model = trained()
    starts = starts_of(model)
    env = ImaginationEnv(model, HORIZON, starts.step.numel())

    def policy(z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        return z.sum(-1) % 5, torch.zeros(len(z))

    env.set_seed(3)
    made: list[RolloutDecoder] = []

    def make(*given: Any) -> RolloutDecoder:
        made.append(RolloutDecoder(*given))
        return made[-1]

    monkeypatch.setattr(imagination, "RolloutDecoder", make)
    rollout = env.imagine(policy, starts)
    assert len(made) == 1
    monkeypatch.setattr(imagination, "packable", lambda part: False)
    env.set_seed(3)
    plain = env.imagine(policy, starts)
    assert len(made) == 1, "none was made for this one"
    assert torch.equal(rollout.z, plain.z) and off(rollout.h, plain.h) < 1e-4


@torch.no_grad()
def test_tokens_of_zeros_are_no_exception():
    model = trained()
    starts, dynamics = starts_of(model), model.dynamics
    ours, plain = (ImaginationCache(starts, HORIZON, model.config.window) for _ in range(2))
    tokens = torch.zeros(*starts.step.shape, model.config.width)
    h = RolloutDecoder(dynamics, starts.positions, ours.mask).step(0, tokens, ours)
    assert off(h, dynamics(tokens, plain.mask_at(0), starts.positions, plain)) < 1e-4
