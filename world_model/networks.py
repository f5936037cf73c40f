"""Small building blocks shared by encoders, heads and policies."""

from __future__ import annotations

import math
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


class TextGuide(nn.Module):
    """Text points at the cells it speaks of: words (..., words, width), cells (..., cells, width) -> features (..., out).

    Queries come from the whole text and keys from what a cell shows alone, so that "red ball" is looked for in the same way in
    every place. The features are the similarities themselves, place by place: a softmax over the cells, as attention has it,
    starts near uniform, and learned more slowly in trials which words mean which symbols.
    """

    def __init__(self, words: int, cells: int, width: int, heads: int, out: int) -> None:
        super().__init__()
        self.heads, self.width = heads, width
        self.query = nn.Linear(words * width, heads * width)
        self.key = nn.Linear(width, heads * width)
        self.places = nn.Linear(heads * cells, out)

    def similarity(self, words: Tensor, cells: Tensor) -> Tensor:
        """How like each cell is to what the text says, by every measure: (..., heads * cells)."""
        query = self._normed(self.query(words.flatten(-2)))  # (..., heads, width)
        key = self._normed(self.key(cells))  # (..., cells, heads, width)
        return (torch.einsum("...hw,...chw->...hc", query, key) / math.sqrt(self.width)).flatten(-2)

    def forward(self, words: Tensor, cells: Tensor) -> Tensor:
        return self.places(self.similarity(words, cells))

    def _normed(self, x: Tensor) -> Tensor:
        """(..., heads * width) -> (..., heads, width), each head of unit mean square."""
        return nn.functional.rms_norm(x.unflatten(-1, (self.heads, self.width)), (self.width,))


class LatentEmbedding(nn.Module):
    """A latent state z (..., G) -> one feature vector (..., out).

    With `text_heads` every text also points at the cells of every grid (`TextGuide`), with so many heads.
    """

    def __init__(self, spec: LatentSpec, symbol_width: int, out: int, text_heads: int = 0) -> None:
        super().__init__()
        self.spec = spec
        self.tables = nn.ModuleDict({module_name(block.key): BlockEmbedding(block, symbol_width) for block in spec.blocks})
        self.project = nn.ModuleDict(
            {module_name(block.key): nn.Linear(block.groups * symbol_width, out) for block in spec.blocks}
        )
        texts = [block for block in spec.blocks if block.kind == "text"] if text_heads else []
        grids = [block for block in spec.blocks if block.layout]
        self.pairs = [(module_name(text.key), module_name(grid.key)) for text in texts for grid in grids]
        self.guides = nn.ModuleList(
            TextGuide(text.groups, grid.groups, symbol_width, text_heads, out) for text in texts for grid in grids
        )

    def forward(self, z: Tensor) -> Tensor:
        embedded = self._symbols(z)
        total: Tensor | int = 0
        for name, x in embedded.items():
            total = total + self.project[name](x.flatten(-2))
        for (text, grid), guide in zip(self.pairs, self.guides, strict=True):
            total = total + guide(embedded[text], embedded[grid])
        assert isinstance(total, Tensor)
        return total

    @property
    def similarity_width(self) -> int:
        return sum(guide.places.in_features for guide in self.guides if isinstance(guide, TextGuide))

    def similarities(self, z: Tensor) -> Tensor:
        """How like every cell of every grid is to what every text says: (..., similarity width)."""
        embedded = self._symbols(z)
        found = []
        for (text, grid), guide in zip(self.pairs, self.guides, strict=True):
            assert isinstance(guide, TextGuide)
            found.append(guide.similarity(embedded[text], embedded[grid]))
        return torch.cat(found, -1)

    def _symbols(self, z: Tensor) -> dict[str, Tensor]:
        """{module name: (..., groups, symbol width)}."""
        codes = {module_name(key): part for key, part in self.spec.split(z).items()}
        return {name: self.tables[name](part) for name, part in codes.items()}
