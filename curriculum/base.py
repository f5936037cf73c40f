"""The protocol every scheduler keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from curriculum.config import CurriculumConfig
from envs.tasks import Outcome, Task, TaskSpace


class Curriculum:
    """Decides which task each episode is played on.

    Knows tasks, outcomes and signals, never a model. Its state is plain data, so that a resumed run continues the same sequence.

    Attributes:
        tasks: what it chooses from. config: the `curriculum` config group.
        index: {task id: its place in `tasks`}.
    """

    required_signals: frozenset[str] = frozenset()
    """Names of the signals that it learns from, see `agent.signals.SIGNALS`; what no scheduler requires is not computed."""

    reads: frozenset[str] | None = None
    """Keys of the `curriculum` config group that matter to it, by which comparisons tell runs of it apart; None: perhaps all."""

    def __init__(self, tasks: TaskSpace, config: CurriculumConfig | None = None) -> None:
        self.tasks = tasks
        self.config = config or CurriculumConfig()
        self.index = {task.id: i for i, task in enumerate(tasks)}

    def sample(self, n: int, rng: np.random.Generator) -> list[Task]:
        """Tasks of the next `n` episodes, each with its own seed."""
        chosen = rng.choice(len(self.tasks), size=n, p=self.distribution())
        return [self.tasks.level(int(index), int(rng.integers(2**31))) for index in chosen]

    def update(self, outcomes: Sequence[Outcome]) -> None:
        """Learn from finished episodes."""

    def observe(self, signals: Mapping[str, Mapping[str, float]]) -> None:
        """Learn from `{task id: {signal: value}}`."""

    def distribution(self) -> np.ndarray:
        """Probability (number of tasks,) of each task for the next episode, in the task space's order."""
        raise NotImplementedError

    def metrics(self) -> dict[str, float]:
        """What to log: the distribution, by default."""
        return self.named("p", self.distribution())

    def named(self, name: str, values: np.ndarray) -> dict[str, float]:
        """`{name/task id: value}` of values (number of tasks,)."""
        return {f"{name}/{task.id}": float(value) for task, value in zip(self.tasks, values, strict=True)}

    def state_dict(self) -> dict[str, Any]:
        """Plain, JSON-able data."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`."""
