"""Play in the regions of a box where learning progress is greatest."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from curriculum.box import BoxCurriculum
from curriculum.config import CurriculumConfig
from curriculum.mixture import Mixture, best_fit
from curriculum.weights import shares
from envs.tasks import Outcome, TaskSpace


class AlpGmm(BoxCurriculum):
    """Every episode's absolute learning progress is how far its score is from that of the nearest earlier one; a mixture of
    Gaussians over points and progress is fitted to the newest episodes, and points are drawn from its components in proportion
    to their mean progress.

    ALP-GMM (Portelas et al. 2019, arXiv:1910.07224); covariances are diagonal here, so that the probability of every cell is
    known exactly. Draws beyond the box are moved to its edge, and a share `explore` is drawn uniformly.
    """

    reads = frozenset({"explore", "alp_gmm"})

    def __init__(self, tasks: TaskSpace, config: CurriculumConfig) -> None:
        super().__init__(tasks, config)
        self.episodes = 0
        self.points: list[list[float]] = []
        self.scores: list[float] = []
        self.progress: list[float] = []
        self.mixture: Mixture | None = None

    def update(self, outcomes: Sequence[Outcome]) -> None:
        settings = self.config.alp_gmm
        for outcome in outcomes:
            point = self.point(outcome)
            if point is None:
                continue
            self.progress.append(self._progress(point, outcome.score))
            self.points.append(point.tolist())
            self.scores.append(float(outcome.score))
            self.episodes += 1
            for kept in (self.points, self.scores, self.progress):
                del kept[: -settings.memory]
            if self.episodes >= settings.first and self.episodes % settings.every == 0:
                self._fit()

    def _progress(self, point: np.ndarray, score: float) -> float:
        if not self.points:
            return 0.0
        nearest = int(((np.array(self.points) - point) ** 2).sum(1).argmin())
        return abs(float(score) - self.scores[nearest])

    def _fit(self) -> None:
        newest = slice(-self.config.alp_gmm.fitted, None)
        progress = np.array(self.progress[newest])
        x = np.column_stack([np.array(self.points[newest]), progress / max(progress.max(), 1e-9)])
        self.mixture = best_fit(x, self.config.alp_gmm.components, np.random.default_rng(self.episodes))

    def _chances(self, mixture: Mixture) -> np.ndarray:
        """(K,) of the components."""
        return shares(mixture.mean[:, -1].clip(min=0))

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        if self.mixture is None or rng.random() < self.config.explore:
            return rng.random(self.dimensions)
        k = rng.choice(len(self.mixture.weight), p=self._chances(self.mixture))
        mean, variance = self.mixture.mean[k, :-1], self.mixture.variance[k, :-1]
        return (mean + np.sqrt(variance) * rng.standard_normal(self.dimensions)).clip(0, 1)

    def distribution(self) -> np.ndarray:
        zeros = np.zeros(self.dimensions)
        alike = self.box.chances(self.uniform_masses(zeros, zeros + 1))
        if self.mixture is None:
            return alike
        found = self.config.explore * alike
        edges = np.linspace(0, 1, self.box.cells + 1)[1:-1]
        for chance, mean, variance in zip(
            self._chances(self.mixture), self.mixture.mean[:, :-1], self.mixture.variance[:, :-1], strict=True
        ):
            away = (edges - mean[:, None]) / np.sqrt(2 * variance)[:, None]  # (D, cells - 1)
            below = np.array([[0.5 * (1 + math.erf(a)) for a in row] for row in away]).reshape(self.dimensions, -1)
            masses = np.diff(below, axis=1, prepend=0.0, append=1.0)
            found = found + (1 - self.config.explore) * chance * self.box.chances(masses)
        return found

    def metrics(self) -> dict[str, float]:
        found = super().metrics() | {"components": float(len(self.mixture.weight)) if self.mixture else 0.0}
        return found | ({"progress": float(np.mean(self.progress))} if self.progress else {})

    def state_dict(self) -> dict[str, Any]:
        mixture = None
        if self.mixture is not None:
            mixture = {name: getattr(self.mixture, name).tolist() for name in ("weight", "mean", "variance")}
        lists: dict[str, list[Any]] = {"points": self.points, "scores": self.scores, "progress": self.progress}
        return {"episodes": self.episodes, "mixture": mixture} | {name: list(kept) for name, kept in lists.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.episodes = int(state["episodes"])
        self.points, self.scores, self.progress = (list(state[name]) for name in ("points", "scores", "progress"))
        saved = state["mixture"]
        self.mixture = saved and Mixture(*(np.array(saved[name], float) for name in ("weight", "mean", "variance")))
