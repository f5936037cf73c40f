"""How the world model reads actions: one embedding a kind of action space."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from envs.spaces.specs import ActionSpec
from world_model.networks import mlp


class ChoicesEmbedding(nn.Module):
    """Several choices (..., n) -> the sum of their embeddings (..., width)."""

    offsets: Tensor

    def __init__(self, classes: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(sum(classes), width)
        nn.init.normal_(self.table.weight, std=len(classes) ** -0.5)
        offsets = torch.tensor((0, *classes[:-1])).cumsum(0)
        self.register_buffer("offsets", offsets, persistent=False)

    def forward(self, action: Tensor) -> Tensor:
        return self.table(action + self.offsets).sum(-2)


class NumbersEmbedding(nn.Module):
    """Numbers (..., n), clipped to -1 .. 1 as the environment's adapter does -> (..., width)."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.net = mlp([size, width, width])

    def forward(self, action: Tensor) -> Tensor:
        return self.net(action.clamp(-1, 1))


def make_action_embedding(spec: ActionSpec, width: int) -> nn.Module:
    """The embedding of the actions of `spec`: (..., *spec.shape) -> (..., width)."""
    if spec.kind == "discrete":
        return nn.Embedding(spec.size, width)
    if spec.kind == "multi_discrete":
        return ChoicesEmbedding(spec.classes, width)
    return NumbersEmbedding(spec.size, width)
