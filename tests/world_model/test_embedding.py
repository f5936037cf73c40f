"""One vector of a latent state: the same however it is worked out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from world_model.embedding import FEW, MANY, BlockEmbedding, CrossModalAttention, LatentEmbedding
from world_model.latents import LatentBlock, LatentSpec

SPEC = LatentSpec(
    (
        LatentBlock("view", "grid", (5,) * 6, layout=(2, 3)),
        LatentBlock("facing", "categorical", (4, 2)),
        LatentBlock("speed", "vector", (7, 7), learned=True, ordered=True),
        LatentBlock("mission", "text", (9, 9), static=True),
    )
)


def embedding(text_heads: int = 0, attention_heads: int = 0) -> LatentEmbedding:
    torch.manual_seed(0)
    found = LatentEmbedding(SPEC, 8, 16, text_heads, attention_heads)
    for parameter in found.parameters():
        nn.init.normal_(parameter, std=0.3)
    return found


def states(count: int) -> Tensor:
    classes = torch.tensor([c for block in SPEC.blocks for c in block.classes])
    return (torch.rand(count, len(classes), generator=torch.Generator().manual_seed(1)) * classes).long()


@pytest.mark.parametrize("modalities", [1, 3, FEW, FEW + 1])
def test_the_modalities_attend_to_each_other_as_pytorchs_own_attention_has_it(modalities: int):
    torch.manual_seed(0)
    ours, x = CrossModalAttention(modalities, 32, 2), torch.randn(4, 5, modalities, 32)
    assert ours.many == (modalities > FEW)
    assert torch.allclose(ours(x), x.sum(-2)), "it starts by changing nothing"
    for parameter in ours.parameters():
        nn.init.normal_(parameter, std=0.3)
    with torch.no_grad():
        tokens = ours.down(ours.norm(x + ours.name)).flatten(0, 1)
        attended = x + ours.up(ours.attend(tokens, tokens, tokens)[0]).view_as(x)
        assert torch.allclose(ours(x), attended.sum(-2), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("changes", [{}, {"attention_heads": 2}, {"text_heads": 1}], ids=str)
def test_many_states_are_looked_up_and_say_what_few_do_with_the_same_gradients(changes: dict[str, int], monkeypatch):
    model, z = embedding(**changes), states(2 * MANY * 9 // 8)

    def worked_out() -> list[Tensor]:
        model.zero_grad()
        found = model(z)
        found.square().sum().backward()
        return [found.detach(), *(parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None)]

    looked_up, look_up = list[int](), BlockEmbedding.look_up

    def noted(self: BlockEmbedding, codes: Tensor, rows: Tensor) -> Tensor:
        looked_up.append(len(codes))
        return look_up(self, codes, rows)

    monkeypatch.setattr(BlockEmbedding, "look_up", noted)
    by_rows = worked_out()
    assert looked_up == [len(z)] * 2, "the view and the mission"
    assert torch.allclose(model(z[:3]), by_rows[0][:3], rtol=1e-4, atol=1e-4), "three are too few for it"
    assert len(looked_up) == 2
    monkeypatch.setattr(BlockEmbedding, "looks_up", lambda self, z: False)
    for one, other in zip(by_rows, worked_out(), strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-4)


def test_what_lasts_of_episodes_is_not_worked_out_again_and_changes_nothing():
    model, z = embedding(attention_heads=2), states(3)
    lasting = model.lasting(z)
    assert set(lasting.parts) == {"mission"}, "it stays as it is"
    assert {key: tuple(rows.shape) for key, rows in lasting.rows.items()} == {"view": (6 * 5, 16)}
    later = states(6)[3:]
    later[:, -2:] = z[:, -2:]
    assert torch.allclose(model(later, lasting=lasting), model(later), rtol=1e-4, atol=1e-4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not model.lasting(z).rows, "half precision has its matrix products"
    one = model.lasting(z[0])
    assert torch.allclose(model(z[0], lasting=one), model(z)[0], rtol=1e-4, atol=1e-4), "of no batch shape, too"
