"""Weights laid out anew: the same products, for as long as it is asked for."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from world_model.packing import SMALLEST, _available, packed

pytestmark = pytest.mark.skipif(not _available(), reason="this PyTorch has no oneDNN")


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(128, 512), nn.SiLU(), nn.Linear(512, 256, bias=False), nn.SiLU(), nn.Linear(256, 8))


def changed(model: nn.Module) -> list[bool]:
    return ["forward" in vars(layer) for layer in model if isinstance(layer, nn.Linear)]  # type: ignore[attr-defined]


@torch.no_grad()
def test_large_layers_multiply_alike_and_are_themselves_again_afterwards():
    model, x = net(), torch.randn(3, 64, 130)[..., 1:-1]  # no contiguous rows
    plain = model(x)
    with packed([model], 192):
        assert changed(model) == [True, True, False] and SMALLEST > 256 * 8
        assert torch.allclose(model(x), plain, atol=1e-5) and torch.allclose(model(x[0, 0]), plain[0, 0], atol=1e-5)
    assert changed(model) == [False] * 3 and torch.equal(model(x), plain)
    with pytest.raises(KeyError), packed([model], 192):
        raise KeyError
    assert changed(model) == [False] * 3


def test_weights_are_those_of_the_time_when_they_were_packed_and_new_ones_the_next_time():
    model, x = net(), torch.randn(4, 128)
    with torch.no_grad():
        with packed([model], 4):
            before = model(x)
        model[0].weight.mul_(2.0)  # type: ignore[operator]
        with packed([model], 4):
            assert torch.allclose(model(x), net_of(model)(x), atol=1e-5) and not torch.allclose(model(x), before, atol=1e-3)


def net_of(model: nn.Module) -> nn.Module:
    again = net()
    again.load_state_dict(model.state_dict())
    return again


def test_nothing_is_changed_where_gradients_or_another_precision_are_wanted():
    model = net()
    with packed([model], 4):
        assert changed(model) == [False] * 3
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16), packed([model], 4):
        assert changed(model) == [False] * 3
    with torch.no_grad(), packed([model.bfloat16()], 4):
        assert changed(model) == [False] * 3
    compiled = net()
    compiled[1].compile(backend="eager")
    with torch.no_grad(), packed([compiled], 4):
        assert changed(compiled) == [False] * 3, "it would be compiled again and again"
    model = net()
    next(model.parameters()).ds_id = 0  # type: ignore[attr-defined]  # as ZeRO-3 marks a weight that is partitioned
    other = net()
    with torch.no_grad(), packed([model, other], 4):
        assert changed(model) == [False] * 3 and changed(other) == [True, True, False]


@torch.no_grad()
@pytest.mark.parametrize("eps", [None, 0.5])
def test_norms_are_those_of_pytorch_and_of_nothing_nothing(eps: float | None):
    norm, x = nn.RMSNorm(24, eps), torch.randn(3, 5, 24)
    nn.init.normal_(norm.weight)
    plain = norm(x)
    with packed([nn.Sequential(norm)], 15):
        assert torch.allclose(norm(x), plain, atol=1e-5) and not norm(torch.zeros(2, 24)).any()
        assert "forward" in vars(norm)
    assert torch.equal(norm(x), plain)
