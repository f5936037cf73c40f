"""How the codes of a latent block are used: collapsed codes say nothing, however small the loss is."""

from __future__ import annotations

import torch
from torch import Tensor

from world_model.latents import LatentBlock


def code_counts(block: LatentBlock, codes: Tensor) -> Tensor:
    """How often each code occurs in `codes` (..., groups): (groups, C), or (1, C) where the groups share one table."""
    rows = codes.reshape(1, -1) if block.shared else codes.reshape(-1, block.groups).T
    counts = [row.bincount(minlength=block.max_classes) for row in rows]
    return torch.stack(counts).float()


def perplexity(counts: Tensor) -> Tensor:
    """How many codes (groups,) are in use, weighed by how often: exp of the entropy of the shares of `counts` (groups, C)."""
    share = counts / counts.sum(-1, keepdim=True).clamp(min=1)
    return torch.special.entr(share).sum(-1).exp()


def dead_share(counts: Tensor, available: int, least: float = 1e-4) -> Tensor:
    """Share (groups,) of the first `available` codes that make up less than `least` of `counts` (groups, C)."""
    share = counts / counts.sum(-1, keepdim=True).clamp(min=1)
    return (share[..., :available] < least).float().mean(-1)
