"""How far a manager is to be trusted: what imagined rollouts bring under its goals, beside what they bring without any."""

from __future__ import annotations

import torch
from torch import Tensor, nn

RATE = 0.02  # of the moving averages, an update
KNOWN = 0.02  # imagined rewards without goals that are less say nothing yet
BAD, GOOD = 0.85, 1.0  # of it, under goals: from where on trust grows, and where it is whole
LEAST = 0.1  # of the episodes are played under goals in any case


class Trust(nn.Module):
    """Share of the episodes that are played under goals while they are learned from.

    At first a worker without goals learns faster: it need not wait for a manager who knows what is worth asking for. Without
    goals it brings in what both of them learn from; once goals bring as much in imagination, all are played under them.
    """

    worth: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("worth", torch.zeros(3))  # mean imagined return under goals, and without; rewards alone, without

    @torch.no_grad()
    def update(self, under: Tensor, left: Tensor, without: Tensor, paid: Tensor) -> None:
        """Take in the returns of rollouts: `under` goals (P,), of which those `left` to the manager count (P,) bool, and
        `without` any; and what was `paid` in these."""
        self.worth[0].lerp_((under * left).sum() / left.sum().clamp(min=1), RATE * left.any())
        self.worth[1].lerp_(without.mean(), RATE)
        self.worth[2].lerp_(paid.mean(), RATE)

    def forward(self) -> Tensor:
        """The share ()."""
        goals, free, paid = self.worth
        share = (goals / free.clamp(min=KNOWN) - BAD) / (GOOD - BAD)
        return torch.where(paid > KNOWN, share, torch.zeros_like(share)).clamp(LEAST, 1.0)
