"""Grids with learned codes: a few numbers of the whole view, in the place of one symbol a cell."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from envs.spaces.specs import ModalitySpec
from world_model.config import ModelConfig
from world_model.latents import LatentBlock, code_levels
from world_model.math import code_error
from world_model.modalities.grid import Grid
from world_model.networks import mlp
from world_model.quantisation import quantise


class LearnedGrid(Grid):
    """(rows, columns, channels) integers -> `view_groups` groups of `view_classes` levels (`model.learned`).

    The table still names the symbols of cells, which the decoder tells by cross-entropy. The codes are quantised numbers like a
    vector's, not categoricals drawn from an encoder's distribution: those answer to the prior as well, and move as long as it
    does, while reconstruction alone brings these to rest early, and the prior's targets with them.
    """

    has_unknown = False  # of its own codes

    def __init__(self, spec: ModalitySpec, config: ModelConfig) -> None:
        super().__init__(spec, config)
        rows, columns, _ = spec.shape
        self.cells, self.groups, self.classes = rows * columns, config.view_groups, config.view_classes
        self.block = LatentBlock(
            spec.key, spec.kind, (self.classes,) * self.groups, learned=True, ordered=True, static=spec.static
        )
        self.symbols = nn.Embedding(config.table_size, config.symbol_width)
        self.encoder = mlp([self.cells * config.symbol_width, config.hidden, config.hidden, self.groups])
        self.decoder = mlp([self.groups, config.hidden, config.hidden, self.cells * config.table_size])

    @property
    def classes_in_use(self) -> int:
        return self.block.max_classes

    def encode(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Symbols (..., cells) as `tokenize` names them -> codes (..., groups), cross-entropy (...,) of all cells in nats."""
        codes, levels = quantise(self.encoder(self.symbols(observation).flatten(-2)), self.classes)
        return codes, code_error(self._decode(levels), observation)

    @torch.no_grad()
    def detokenize(self, codes: Tensor) -> NDArray[Any]:
        return super().detokenize(self._decode(code_levels(codes, self.classes)).argmax(-1))

    def _decode(self, levels: Tensor) -> Tensor:
        """(..., groups) -> logits (..., cells, table size)."""
        return self.decoder(levels).unflatten(-1, (self.cells, -1))
