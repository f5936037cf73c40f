"""Play where success is changing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from curriculum.base import Curriculum
from curriculum.config import CurriculumConfig
from curriculum.weights import shares
from envs.tasks import Outcome, TaskSpace


def emphasised(success: np.ndarray, emphasis: float) -> np.ndarray:
    """Success rates stretched where they are near `emphasis`: (1 - e) p / (p + e (1 - 2p)), as Kanitscheider et al. do."""
    return (1 - emphasis) * success / (success + emphasis * (1 - 2 * success))


class LearningProgress(Curriculum):
    """A task weighs as much as the distance between a fast and a slow average of its success.

    Teacher-Student Curriculum Learning (Matiisen et al. 2017, arXiv:1707.00183) plays where the learning curve is steep, up or
    down: what is being forgotten is practised again. Averages and emphasis as in Kanitscheider et al. 2021 (arXiv:2106.14876).
    """

    reads = frozenset({"explore", "learning_progress"})

    def __init__(self, tasks: TaskSpace, config: CurriculumConfig) -> None:
        super().__init__(tasks, config)
        self.fast = np.zeros(len(tasks))  # before training nothing succeeds
        self.slow = np.zeros(len(tasks))

    def update(self, outcomes: Sequence[Outcome]) -> None:
        rates = self.config.learning_progress
        for outcome in outcomes:
            i = self.index[outcome.task]
            self.fast[i] += rates.fast * (outcome.success - self.fast[i])
            self.slow[i] += rates.slow * (self.fast[i] - self.slow[i])

    def progress(self) -> np.ndarray:
        """(N,) distance of the averages."""
        emphasis = self.config.learning_progress.emphasis
        return np.abs(emphasised(self.fast, emphasis) - emphasised(self.slow, emphasis))

    def distribution(self) -> np.ndarray:
        return shares(self.progress(), self.config.explore)

    def metrics(self) -> dict[str, float]:
        return super().metrics() | self.named("progress", self.progress())

    def state_dict(self) -> dict[str, Any]:
        return {"fast": self.fast.tolist(), "slow": self.slow.tolist()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.fast, self.slow = np.array(state["fast"], float), np.array(state["slow"], float)
