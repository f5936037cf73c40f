"""Images with learned codes: a few numbers of the whole frame, in the place of one entry of a codebook a cell."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from envs.spaces.specs import ModalitySpec
from world_model.config import ModelConfig
from world_model.latents import LatentBlock, code_levels
from world_model.modalities.base import Modality
from world_model.networks import mlp
from world_model.quantisation import quantise

SMALLEST = 3  # rows and columns that strided convolutions leave, at the least
MOST_HALVINGS = 4


class LearnedImage(Modality):
    """(height, width, channels) pixels -> `view_groups` groups of `view_classes` levels (`model.learned`).

    Convolutions that halve the picture, and their mirror image back. The loss is the squared error of pixels from 0 to 1 summed
    over a frame, as DreamerV3's (Hafner et al. 2023). Why quantised numbers, see `LearnedGrid`.
    """

    def __init__(self, spec: ModalitySpec, config: ModelConfig) -> None:
        super().__init__(spec, config)
        self.groups, self.classes = config.view_groups, config.view_classes
        classes = (self.classes,) * self.groups
        self.block = LatentBlock(spec.key, spec.kind, classes, learned=True, ordered=True, static=spec.static)
        height, width, channels = spec.shape
        halvings = min(MOST_HALVINGS, max(1, int(math.log2(max(1, min(height, width) / SMALLEST)))))
        self.stride = 2**halvings
        rows, columns = -(-height // self.stride), -(-width // self.stride)
        widths = [channels, *(config.view_channels * 2**i for i in range(halvings))]
        self.small = (widths[-1], rows, columns)
        flat = math.prod(self.small)
        down: list[nn.Module] = []
        for fan_in, fan_out in pairwise(widths):
            down += [nn.Conv2d(fan_in, fan_out, 4, stride=2, padding=1), nn.GroupNorm(1, fan_out), nn.SiLU()]
        up: list[nn.Module] = []
        for fan_in, fan_out in pairwise(reversed(widths)):
            up += [nn.GroupNorm(1, fan_in), nn.SiLU(), nn.ConvTranspose2d(fan_in, fan_out, 4, stride=2, padding=1)]
        self.encoder = nn.Sequential(*down, nn.Flatten(), mlp([flat, config.hidden, self.groups]))
        self.decoder = nn.Sequential(mlp([self.groups, config.hidden, flat]), nn.Unflatten(-1, self.small), *up)

    def encode(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Bytes (..., height, width, channels) -> codes (..., groups), summed squared error (...,)."""
        shape = observation.shape[:-3]
        frames = observation.reshape(-1, *self.spec.shape).movedim(-1, 1).float() / 255 - 0.5  # (N, C, H, W)
        below, right = (-size % self.stride for size in self.spec.shape[:2])
        codes, levels = quantise(self.encoder(F.pad(frames, (0, right, 0, below))), self.classes)
        error = (self._decode(levels).float() - frames).square().sum((1, 2, 3))
        return codes.view(*shape, -1), error.view(shape)

    @torch.no_grad()
    def detokenize(self, codes: Tensor) -> NDArray[Any]:
        frames = self._decode(code_levels(codes.reshape(-1, self.groups), self.classes)).float()
        pixels = ((frames + 0.5) * 255).round().clamp(0, 255).movedim(1, -1)
        return pixels.reshape(*codes.shape[:-1], *self.spec.shape).cpu().numpy().astype(self.spec.dtype)

    def _decode(self, levels: Tensor) -> Tensor:
        """(N, groups) -> (N, C, H, W) from -0.5 to 0.5, what was filled up cut off."""
        height, width, _ = self.spec.shape
        frames: Tensor = self.decoder(levels)
        return frames[:, :, :height, :width]
