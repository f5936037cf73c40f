"""Play what sometimes succeeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from curriculum.base import Curriculum
from curriculum.config import CurriculumConfig
from curriculum.weights import RecentSuccess, shares
from envs.tasks import Outcome, TaskSpace


class Learnability(Curriculum):
    """A task weighs p (1 - p), p being its success over the newest `window` episodes: most where it is a toss-up.

    Tzannetos et al. 2023 (arXiv:2304.12877) derive it from what an episode may improve; Rutherford et al. 2024 (arXiv:2408.15099)
    find it a better guide than estimates of regret.
    """

    reads = frozenset({"explore", "window"})

    def __init__(self, tasks: TaskSpace, config: CurriculumConfig) -> None:
        super().__init__(tasks, config)
        self.success = RecentSuccess(len(tasks), config.window)

    def update(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            self.success.record(self.index[outcome.task], outcome.success)

    def distribution(self) -> np.ndarray:
        p = self.success.rate()
        return shares(p * (1 - p), self.config.explore)

    def metrics(self) -> dict[str, float]:
        return super().metrics() | self.named("success", self.success.rate())

    def state_dict(self) -> dict[str, Any]:
        return self.success.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.success.load_state_dict(state)
