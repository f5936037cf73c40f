"""Automatic domain randomisation: push the boundary of what is mastered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from curriculum.box import BoxCurriculum
from curriculum.config import CurriculumConfig
from envs.tasks import Outcome, TaskSpace


class AutomaticDomainRandomization(BoxCurriculum):
    """Every number has a range of its own, from the easy end up to where it is mastered.

    OpenAI et al. 2019 (arXiv:1910.07113). A share of the episodes is played with one number at the far end of its range and the
    others drawn from theirs; when `ranges.window` of these are finished, their success moves the end by a step, outwards at
    `threshold` or more, inwards at `ranges.low` or less. All other episodes draw every number. In the paper both ends of a range
    move; here the near one is the easiest there is, so it stays.
    """

    reads = frozenset({"threshold", "ranges"})

    def __init__(self, tasks: TaskSpace, config: CurriculumConfig) -> None:
        super().__init__(tasks, config)
        self.ends = np.full(self.dimensions, config.ranges.start)  # (D,)
        self.results: list[list[int]] = [[] for _ in range(self.dimensions)]  # at each end

    def update(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            point = self.point(outcome)
            if point is None:
                continue
            at = np.flatnonzero(np.abs(point - self.ends) < 1e-9)  # nothing drawn from a range hits its end
            if len(at):
                self._result(int(at[-1]), bool(outcome.success))

    def _result(self, i: int, success: bool) -> None:
        results, settings = self.results[i], self.config.ranges
        results.append(int(success))
        if len(results) < settings.window:
            return
        mean = np.mean(results)
        results.clear()
        step = settings.step * (1 if mean >= self.config.threshold else -1 if mean <= settings.low else 0)
        self.ends[i] = np.clip(self.ends[i] + step, min(settings.step, settings.start), 1.0)

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        point = rng.random(self.dimensions) * self.ends
        if rng.random() < self.config.ranges.boundary:
            i = int(rng.integers(self.dimensions))
            point[i] = self.ends[i]
        return point

    def distribution(self) -> np.ndarray:
        share, low = self.config.ranges.boundary, np.zeros(self.dimensions)
        found = (1 - share) * self.box.chances(self.uniform_masses(low, self.ends))
        for i in range(self.dimensions):
            at_end = low.copy()
            at_end[i] = self.ends[i]
            found = found + share / self.dimensions * self.box.chances(self.uniform_masses(at_end, self.ends))
        return found

    def metrics(self) -> dict[str, float]:
        return super().metrics() | {f"high/{name}": float(end) for name, end in zip(self.box.names, self.ends, strict=True)}

    def state_dict(self) -> dict[str, Any]:
        return {"ends": self.ends.tolist(), "results": [list(results) for results in self.results]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.ends, results = np.array(state["ends"], float), state["results"]
        if self.ends.ndim == 2:  # of a version in which both ends moved
            self.ends, results = self.ends[:, 1], results[1::2]
        self.results = [[int(success) for success in own] for own in results]
