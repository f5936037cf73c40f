"""Play where the world model is learning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from curriculum.base import Curriculum
from curriculum.config import CurriculumConfig
from curriculum.weights import shares
from envs.tasks import TaskSpace


def chance_variance(fast: float, slow: float) -> float:
    """Variance of the difference of two moving averages of the same independent numbers of variance 1."""
    return fast / (2 - fast) + slow / (2 - slow) - 2 * fast * slow / (fast + slow - fast * slow)


class ModelProgress(Curriculum):
    """A task weighs as much as the world model's loss on it changes, beyond what chance makes of it.

    Learning progress of a predictor (Schmidhuber 1991; Oudeyer et al. 2007, doi:10.1109/TEVC.2006.890271): progress and not
    error, so that what cannot be foretold does not attract. Noise moves averages as well: a difference counts only as far as it
    exceeds `certainty` standard errors, with the noise's variance taken from successive losses, whose trend hardly shows
    (von Neumann et al. 1941). A loss that rises counts too: the policy has come to where the model has yet to learn, or it
    forgets.

    Needs the signal `model_loss`.
    """

    required_signals = frozenset({"model_loss"})

    def __init__(self, tasks: TaskSpace, config: CurriculumConfig) -> None:
        super().__init__(tasks, config)
        n = len(tasks)
        self.seen = np.zeros(n, int)  # losses so far
        self.last, self.fast, self.slow, self.variance = (np.zeros(n) for _ in range(4))

    def observe(self, signals: Mapping[str, Mapping[str, float]]) -> None:
        rates = self.config.model_progress
        for task, found in signals.items():
            if "model_loss" not in found:
                continue
            i, loss = self.index[task], found["model_loss"]
            if not self.seen[i]:
                self.fast[i] = self.slow[i] = loss
            else:
                jump = (loss - self.last[i]) ** 2 / 2
                self.variance[i] += max(rates.slow, 1 / self.seen[i]) * (jump - self.variance[i])  # a plain mean at first
            self.fast[i] += rates.fast * (loss - self.fast[i])
            self.slow[i] += rates.slow * (loss - self.slow[i])
            self.last[i] = loss
            self.seen[i] += 1

    def progress(self) -> np.ndarray:
        """(N,) change of the loss beyond chance, in its own unit."""
        rates = self.config.model_progress
        error = np.sqrt(self.variance * chance_variance(rates.fast, rates.slow))
        return np.maximum(np.abs(self.slow - self.fast) - rates.certainty * error, 0.0)

    def distribution(self) -> np.ndarray:
        return shares(self.progress(), self.config.explore)

    def metrics(self) -> dict[str, float]:
        return super().metrics() | self.named("progress", self.progress()) | self.named("loss", self.fast)

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name).tolist() for name in ("seen", "last", "fast", "slow", "variance")}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.seen = np.array(state["seen"], int)
        self.last, self.fast, self.slow, self.variance = (
            np.array(state[name], float) for name in ("last", "fast", "slow", "variance")
        )
