"""What an explorer, which acts where there are no goals, teaches manager and worker."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from hierarchy.config import ManagerConfig, WorkerConfig
from hierarchy.director import DirectorHierarchy
from hierarchy.trajectory import LatentTrajectory
from tests.hierarchy.test_director import STARTS, director, learn, real, told
from tests.hierarchy.toy import TwoStates, actor_critic, nowhere, trajectory

GAMMA, LMBDA = 0.9, 0.8
FREE = torch.arange(32) % 4 == 0


def exploring(**keys: Any) -> DirectorHierarchy:
    return director(
        horizon=4, period=2, worker=WorkerConfig(free=0.25, **keys), actor_critic=actor_critic(gamma=GAMMA, lmbda=LMBDA)
    )


def judged_as(hierarchy: DirectorHierarchy, worth: float) -> None:
    """The explorer's critic expects so much everywhere, the others nothing."""
    assert hierarchy.explorer is not None
    hierarchy.explorer.policy.target.forward = lambda z, h: torch.full(z.shape[:-1], worth)  # type: ignore
    for policy in (hierarchy.manager, hierarchy.worker):
        for name in policy.rewards:
            policy.learner(name).target.forward = lambda z, h: torch.zeros(z.shape[:-1])  # type: ignore


def test_what_comes_after_a_rollout_is_worth_what_the_explorers_critic_expects(monkeypatch: pytest.MonkeyPatch):
    hierarchy = exploring()
    judged_as(hierarchy, 10.0)
    told(monkeypatch, hierarchy.goals.prior(32), torch.zeros(32, dtype=torch.bool), FREE)
    found: dict[tuple[object, str], Tensor] = {}
    for part in (hierarchy.manager, hierarchy.worker):
        assess = part.assess
        kept = lambda name, path, value, part=part, assess=assess: found.setdefault((part, name), assess(name, path, value))  # noqa: E731
        monkeypatch.setattr(part, "assess", lambda name, path, value=None, kept=kept: kept(name, path, value))
    world = TwoStates()
    world.imagine = _unpaid(world.imagine)  # type: ignore[method-assign]
    for learning in hierarchy.learn(world, STARTS, real()):  # type: ignore[arg-type]
        learning.after()
    # Nothing is paid and nothing ends: a return is what comes after the last step, seen through lambda and gamma.
    steps = found[hierarchy.worker, "extrinsic"].returns  # type: ignore[attr-defined]
    far = torch.tensor([GAMMA**4 * LMBDA**3, GAMMA**3 * LMBDA**2, GAMMA**2 * LMBDA, GAMMA]) * 10.0
    torch.testing.assert_close(steps, far.expand(24, 4))
    K = GAMMA**2  # of the manager's steps
    segments = found[hierarchy.manager, "extrinsic"].returns  # type: ignore[attr-defined]
    torch.testing.assert_close(segments, (torch.tensor([K**2 * LMBDA, K]) * 10.0).expand(24, 2))


def _unpaid(imagine: Any) -> Any:
    def rollout(policy: Any, *rest: Any) -> Any:
        found = imagine(policy, *rest)
        found.reward, found.cont = torch.zeros_like(found.reward), torch.ones_like(found.cont)
        return found

    return rollout


def test_hindsight_is_of_what_the_explorer_did(monkeypatch: pytest.MonkeyPatch):
    hierarchy = exploring()
    told(monkeypatch, hierarchy.goals.prior(32), torch.zeros(32, dtype=torch.bool), FREE)
    shown: list[LatentTrajectory] = []
    teach = hierarchy._teach_hindsight
    monkeypatch.setattr(hierarchy, "_teach_hindsight", lambda path, real: (shown.append(path), teach(path, real))[1])  # type: ignore[func-returns-value]
    taught: list[LatentTrajectory] = []
    assert hierarchy.explorer is not None
    own = hierarchy.explorer.teach
    monkeypatch.setattr(hierarchy.explorer, "teach", lambda path, real: (taught.append(path), own(path, real))[1])  # type: ignore[func-returns-value]
    learn(hierarchy)
    assert len(shown[0].reward) == 8 and torch.equal(shown[0].action, taught[0].action)


def test_of_two_ways_to_a_goal_the_worker_learns_the_one_that_brought_more():
    """Both actions lead to the same state, one of them is paid."""
    hierarchy = director(horizon=2, period=2, worker=WorkerConfig(imitation=1.0), manager=ManagerConfig(hindsight=0.0))
    path = trajectory([0, 1, 1], [0, 0]).rows(torch.zeros(64).long())
    first = torch.arange(64) % 2
    path.action[:, 0] = first
    path.reward[:, 0] = first.float()
    optimizer = torch.optim.Adam(hierarchy.worker.parameters(), lr=1e-2)
    for _ in range(60):
        for lesson in hierarchy._teach_hindsight(path, path):
            optimizer.zero_grad()
            lesson.loss.backward()
            optimizer.step()
    z, h = path.z[:, 0], path.h[:, 0]
    goal = hierarchy.goals.decode(hierarchy.goals.encode(path.z[:, 1], path.h[:, 1], nowhere(64)), nowhere(64))
    own = hierarchy.worker.policy.log_prob(*hierarchy.worker.view(z, h, goal, torch.tensor(1)), torch.ones_like(first)).exp()
    assert own.min() > 0.8
