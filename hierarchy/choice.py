"""Which goals to choose, by what the worker's critic expects under them."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from hierarchy.base import Learning
from hierarchy.config import HierarchyConfig
from hierarchy.goals import GoalSpace
from hierarchy.manager import Manager
from hierarchy.returns import weighted_mean
from hierarchy.trajectory import LatentTrajectory
from hierarchy.worker import Worker

CHOICES = 8  # goals that are compared in a state
FLOOR = 0.01  # least deviation that what they are expected to bring is divided by


def choice(
    path: LatentTrajectory, manager: Manager, worker: Worker, goals: GoalSpace, config: HierarchyConfig
) -> Iterator[Learning]:
    """Of some goals that the manager may choose, those under which the worker's critic expects most are made likelier (as in
    maximum a posteriori policy optimisation, Abdolmaleki et al. 2018): it knows what all goals brought, given ones too.

    Args:
        path: imagined under goals; they are chosen in every K-th of its states.
    """
    policy, weight, K = manager.policy, config.manager.choice, config.period
    if not weight:
        return
    with torch.no_grad():
        starts = (x[:, :-1:K].flatten(0, 1) for x in (path.z, path.h, path.weight))
        z, h, alive = (x.repeat_interleave(CHOICES, 0) for x in starts)
        code, _ = policy.act(z, h)
        goal = goals.decode(code, goals.poses(h))
        seen = worker.view(z, h, goal, torch.tensor(K, device=z.device))
        value = worker.learner("extrinsic").target(*seen).view(-1, CHOICES)
        value, there = value - value.mean(1, keepdim=True), alive.view(-1, CHOICES)
        spread = weighted_mean(value.square(), there).sqrt()
        liked = (value / spread.clamp(min=FLOOR) / config.manager.temperature).softmax(1)
        gain = weighted_mean((liked * value).sum(1), there[:, 0])
        figures = {"manager/choice": gain, "manager/choice_spread": spread}
        # Nothing where all are alike: a policy that copies its draws narrows.
        better = (CHOICES * liked.flatten() - 1) * alive
    for rows in torch.randperm(len(z), device=z.device).tensor_split(config.actor_critic.minibatches):
        log_prob = policy.log_prob(z[rows], h[rows], code[rows])
        loss = -(better[rows] * log_prob).sum() / alive[rows].sum().clamp(min=1.0)
        yield Learning(weight * loss, dict(figures), lambda: None)
