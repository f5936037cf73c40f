"""Lambda-returns and their scale."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchrl.objectives.value.functional import vec_td_lambda_return_estimate


def lambda_returns(reward: Tensor, cont: Tensor, value: Tensor, boundary: Tensor, gamma: float, lmbda: float) -> Tensor:
    """TD(lambda) returns with predicted continuation (Sutton and Barto 2018, ch. 12; DreamerV3 eq. 7).

    Args:
        reward: (N, H), for the step from state t to t + 1.
        cont: (N, H), probability that state t + 1 is not terminal; multiplies the discount.
        value: (N, H + 1), value of every state.
        boundary: (N, H + 1) bool: no step leads on from state t (its episode ended there); a return into it bootstraps from it.

    Returns:
        (N, H) returns of states 0 .. H - 1; where `boundary` holds they mean nothing and must be masked.
    """
    done = boundary[:, 1:].clone()
    done[:, -1] = True
    return vec_td_lambda_return_estimate(
        gamma=(gamma * cont).unsqueeze(-1),
        lmbda=lmbda,
        next_state_value=value[:, 1:].unsqueeze(-1),
        reward=reward.unsqueeze(-1),
        done=done.unsqueeze(-1),
        terminated=torch.zeros_like(done).unsqueeze(-1),
    ).squeeze(-1)


def weighted_mean(x: Tensor, weight: Tensor) -> Tensor:
    """The mean () of x, weighed by `weight` of the same shape; 0 where that is nothing."""
    return (x * weight).sum() / weight.sum().clamp(min=1.0)


class ReturnScale(nn.Module):
    """What advantages are divided by: EMA of the 5-95 percentile range of returns, with a floor (DreamerV3)."""

    low: Tensor
    high: Tensor
    steps: Tensor

    def __init__(self, decay: float, floor: float) -> None:
        super().__init__()
        self.decay, self.floor = decay, floor
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))
        self.register_buffer("steps", torch.zeros(()))

    def update(self, returns: Tensor) -> None:
        """Take in returns (N, H)."""
        ends = torch.tensor([0.05, 0.95], device=returns.device)
        low, high = torch.quantile(returns.detach().float().flatten(), ends)
        rate = 1 - self.decay
        self.steps += 1
        self.low.lerp_(low, rate)
        self.high.lerp_(high, rate)

    def forward(self) -> Tensor:
        """The scale, corrected for the EMA's start at zero."""
        correction = 1 - self.decay**self.steps
        return ((self.high - self.low) / correction.clamp(min=1e-8)).clamp(min=self.floor)
