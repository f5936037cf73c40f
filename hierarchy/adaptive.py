"""A weight that holds what it acts on at a target, in place of one that has to be tuned anew for every world."""

from __future__ import annotations

import torch
from torch import Tensor, nn

TOLERANCE = 0.1  # share of the target that a value may be off without the weight moving


class AdaptiveScale(nn.Module):
    """Multiplicative controller (as Director has it, Hafner et al. 2022): the weight grows by a tenth a step, or shrinks by it.

    Args:
        target: where the value is to be held.
        start: the first weight.
        below: what the weight does to the value: False where it presses it down (a KL that is to come down to the target), True
            where it lifts it (an entropy that is to come up to it).
        speed: share by which the weight changes in a step.
        low, high: bounds of the weight.
    """

    weight: Tensor

    def __init__(
        self, target: float, start: float = 1e-2, below: bool = False, speed: float = 0.1, low: float = 1e-5, high: float = 1.0
    ) -> None:
        super().__init__()
        self.target, self.below, self.speed, self.low, self.high = target, below, speed, low, high
        self.register_buffer("weight", torch.tensor(float(start)))

    @torch.no_grad()
    def update(self, value: Tensor) -> None:
        """Take in one value (): more weight where it is on the wrong side of the target, less where it is beyond it."""
        margin = TOLERANCE * abs(self.target)
        over, under = value > self.target + margin, value < self.target - margin
        more, less = (under, over) if self.below else (over, under)
        step = (1 + self.speed) ** (more.to(self.weight.dtype) - less.to(self.weight.dtype))
        self.weight.mul_(step).clamp_(self.low, self.high)

    def forward(self) -> Tensor:
        """The weight (), a copy: a later update does not change what a loss was multiplied by."""
        return self.weight.clone()
