"""Small building blocks shared by encoders, heads and policies."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from world_model.latents import LatentBlock, LatentSpec, code_levels, module_name


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
    """One block's codes (..., groups) -> (..., groups, width)."""

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
        self.classes = block.max_classes
        self.direction = nn.Parameter(torch.randn(block.groups, width)) if block.ordered else None
        if block.ordered:  # start as a straight line through the levels: what is learned of one level holds for its neighbours
            nn.init.zeros_(self.table.weight)

    def forward(self, codes: Tensor) -> Tensor:
        embedded = self.table(codes + self.offsets)
        if self.direction is None:
            return embedded
        return embedded + code_levels(codes, self.classes).unsqueeze(-1) * self.direction


class LatentEmbedding(nn.Module):
    """A latent state z (..., G) -> one feature vector (..., out)."""

    def __init__(self, spec: LatentSpec, symbol_width: int, out: int) -> None:
        super().__init__()
        self.spec = spec
        self.tables = nn.ModuleDict({module_name(block.key): BlockEmbedding(block, symbol_width) for block in spec.blocks})
        self.project = nn.ModuleDict(
            {module_name(block.key): nn.Linear(block.groups * symbol_width, out) for block in spec.blocks}
        )

    def forward(self, z: Tensor) -> Tensor:
        total: Tensor | int = 0
        for key, codes in self.spec.split(z).items():
            name = module_name(key)
            total = total + self.project[name](self.tables[name](codes).flatten(-2))
        assert isinstance(total, Tensor)
        return total
