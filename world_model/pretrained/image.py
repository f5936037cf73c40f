"""What a pretrained vision encoder sees in an image, as learned codes that imagination can foretell."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from envs.spaces.specs import ModalitySpec
from world_model.config import ModelConfig
from world_model.modalities.vector import Vector
from world_model.networks import mlp
from world_model.pretrained.cache import FeatureCache
from world_model.pretrained.encoder import PretrainedEncoder
from world_model.pretrained.settings import PretrainedConfig

THUMBNAIL = 8  # pixels a side, of the small picture that a trained encoder's codes are held to


class ImageFeatures(Vector):
    """(height, width, channels) bytes -> `groups` codes of what the encoder makes of them, beside the codes of the pixels.

    The features of a frozen encoder are a vector like any other: its codes are trained to give it back. Every frame is read once
    while the cache holds it. One that is trained could make that easy by saying nothing: so its codes have to tell the picture
    itself, shrunk, and gradients reach the encoder through them. Equal frames of a batch are read once.
    """

    mixers: Tensor

    def __init__(self, spec: ModalitySpec, config: ModelConfig, key: str, settings: PretrainedConfig) -> None:
        reader = PretrainedEncoder(spec.key, settings, "image")
        height, width, channels = spec.shape
        small = (min(height, THUMBNAIL), min(width, THUMBNAIL))
        size = small[0] * small[1] * channels if reader.trained else reader.width
        own = ModalitySpec(key, "vector", (size,), "float32", static=spec.static)
        super().__init__(own, replace(config, learned_groups=settings.groups))
        self.pretrained, self.frame, self.small = reader, spec.shape, small
        self.share = self.groups / size  # a loss as large as that of a vector of so many numbers, however wide the features
        self.cache = FeatureCache(settings.cache_mb * 2**20 // (4 * reader.width))
        if reader.trained:
            self.encoder = mlp([reader.width, config.hidden, config.hidden, self.groups])
            mixers = np.random.default_rng(0x5EED).integers(-(2**62), 2**62, height * width * channels) | 1
            self.register_buffer("mixers", torch.from_numpy(mixers), persistent=False)

    def tokenize(self, raw: NDArray[Any], grow: bool = False) -> Tensor:
        """Features (..., width) of a frozen encoder; else the frames as they are, for `encode`."""
        frames = np.ascontiguousarray(raw, np.uint8).reshape(-1, *self.frame)
        shape = raw.shape[:-3]
        if not self.pretrained.trained:
            return super().tokenize(self._features(frames).view(*shape, -1).numpy(), grow)
        if grow:
            super().tokenize(self._thumbnails(torch.from_numpy(frames)).numpy(), grow)
        return torch.from_numpy(frames).view(*shape, *self.frame)

    def encode(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        if not self.pretrained.trained:
            codes, loss = super().encode(observation)
            return codes, loss * self.share
        shape = observation.shape[:-3]
        frames = observation.reshape(-1, *self.frame)
        keys = (frames.flatten(1).long() * self.mixers).sum(-1)  # (N,)
        distinct, which = keys.unique(return_inverse=True)
        places = torch.zeros_like(distinct).scatter_(0, which, torch.arange(len(keys), device=keys.device))
        features = self.pretrained(frames[places])[which]
        codes, loss = self._quantise(F.layer_norm(features, features.shape[-1:]), self._standardise(self._thumbnails(frames)))
        return codes.view(*shape, -1), loss.view(shape) * self.share

    def _features(self, frames: NDArray[np.uint8]) -> Tensor:
        """(N, width), on the CPU."""
        keys = [int.from_bytes(hashlib.blake2b(frame, digest_size=8).digest(), "little") for frame in frames]
        self.cache.take_in(keys, lambda places: self.pretrained(torch.from_numpy(frames[places])).cpu())
        return self.cache.rows(keys)

    def _thumbnails(self, frames: Tensor) -> Tensor:
        """(N, height, width, channels) bytes -> (N, size) numbers from 0 to 1."""
        return F.adaptive_avg_pool2d(frames.movedim(-1, 1).float() / 255, self.small).flatten(1)
