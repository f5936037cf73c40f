"""Changes to training sequences that a world model should not mind: shifted images, hidden cells, hidden modalities."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from world_model.latents import LatentSpec
from world_model.symbols import UNKNOWN

log = logging.getLogger(__name__)


def shift_frames(frames: NDArray[Any], pixels: int) -> NDArray[Any]:
    """Images (B, T, H, W, C), each sequence moved by up to `pixels` either way, edges repeated (Yarats et al. 2021).

    One offset a sequence, for its inputs and targets alike: what moves in it moves as before. Drawn from torch's generator.
    """
    height, width = frames.shape[2:4]
    around = ((0, 0), (0, 0), (pixels, pixels), (pixels, pixels), (0, 0))
    padded = np.pad(frames, around, mode="edge")  # (B, T, H + 2 pixels, W + 2 pixels, C)
    offsets = torch.randint(2 * pixels + 1, (len(frames), 2)).tolist()
    rows = zip(padded, offsets, strict=True)
    return np.stack([sequence[:, top : top + height, left : left + width] for sequence, (top, left) in rows])


def drop_cells(z: Tensor, latents: LatentSpec, share: float) -> Tensor:
    """Codes (..., G) with a random `share` of the cells of symbolic grids replaced by 'unknown', drawn anew for every step."""
    parts = latents.split(z)
    for block in latents.blocks:
        if block.kind == "grid" and not block.learned:
            hidden = torch.rand(parts[block.key].shape, device=z.device) < share
            parts[block.key] = parts[block.key].masked_fill(hidden, UNKNOWN)
    return torch.cat([parts[block.key] for block in latents.blocks], -1)


def check_cells(latents: LatentSpec, share: float) -> None:
    """Warn of every grid of which `drop_cells` hides nothing."""
    for block in latents.blocks:
        if share and block.kind == "grid" and block.learned:
            log.warning(
                "model.augment.cell_dropout=%s hides no cell of `%s`, whose codes are of its whole view: take it out of "
                "model.learned",
                share, block.key,
            )  # fmt: skip


def drop_modalities(z: Tensor, latents: LatentSpec, share: float) -> Tensor:
    """Codes (B, T, G) with a span of every optional modality hidden in a random `share` of the sequences."""
    batch, length = z.shape[:2]
    step = torch.arange(length, device=z.device)
    hidden = {}
    for key in {index: key for key, index in latents.presence.items()}.values():  # what a reader makes of it goes with it
        ends = torch.randint(length + 1, (batch, 2), device=z.device).sort(1).values
        chosen = torch.rand(batch, 1, device=z.device) < share
        hidden[key] = chosen & (step >= ends[:, :1]) & (step < ends[:, 1:])
    return latents.hide(z, hidden)
