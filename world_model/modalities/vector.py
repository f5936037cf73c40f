"""Vectors: learned codes of standardised symlog values."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from envs.spaces.specs import ModalitySpec
from world_model.config import ModelConfig
from world_model.latents import LatentBlock, code_levels
from world_model.math import symexp, symlog
from world_model.modalities.base import Modality
from world_model.networks import mlp
from world_model.quantisation import quantise


class Vector(Modality):
    """(size,) floats -> `learned_groups` groups of `learned_classes` levels: finite scalar quantisation (Mentzer et al. 2023).

    Symlog tames large values; running means and variances then bring every element to one scale, or an angle of a few hundredths
    would drown beside a velocity. The decoder is a Gaussian whose standard deviation is `vector_std` of the data's. The codes are
    trained by reconstruction alone, so they settle early and the prior's targets with them.
    """

    mean: Tensor
    square: Tensor
    count: Tensor

    def __init__(self, spec: ModalitySpec, config: ModelConfig) -> None:
        super().__init__(spec, config)
        self.groups, self.classes = config.learned_groups, config.learned_classes
        classes = (self.classes,) * self.groups
        self.block = LatentBlock(spec.key, spec.kind, classes, learned=True, ordered=True, static=spec.static)
        size = spec.shape[0]
        self.encoder = mlp([size, config.hidden, config.hidden, self.groups])
        self.decoder = mlp([self.groups, config.hidden, config.hidden, size])
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("square", torch.zeros(size))  # summed squared distance from the mean (Welford 1962)
        self.register_buffer("count", torch.zeros(()))

    def tokenize(self, raw: NDArray[Any], grow: bool = False) -> Tensor:
        values = super().tokenize(raw, grow)
        if grow:
            self._observe(symlog(values.float()).flatten(0, -2).to(self.mean.device))
        return values

    def encode(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        target = self._standardise(observation)
        return self._quantise(target, target)

    def _quantise(self, inputs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Codes of what the encoder makes of `inputs` (..., I), and the loss of decoding `target` (..., size) from them."""
        codes, levels = quantise(self.encoder(inputs), self.classes)
        error = (self.decoder(levels) - target) / self.config.vector_std
        return codes, 0.5 * error.square().sum(-1)

    @torch.no_grad()
    def detokenize(self, codes: Tensor) -> NDArray[Any]:
        values = symexp(self.decoder(code_levels(codes, self.classes)) * self._deviation() + self.mean)
        return values.cpu().numpy().astype(self.spec.dtype)

    def _standardise(self, observation: Tensor) -> Tensor:
        return (symlog(observation.float()) - self.mean) / self._deviation()

    def _deviation(self) -> Tensor:
        return (self.square / self.count.clamp(min=1)).sqrt().clamp(min=1e-3) if self.count > 1 else torch.ones_like(self.mean)

    def _observe(self, rows: Tensor) -> None:
        """Take rows (N, size) into the running mean and variance (Chan et al. 1979, for batches)."""
        total = self.count + len(rows)
        mean = rows.mean(0)
        shift = mean - self.mean
        self.square += (rows - mean).square().sum(0) + shift.square() * self.count * len(rows) / total
        self.mean += shift * len(rows) / total
        self.count.copy_(total)
