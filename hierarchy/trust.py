"""How far a manager is to be trusted: how its episodes end, beside those that are played without goals."""

from __future__ import annotations

import torch
from torch import Tensor, nn

RATE = 0.01  # share that an episode, of either kind, takes from what those before it count
ENOUGH = 10.0  # episodes of either kind, as they count now, before which nothing is known
BAD, GOOD = 0.9, 1.0  # of it, under goals: from where on trust grows, and where it is whole
LEAST, MOST = 0.2, 0.5  # of the episodes: some of either kind are always played, to be compared and to be learned from


class Trust(nn.Module):
    """Share of the episodes that are played under goals while they are learned from.

    At first an explorer learns faster: it need not wait for a manager who knows what is worth asking for. It brings in what both
    learn from; once goals bring nearly as much, half of the episodes are played under them. Which ones are is drawn, whatever
    their task, and both kinds are averaged over the same time, so that they may be compared.
    """

    sums: Tensor
    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("sums", torch.zeros(2))  # of discounted success, under goals and without
        self.register_buffer("seen", torch.zeros(2))  # episodes, older ones counting less

    @property
    def worth(self) -> Tensor:
        """(2,) mean discounted success, under goals and without."""
        return self.sums / self.seen.clamp(min=1e-6)

    @torch.no_grad()
    def ended(self, worth: float, under: bool) -> None:
        """Take in what an episode came to."""
        kind = 0 if under else 1
        for total, new in ((self.sums, worth), (self.seen, 1.0)):
            total.mul_(1 - RATE)
            total[kind] += new

    def forward(self) -> Tensor:
        """The share ()."""
        goals, free = self.worth
        known = (free > 0) & (self.seen >= ENOUGH).all()
        share = (goals / torch.where(known, free, 1.0) - BAD) / (GOOD - BAD)
        return torch.where(known, share, torch.zeros_like(share)).clamp(LEAST, MOST)
