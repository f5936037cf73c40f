"""Vectors: learned categorical codes of symlog values."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray
from torch import Tensor

from envs.spaces.specs import ModalitySpec
from world_model.config import ModelConfig
from world_model.latents import LatentBlock
from world_model.math import symexp, symlog
from world_model.modalities.base import Modality
from world_model.networks import mlp


class Vector(Modality):
    """(size,) floats -> `learned_groups` groups of `learned_classes`, encoded and decoded by MLPs (DreamerV3)."""

    def __init__(self, spec: ModalitySpec, config: ModelConfig) -> None:
        super().__init__(spec, config)
        self.groups, self.classes = config.learned_groups, config.learned_classes
        self.block = LatentBlock(spec.key, spec.kind, (self.classes,) * self.groups, learned=True, static=spec.static)
        size = spec.shape[0]
        self.encoder = mlp([size, config.hidden, config.hidden, self.groups * self.classes])
        self.decoder = mlp([self.groups * self.classes, config.hidden, config.hidden, size])

    def encode(self, observation: Tensor) -> Tensor:
        return self.encoder(symlog(observation.float())).unflatten(-1, (self.groups, self.classes))

    def decode(self, one_hot: Tensor) -> Tensor:
        """One-hots (..., groups, classes) -> symlog values (..., size)."""
        return self.decoder(one_hot.flatten(-2))

    def reconstruction_loss(self, one_hot: Tensor, observation: Tensor) -> Tensor:
        return (self.decode(one_hot) - symlog(observation.float())).square().sum(-1)

    def detokenize(self, codes: Tensor) -> NDArray[Any]:
        one_hot = Tensor.new_zeros(codes, (*codes.shape, self.classes)).float().scatter_(-1, codes.unsqueeze(-1), 1.0)
        return symexp(self.decode(one_hot)).detach().cpu().numpy().astype(self.spec.dtype)
