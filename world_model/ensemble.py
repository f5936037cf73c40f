"""What the model does not know yet: heads that foretell the next state each for itself, and how far they are apart."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from world_model.networks import mlp


class Ensemble(nn.Module):
    """K heads from the history h_t to what the next latent state looks like, as Plan2Explore has it (Sekar et al. 2020).

    They start apart, see the same data and come to agree where there was enough of it. Where the outcome is chance they agree
    on its mean, so that noise, unlike in a prediction error, is no surprise for ever. Nothing reaches the model through them.

    Args:
        heads: K, two or more.
        width: D, of the history. hidden: of the heads' layers. features: F, of what they foretell.
    """

    scale: Tensor

    def __init__(self, heads: int, width: int, hidden: int, features: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(mlp([width, hidden, features]) for _ in range(heads))
        self.register_buffer("scale", torch.zeros(()))

    def forward(self, h: Tensor) -> Tensor:
        """h (..., D) -> (K, ..., F)."""
        return torch.stack([head(h) for head in self.heads])

    def loss(self, foretold: Tensor, target: Tensor) -> Tensor:
        """Squared error (...,) of `forward`'s answer (K, ..., F) against features (..., F), over all heads."""
        if self.training:
            with torch.no_grad():
                spread = target.var(dim=tuple(range(target.dim() - 1)), correction=0).mean()
                self.scale.copy_(torch.where(self.scale > 0, self.scale.lerp(spread, 0.01), spread))
        return (foretold - target).square().mean(-1).sum(0)

    def disagreement(self, foretold: Tensor) -> Tensor:
        """Variance of the heads (...,), in variances of what they foretell: 1 would be as far apart as two random states."""
        return foretold.var(0, correction=0).mean(-1) / self.scale.clamp(min=1e-8)
