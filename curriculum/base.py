"""The protocol every scheduler keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from envs.tasks import Outcome, Task, TaskSpace


class Curriculum:
    """Decides which task each episode is played on.

    Knows tasks, outcomes and signals, never a model. Its state is plain data, so that a resumed run continues the same sequence.
    """

    required_signals: frozenset[str] = frozenset()
    """Names of the per-task signals that `observe` must be given; what no scheduler requires is not computed."""

    def __init__(self, tasks: TaskSpace) -> None:
        self.tasks = tasks

    def sample(self, n: int, rng: np.random.Generator) -> list[Task]:
        """Tasks of the next `n` episodes, each with its own seed."""
        chosen = rng.choice(len(self.tasks), size=n, p=self.distribution())
        return [self.tasks.tasks[index].with_seed(int(rng.integers(2**31))) for index in chosen]

    def update(self, outcomes: Sequence[Outcome]) -> None:
        """Learn from finished episodes."""

    def observe(self, signals: Mapping[str, Mapping[str, float]]) -> None:
        """Learn from `{task id: {signal: value}}`."""

    def distribution(self) -> np.ndarray:
        """Probability (number of tasks,) of each task for the next episode, in the task space's order."""
        raise NotImplementedError

    def metrics(self) -> dict[str, float]:
        """What to log: the distribution, by default."""
        return {f"p/{task.id}": float(p) for task, p in zip(self.tasks, self.distribution(), strict=True)}

    def state_dict(self) -> dict[str, Any]:
        """Plain, JSON-able data."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`."""
