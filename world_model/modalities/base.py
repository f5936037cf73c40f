"""What a modality is to the world model: tokens in, latent groups out, and back again."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from envs.spaces.specs import ModalitySpec
from world_model.config import ModelConfig
from world_model.latents import LatentBlock


class Modality(nn.Module):
    """Turns one observed array into one block of latent groups.

    A symbolic modality overrides `tokenize` (its symbols are its codes) and `detokenize`. A learned one sets `block.learned`,
    leaves `tokenize` as it is, and adds `encode`.
    """

    block: LatentBlock
    has_unknown = False  # whether code 0 stands for symbols that a table has no room for

    def __init__(self, spec: ModalitySpec, config: ModelConfig) -> None:
        super().__init__()
        self.spec = spec
        self.config = config

    @property
    def classes_in_use(self) -> int:
        """Codes at or above this have not been given out yet: priors need not predict them."""
        return self.block.max_classes

    @property
    def given_out(self) -> int:
        """How many codes there are to be used so far."""
        return self.classes_in_use

    def tokenize(self, raw: NDArray[Any], grow: bool = False) -> Tensor:
        """Adapted observations (..., *shape) -> what `WorldModel.forward` takes: codes (..., groups), or floats of a learned one.

        Runs on the CPU, outside the engine. `grow` lets symbol tables take in symbols they have not met.
        """
        return torch.from_numpy(np.ascontiguousarray(raw))

    def pop_metrics(self) -> dict[str, float]:
        """Figures by name, to be logged, on what was taken in (`grow`) since the last call."""
        return {}

    def detokenize(self, codes: Tensor) -> NDArray[Any]:
        """Codes (..., groups) -> observations (..., *shape), as the adapter delivers them."""
        raise NotImplementedError

    def encode(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Learned modalities: observations (..., *shape) -> codes (..., groups), and the loss (...,) that trains them."""
        raise NotImplementedError
