"""Is an observation unlike anything trained on? A score from the world model's own surprise, and how well it tells."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from agent.agent import Agent
from agent.calibration import Foreseen
from agent.foresight import Foresight, Numbers, foresee
from agent.shards import ShardReader

log = logging.getLogger(__name__)

RECORDS = 3000  # of replay, which say what is usual
USUALLY = 0.01  # share of usual observations that count as unlike them
MANY = 0.1  # share of a task's observations from which that is worth a warning
UNKNOWN_WEIGHT = 100.0  # deviations of surprise that an observation of unknown symbols alone counts as


class Novelty:
    """Out-of-distribution score of observations: surprise in standard deviations from its mean on episodes that count as usual,
    plus the share of unknown symbols.

    Surprise is the prior's negative log-likelihood of the next observation: it is high for what the model has not learned, and
    for what is random in itself; the mean and deviation of what is usual take the second away on average.

    Attributes:
        limit: the score that one usual observation in a hundred exceeds.
    """

    def __init__(self, usual: Sequence[Foresight]) -> None:
        surprise = np.concatenate([foresight.surprise for foresight in usual])
        self.mean, self.deviation = float(surprise.mean()), max(float(surprise.std()), 1e-6)
        self.limit = float(np.quantile(np.concatenate([self(foresight) for foresight in usual]), 1 - USUALLY))

    @classmethod
    def of_replay(cls, agent: Agent, folder: Path, records: int = RECORDS) -> Novelty | None:
        """By the newest stored episodes of a run, so many records of them; None where there are none."""
        if not folder.is_dir():
            return None
        episodes = ShardReader(folder, agent.model.spec).episodes(newest_records=records)
        usual = [foresee(agent, episode, 1.0) for episode in episodes]
        return cls(usual) if usual else None

    def __call__(self, foresight: Foresight) -> Numbers:
        """Scores (T,) of the observations arrived at."""
        return (foresight.surprise - self.mean) / self.deviation + UNKNOWN_WEIGHT * foresight.unknown


def novelty_summary(novelty: Novelty, foreseen: Mapping[str, Foreseen]) -> dict[str, dict[str, float]]:
    """`{task: {score, unlike, unknown}}`: the mean score of its observations, the share of them above `limit`, and that of
    symbols never seen. Says so where many are."""
    found: dict[str, dict[str, float]] = {}
    for task, own in foreseen.items():
        scores = np.concatenate([novelty(foresight) for foresight in own.foresights])
        unlike = float((scores > novelty.limit).mean())
        unknown = float(np.concatenate([foresight.unknown for foresight in own.foresights]).mean())
        found[task] = {"score": float(scores.mean()), "unlike": unlike, "unknown": unknown}
        if unlike >= MANY:
            log.warning(
                "%.0f %% of what %s shows is unlike what the agent was trained on (1 %% is usual): do not rely on it there",
                100 * unlike, task,
            )  # fmt: skip
    return found


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
