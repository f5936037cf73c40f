"""What schedulers of a continuous box of tasks have in common: they draw points, not tasks by name."""

from __future__ import annotations

import numpy as np

from curriculum.base import Curriculum
from curriculum.config import CurriculumConfig
from envs.errors import UserError
from envs.tasks import Outcome, Task, TaskSpace


class BoxCurriculum(Curriculum):
    """Draws points of `tasks.box`, in units of its ranges, (D,) in [0, 1].

    Raises:
        UserError: the task space is no box.
    """

    def __init__(self, tasks: TaskSpace, config: CurriculumConfig) -> None:
        super().__init__(tasks, config)
        if tasks.box is None:
            raise UserError(
                f"curriculum.name={config.name} draws numbers from ranges, and there are none: "
                "give some, as env=obstacles or env.box={NAME: [LOW, HIGH]} with env.id"
            )
        self.box = tasks.box
        self.dimensions = len(tasks.box.names)

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """The point (D,) of the next episode."""
        raise NotImplementedError

    def sample(self, n: int, rng: np.random.Generator) -> list[Task]:
        return [self.tasks.at(self.draw(rng), int(rng.integers(2**31))) for _ in range(n)]

    def point(self, outcome: Outcome) -> np.ndarray | None:
        """Where an episode was played, (D,); None of one that was not played in the box."""
        return None if outcome.numbers is None else self.box.point(outcome.numbers)

    def uniform_masses(self, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """(D, cells) probability of each part of every range, for numbers drawn uniformly from [low, high], both (D,), or
        that are `low` where the two are equal."""
        edges = np.linspace(0, 1, self.box.cells + 1)
        width = high - low
        masses = np.zeros((self.dimensions, self.box.cells))
        for i in range(self.dimensions):
            if width[i] > 0:
                masses[i] = np.maximum(np.minimum(edges[1:], high[i]) - np.maximum(edges[:-1], low[i]), 0) / width[i]
            else:
                masses[i, int(min(low[i] * self.box.cells, self.box.cells - 1))] = 1.0
        return masses
