"""What imagined rollouts are told in the place of the manager's goals."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hierarchy.config import HierarchyConfig
from hierarchy.goals import GoalSpace
from hierarchy.hindsight import arrivals
from hierarchy.trajectory import LatentTrajectory
from world_model.starts import Starts


@dataclass
class Given:
    """N rollouts, P of them under goals, some of which begin with one that is given.

    Attributes:
        under: (P,) which of the rollouts have goals. alone: (N - P,) those that have none.
        code: (P, M), the goals that rollouts begin with, and where: (P,) bool, those that do.
        sure: (P,) bool, those whose goals are the manager's likeliest; its policy learns from the others, which are drawn.
    """

    under: Tensor
    alone: Tensor
    code: Tensor
    where: Tensor
    sure: Tensor


@torch.no_grad()
def give(starts: Starts, real: LatentTrajectory, goals: GoalSpace, config: HierarchyConfig) -> Given:
    """As many starts of every sequence are without goals as `worker.free` makes, but for 0 never none or all. Goals that can be
    reached, as they came K steps later in replay or when the episode ended, are given to `worker.hindsight` of the others."""
    batch, count = starts.step.shape
    device = starts.step.device
    order = torch.rand(batch, count, device=device).argsort(1)
    free = min(max(round(config.worker.free * count), 1), count - 1) if config.worker.free else 0
    rows = order + torch.arange(batch, device=device).unsqueeze(1) * count
    step = starts.step.gather(1, order[:, free:])
    index, known = arrivals(real.boundary, torch.full(real.reward.shape, config.period, device=device))  # (B, T)
    held = step.clamp(max=index.shape[1] - 1)  # nothing is known to follow the last step of a sequence
    target, same = index.gather(1, held), known.gather(1, held) & (step == held)
    at = torch.arange(batch, device=device).unsqueeze(1)
    code = goals.encode(real.z[at, target], real.h[at, target], goals.poses(real.h[at, step]))
    drawn = torch.rand(step.shape, device=device) < config.worker.hindsight
    sure = torch.rand(step.shape, device=device) < config.manager.likeliest
    return Given(
        under=rows[:, free:].flatten(),
        alone=rows[:, :free].flatten(),
        code=code.flatten(0, 1),
        where=(same & drawn).flatten(),
        sure=sure.flatten(),
    )
