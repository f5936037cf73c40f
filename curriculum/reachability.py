"""Tell 'the worker cannot' from 'the manager does not'."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from curriculum.base import Curriculum
from curriculum.config import CurriculumConfig
from curriculum.weights import RecentSuccess, shares
from envs.tasks import Outcome, TaskSpace


class Reachability(Curriculum):
    """A task weighs r (1 - p) + r (1 - r), p being success under goals and r the share of its manager's goals that the worker
    reaches.

    The first term is for the manager: the worker gets where it is told, yet the task is not solved. The second is for the worker,
    as in `learnability`: its goals are neither certain nor hopeless. A task on which no goal is reached waits, one that is solved
    and whose goals are all reached is done. For hierarchies with goals, as Director's (Hafner et al. 2022, arXiv:2206.04114).

    Needs the signal `reach`. What has none yet counts as a toss-up.
    """

    required_signals = frozenset({"reach"})
    reads = frozenset({"explore", "window", "reachability"})

    def __init__(self, tasks: TaskSpace, config: CurriculumConfig) -> None:
        super().__init__(tasks, config)
        self.success = RecentSuccess(len(tasks), config.window)
        self.reach = np.full(len(tasks), 0.5)
        self.known = np.zeros(len(tasks), bool)

    def observe(self, signals: Mapping[str, Mapping[str, float]]) -> None:
        for task, found in signals.items():
            if "reach" in found:
                i, first = self.index[task], not self.known[self.index[task]]
                rate = 1.0 if first else self.config.reachability.rate
                self.reach[i] += rate * (found["reach"] - self.reach[i])
                self.known[i] = True

    def update(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            if not outcome.practice:  # what is played without goals tells nothing of the manager
                self.success.record(self.index[outcome.task], outcome.success)

    def distribution(self) -> np.ndarray:
        r, p = self.reach, self.success.rate()
        return shares(r * (1 - p) + r * (1 - r), self.config.explore)

    def metrics(self) -> dict[str, float]:
        return super().metrics() | self.named("reach", self.reach)

    def state_dict(self) -> dict[str, Any]:
        return self.success.state_dict() | {"reach": self.reach.tolist(), "known": self.known.tolist()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.success.load_state_dict(state)
        self.reach, self.known = np.array(state["reach"], float), np.array(state["known"], bool)
