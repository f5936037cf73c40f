"""From the easy corner of a box outwards."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from curriculum.box import BoxCurriculum
from curriculum.config import CurriculumConfig
from envs.tasks import Outcome, Task, TaskSpace


class ExpandingRange(BoxCurriculum):
    """Numbers are drawn uniformly from the easiest `extent` of every range, which grows by a step when the last `window`
    episodes in it reach `threshold`: easy examples first (Bengio et al. 2009, doi:10.1145/1553374.1553380).

    Of episodes under way when it grows, and drawn from less, none counts for the next step.

    Attributes:
        drawn: seeds of the episodes drawn from the present range that have not ended.
    """

    reads = frozenset({"threshold", "window", "ranges"})

    def __init__(self, tasks: TaskSpace, config: CurriculumConfig) -> None:
        super().__init__(tasks, config)
        self.extent = config.ranges.start
        self.recent: deque[bool] = deque(maxlen=config.window)
        self.drawn: set[int] = set()

    def sample(self, n: int, rng: np.random.Generator) -> list[Task]:
        chosen = super().sample(n, rng)
        self.drawn.update(int(task.seed or 0) for task in chosen)
        return chosen

    def update(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            if outcome.seed not in self.drawn:
                continue
            self.drawn.remove(outcome.seed)
            self.recent.append(bool(outcome.success))
            full = len(self.recent) == self.config.window
            if full and np.mean(self.recent) >= self.config.threshold and self.extent < 1:
                self.extent = min(self.extent + self.config.ranges.step, 1.0)
                self.recent.clear()
                self.drawn.clear()

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        return rng.random(self.dimensions) * self.extent

    def distribution(self) -> np.ndarray:
        zeros = np.zeros(self.dimensions)
        return self.box.chances(self.uniform_masses(zeros, zeros + self.extent))

    def metrics(self) -> dict[str, float]:
        return super().metrics() | {"extent": self.extent}

    def state_dict(self) -> dict[str, Any]:
        return {"extent": self.extent, "recent": [int(success) for success in self.recent], "drawn": sorted(self.drawn)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.extent = float(state["extent"])
        self.recent = deque((bool(success) for success in state["recent"]), maxlen=self.config.window)
        self.drawn = {int(seed) for seed in state.get("drawn", ())}  # earlier versions kept none
