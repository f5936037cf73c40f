"""Automatic domain randomisation: push the boundary of what is mastered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from curriculum.box import BoxCurriculum
from curriculum.config import CurriculumConfig
from envs.tasks import Outcome, TaskSpace


class AutomaticDomainRandomization(BoxCurriculum):
    """Every number has a range of its own that widens where its boundary is mastered and narrows where it is not.

    OpenAI et al. 2019 (arXiv:1910.07113). A share of the episodes is played with one number at the lower or upper end of its
    range and the others drawn from theirs; when `window` of these at one end are finished, their success moves the end by a step,
    outwards at `threshold` or more, inwards at `ranges.low` or less. All other episodes draw every number.
    """

    def __init__(self, tasks: TaskSpace, config: CurriculumConfig) -> None:
        super().__init__(tasks, config)
        self.ends = np.tile([0.0, config.ranges.start], (self.dimensions, 1))  # (D, 2)
        self.results: list[list[int]] = [[] for _ in range(2 * self.dimensions)]  # of both ends of every range

    def update(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            point = self.point(outcome)
            if point is None:
                continue
            at = np.flatnonzero(np.abs(point[:, None] - self.ends).ravel() < 1e-9)  # nothing drawn from a range hits its end
            if len(at):
                self._result(int(at[-1]), bool(outcome.success))

    def _result(self, end: int, success: bool) -> None:
        results, settings = self.results[end], self.config.ranges
        results.append(int(success))
        if len(results) < self.config.window:
            return
        mean, (i, side) = np.mean(results), divmod(end, 2)
        results.clear()
        outwards = 1 if side else -1
        step = settings.step * (outwards if mean >= self.config.threshold else -outwards if mean <= settings.low else 0)
        low, high = (self.ends[i, 0], 1.0) if side else (0.0, self.ends[i, 1])
        self.ends[i, side] = np.clip(self.ends[i, side] + step, low, high)

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        low, high = self.ends.T
        point = low + rng.random(self.dimensions) * (high - low)
        if rng.random() < self.config.ranges.boundary:
            i, side = divmod(int(rng.integers(2 * self.dimensions)), 2)
            point[i] = self.ends[i, side]
        return point

    def distribution(self) -> np.ndarray:
        share = self.config.ranges.boundary
        low, high = self.ends.T
        found = (1 - share) * self.box.chances(self.uniform_masses(low, high))
        for i in range(self.dimensions):
            for end in self.ends[i]:
                at_low, at_high = low.copy(), high.copy()
                at_low[i] = at_high[i] = end
                found = found + share / (2 * self.dimensions) * self.box.chances(self.uniform_masses(at_low, at_high))
        return found

    def metrics(self) -> dict[str, float]:
        found = super().metrics()
        for i, name in enumerate(self.box.names):
            found |= {f"low/{name}": float(self.ends[i, 0]), f"high/{name}": float(self.ends[i, 1])}
        return found

    def state_dict(self) -> dict[str, Any]:
        return {"ends": self.ends.tolist(), "results": [list(results) for results in self.results]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.ends = np.array(state["ends"], float)
        self.results = [[int(success) for success in results] for results in state["results"]]
