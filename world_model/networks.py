"""Small building blocks shared by encoders, heads and policies."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from world_model.latents import LatentBlock, LatentSpec


def mlp(sizes: Sequence[int], zero_last: bool = False) -> nn.Sequential:
    """Linear layers with RMSNorm and SiLU between them; the last is plain, and zero-initialised on request."""
    layers: list[nn.Module] = []
    for index, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        layers.append(nn.Linear(fan_in, fan_out))
        if index < len(sizes) - 2:
            layers += [nn.RMSNorm(fan_out), nn.SiLU()]
    if zero_last:
        last = layers[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    return nn.Sequential(*layers)


class BlockEmbedding(nn.Module):
    """One block's codes (..., groups), or soft one-hots (..., groups, C), -> (..., groups, width)."""

    offsets: Tensor

    def __init__(self, block: LatentBlock, width: int) -> None:
        super().__init__()
        rows = block.max_classes if block.shared else sum(block.classes)
        self.table = nn.Embedding(rows, width)
        nn.init.normal_(self.table.weight, std=1.0)
        offsets = [0] * block.groups
        if not block.shared:
            for index in range(1, block.groups):
                offsets[index] = offsets[index - 1] + block.classes[index - 1]
        self.register_buffer("offsets", torch.tensor(offsets), persistent=False)

    def forward(self, codes: Tensor) -> Tensor:
        return self.table(codes + self.offsets)

    def soft(self, one_hot: Tensor) -> Tensor:
        """The same from one-hots (..., groups, C) that carry gradients; groups of equal size only."""
        table = self.table.weight.view(one_hot.shape[-2], one_hot.shape[-1], -1)  # (groups, C, width)
        return torch.einsum("...gc,gcw->...gw", one_hot, table)


class LatentEmbedding(nn.Module):
    """A latent state z (..., G) -> one feature vector (..., out)."""

    def __init__(self, spec: LatentSpec, symbol_width: int, out: int) -> None:
        super().__init__()
        self.spec = spec
        self.tables = nn.ModuleDict({block.key.replace(".", "/"): BlockEmbedding(block, symbol_width) for block in spec.blocks})
        self.project = nn.ModuleDict(
            {block.key.replace(".", "/"): nn.Linear(block.groups * symbol_width, out) for block in spec.blocks}
        )

    def forward(self, z: Tensor, soft: dict[str, Tensor] | None = None) -> Tensor:
        """`soft` holds straight-through one-hots of learned blocks, used in place of their codes."""
        total: Tensor | int = 0
        for key, codes in self.spec.split(z).items():
            name = key.replace(".", "/")
            table = self.tables[name]
            assert isinstance(table, BlockEmbedding)
            cells = table.soft(soft[key]) if soft and key in soft else table(codes)  # (..., groups, width)
            total = total + self.project[name](cells.flatten(-2))
        assert isinstance(total, Tensor)
        return total
