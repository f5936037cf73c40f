"""Discrete, MultiDiscrete and MultiBinary observations: their values are their codes."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from envs.spaces.specs import ModalitySpec
from world_model.config import ModelConfig
from world_model.latents import LatentBlock
from world_model.modalities.base import Modality


class Categorical(Modality):
    """(elements,) class indices -> one group an element."""

    def __init__(self, spec: ModalitySpec, config: ModelConfig) -> None:
        super().__init__(spec, config)
        self.block = LatentBlock(spec.key, spec.kind, spec.classes, static=spec.static)

    def tokenize(self, raw: NDArray[Any], grow: bool = False) -> Tensor:
        return torch.from_numpy(raw.astype("int64"))

    def detokenize(self, codes: Tensor) -> NDArray[Any]:
        return codes.cpu().numpy().astype(self.spec.dtype)
