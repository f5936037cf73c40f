"""From what a scheduler thinks of tasks to how often it plays them; and how often a task succeeded lately."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np


def shares(weights: np.ndarray, explore: float = 0.0) -> np.ndarray:
    """Probabilities (N,) in proportion to weights (N,), all 0 or more; a share `explore` goes to all alike.

    Where nothing weighs anything, all are alike.
    """
    total = weights.sum()
    alike = np.full(len(weights), 1 / len(weights))
    return alike if total <= 0 else (1 - explore) * weights / total + explore * alike


class RecentSuccess:
    """Success of N tasks over each one's newest `window` episodes."""

    def __init__(self, tasks: int, window: int) -> None:
        self.window = window
        self.recent: list[deque[bool]] = [deque(maxlen=window) for _ in range(tasks)]
        self.successes = np.zeros(tasks)
        self.episodes = np.zeros(tasks)

    def record(self, task: int, success: bool) -> None:
        recent = self.recent[task]
        recent.append(bool(success))
        self.successes[task], self.episodes[task] = sum(recent), len(recent)

    def rate(self) -> np.ndarray:
        """(N,) by Laplace's rule, (successes + 1) / (episodes + 2): one half where nothing is known, never 0 or 1."""
        return (self.successes + 1) / (self.episodes + 2)

    def state_dict(self) -> dict[str, Any]:
        return {"recent": [[int(success) for success in recent] for recent in self.recent]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for task, recent in enumerate(state["recent"]):
            self.recent[task].clear()
            for success in recent:
                self.record(task, bool(success))
