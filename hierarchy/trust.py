"""How far a manager is to be trusted: how its episodes end, beside those that are played without goals."""

from __future__ import annotations

import torch
from torch import Tensor, nn

RATE = 0.04  # of the moving averages, an episode
ENOUGH = 10  # episodes of either kind, before which nothing is known
BAD, GOOD = 0.8, 1.0  # of it, under goals: from where on trust grows, and where it is whole
LEAST, MOST = 0.2, 0.9  # of the episodes: some of either kind are always played, to be compared


class Trust(nn.Module):
    """Share of the episodes that are played under goals while they are learned from.

    At first an explorer learns faster: it need not wait for a manager who knows what is worth asking for. It brings in what both
    learn from; once goals bring as much, nearly all episodes are played under them. Which ones are is drawn, whatever their task,
    so that both kinds may be compared.
    """

    worth: Tensor
    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("worth", torch.zeros(2))  # mean discounted success, under goals and without
        self.register_buffer("seen", torch.zeros(2))  # episodes

    @torch.no_grad()
    def ended(self, worth: float, under: bool) -> None:
        """Take in what an episode came to: means of the first ones, moving averages later."""
        kind = 0 if under else 1
        self.seen[kind] += 1
        self.worth[kind].lerp_(torch.as_tensor(worth, device=self.worth.device), max(RATE, 1 / float(self.seen[kind])))

    def forward(self) -> Tensor:
        """The share ()."""
        goals, free = self.worth
        known = (free > 0) & (self.seen >= ENOUGH).all()
        share = (goals / torch.where(known, free, 1.0) - BAD) / (GOOD - BAD)
        return torch.where(known, share, torch.zeros_like(share)).clamp(LEAST, MOST)
