"""Is an observation unlike anything trained on? A score from the world model's own surprise, and how well it tells."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike

from agent.foresight import Foresight, Numbers

UNKNOWN_WEIGHT = 100.0  # deviations of surprise that an observation of unknown symbols alone counts as


class Novelty:
    """Out-of-distribution score of observations: surprise in standard deviations from its running mean on what was trained on,
    plus the share of unknown symbols.

    Surprise is the prior's negative log-likelihood of the next observation: it is high for what the model has not learned, and
    for what is random in itself; the mean and deviation of what is usual take the second away on average.
    """

    def __init__(self) -> None:
        self.count, self.mean, self.square = 0, 0.0, 0.0

    def update(self, foresight: Foresight) -> None:
        """Take in the surprise of an episode that counts as usual (Chan et al. 1979, for batches)."""
        values = foresight.surprise
        total = self.count + len(values)
        shift = float(values.mean()) - self.mean
        self.square += float(((values - values.mean()) ** 2).sum()) + shift**2 * self.count * len(values) / total
        self.mean += shift * len(values) / total
        self.count = total

    @property
    def deviation(self) -> float:
        return max(math.sqrt(self.square / max(self.count, 1)), 1e-6)

    def __call__(self, foresight: Foresight) -> Numbers:
        """Scores (T,) of the observations arrived at."""
        return (foresight.surprise - self.mean) / self.deviation + UNKNOWN_WEIGHT * foresight.unknown


def roc(usual: ArrayLike, unusual: ArrayLike) -> tuple[Numbers, Numbers]:
    """False and true positive rates of 'the score is at least x', from the highest x to the lowest, (0, 0) first."""
    scores = np.concatenate([np.asarray(usual, float), np.asarray(unusual, float)])
    positive = np.arange(len(scores)) >= len(np.asarray(usual))
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.diff(scores[order]) != 0, True)  # equal scores are passed together
    true, false = np.cumsum(positive[order])[ends], np.cumsum(~positive[order])[ends]
    return np.append(0.0, false / max(false[-1], 1)), np.append(0.0, true / max(true[-1], 1))


def auc(usual: ArrayLike, unusual: ArrayLike) -> float:
    """Area under the ROC: how often an unusual one scores higher than a usual one, ties counted half."""
    false, true = roc(usual, unusual)
    return float(np.trapezoid(true, false))


def episode_means(scores: Iterable[Numbers]) -> list[float]:
    """The mean score of every episode."""
    return [float(own.mean()) for own in scores]
