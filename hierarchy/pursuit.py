"""Manager and worker as one policy of an imagined rollout."""

from __future__ import annotations

import torch
from torch import Tensor

from hierarchy.actor_critic import ActorCritic
from hierarchy.given import Given
from hierarchy.goal import Goal
from hierarchy.goals import GoalSpace
from hierarchy.manager import Manager
from hierarchy.worker import Worker


class Pursuit:
    """A new goal at the first step and every K steps after it, for the P rollouts that have goals; in the others `alone` acts.

    Attributes:
        goals: what the worker was told, (P,).
        codes: what the manager chose, or was given in its place, (P, M). log_probs: (P,) of choosing that.
    """

    def __init__(
        self, manager: Manager, worker: Worker, alone: ActorCritic | None, space: GoalSpace, period: int, given: Given
    ) -> None:
        self.manager, self.worker, self.alone = manager.policy, worker, alone
        self.space, self.period, self.given = space, period, given
        self.back = torch.cat([given.under, given.alone]).argsort()  # to the order of the rollouts
        self.step = 0
        self.lasts = torch.arange(period, 0, -1, device=given.under.device)  # steps that a goal lasts, from its first on
        self.goals: list[Goal] = []
        self.codes: list[Tensor] = []
        self.log_probs: list[Tensor] = []

    def choose(self, z: Tensor, h: Tensor) -> None:
        """The manager's next goals, in states z (P, Z), h (P, V + P); the first ones may be given."""
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
        self.goals.append(self.space.decode(code, self.space.poses(h)))

    def __call__(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        under, alone = self.given.under, self.given.alone
        if self.step % self.period == 0:
            self.choose(z[under], h[under])
        left = self.lasts[self.step % self.period]
        self.step += 1
        action, log_prob = self.worker.policy.act(*self.worker.view(z[under], h[under], self.goals[-1], left))
        if self.alone is not None:
            others = self.alone.act(z[alone], h[alone])
            action, log_prob = torch.cat([action, others[0]]), torch.cat([log_prob, others[1]])
        return action[self.back], log_prob[self.back]
