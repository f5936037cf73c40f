"""Manager and worker as one policy of an imagined rollout."""

from __future__ import annotations

import torch
from torch import Tensor

from hierarchy.given import Given
from hierarchy.goal import NO_GOAL, Goal
from hierarchy.goals import GoalSpace
from hierarchy.manager import Manager
from hierarchy.worker import Worker


class Pursuit:
    """A new goal at the first step and every K steps after it, for the rollouts that have goals.

    Attributes:
        goals: what the worker was told, of all N rollouts.
        codes: what the manager chose, or was given in its place, (P, M) of those under goals. log_probs: (P,) of choosing that.
    """

    def __init__(self, manager: Manager, worker: Worker, space: GoalSpace, period: int, given: Given) -> None:
        self.manager, self.worker, self.space, self.period, self.given = manager.policy, worker, space, period, given
        self.step = 0
        self.lasts = torch.arange(period, 0, -1, device=given.under.device)  # steps that a goal lasts, from its first on
        self.goals: list[Goal] = []
        self.codes: list[Tensor] = []
        self.log_probs: list[Tensor] = []

    def choose(self, z: Tensor, h: Tensor) -> None:
        """The manager's next goals; the first ones may be given."""
        under = self.given.under
        anchor = self.space.poses(h)
        told = torch.full((len(z), self.space.config.groups), NO_GOAL, device=z.device)
        z, h = z[under], h[under]
        code, log_prob = (
            torch.where(self.given.sure.view(-1, *[1] * (drawn.dim() - 1)), likeliest, drawn)
            for likeliest, drawn in zip(self.manager.act(z, h, greedy=True), self.manager.act(z, h), strict=True)
        )
        if not self.goals:
            code = torch.where(self.given.where.unsqueeze(-1), self.given.code, code)
            with torch.no_grad():
                log_prob = self.manager.log_prob(z, h, code)
        self.codes.append(code)
        self.log_probs.append(log_prob)
        self.goals.append(self.space.decode(told.index_copy(0, under, code), anchor))

    def __call__(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        if self.step % self.period == 0:
            self.choose(z, h)
        left = self.lasts[self.step % self.period]
        self.step += 1
        return self.worker.policy.act(*self.worker.view(z, h, self.goals[-1], left))
