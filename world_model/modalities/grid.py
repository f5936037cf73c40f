"""Grids of symbols: one joint code per cell, from a table of the distinct cell values seen."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from envs.spaces.specs import ModalitySpec
from world_model.config import ModelConfig
from world_model.latents import LatentBlock
from world_model.modalities.base import Modality
from world_model.symbols import SymbolTable


class Grid(Modality):
    """(rows, columns, channels) integers -> rows * columns groups."""

    has_unknown = True

    def __init__(self, spec: ModalitySpec, config: ModelConfig) -> None:
        super().__init__(spec, config)
        rows, columns, channels = spec.shape
        self.table = SymbolTable(config.table_size, channels, f"observation `{spec.key}`", "model.table_size")
        self.block = LatentBlock(
            spec.key, spec.kind, (config.table_size,) * (rows * columns), static=spec.static, layout=(rows, columns)
        )

    @property
    def classes_in_use(self) -> int:
        return self.table.in_use

    def tokenize(self, raw: NDArray[Any], grow: bool = False) -> Tensor:
        codes = self.table.lookup(raw, grow)  # (..., rows, columns)
        return torch.from_numpy(codes.reshape(*codes.shape[:-2], -1))

    def detokenize(self, codes: Tensor) -> NDArray[Any]:
        cells = self.table.symbols(codes.cpu().numpy())  # (..., cells, channels)
        return cells.reshape(*codes.shape[:-1], *self.spec.shape).astype(self.spec.dtype)
