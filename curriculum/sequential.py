"""One task after the other, each until it is mastered, revisiting what has been passed."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from curriculum.base import Curriculum
from curriculum.config import CurriculumConfig
from envs.tasks import Outcome, TaskSpace


class Sequential(Curriculum):
    """Moves on when the last `window` episodes of a task reach `threshold` success; a share `revisit` goes to tasks passed.

    From easy to hard: Bengio et al. 2009 (doi:10.1145/1553374.1553380).
    """

    reads = frozenset({"threshold", "window", "revisit"})

    def __init__(self, tasks: TaskSpace, config: CurriculumConfig) -> None:
        super().__init__(tasks, config)
        self.current = 0
        self.recent: deque[bool] = deque(maxlen=config.window)

    def update(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            if outcome.task != self.tasks.tasks[self.current].id:
                continue
            self.recent.append(outcome.success)
            full = len(self.recent) == self.config.window
            if full and np.mean(self.recent) >= self.config.threshold and self.current < len(self.tasks) - 1:
                self.current += 1
                self.recent.clear()

    def distribution(self) -> np.ndarray:
        p = np.zeros(len(self.tasks))
        if self.current:
            p[: self.current] = self.config.revisit / self.current
        p[self.current] = 1 - p.sum()
        return p

    def metrics(self) -> dict[str, float]:
        return super().metrics() | {"current": float(self.current)}

    def state_dict(self) -> dict[str, Any]:
        return {"current": self.current, "recent": [bool(success) for success in self.recent]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.current = int(state["current"])
        self.recent = deque((bool(success) for success in state["recent"]), maxlen=self.config.window)
