"""Play where the world model is learning."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from curriculum.base import Curriculum
from curriculum.config import CurriculumConfig
from curriculum.weights import shares
from envs.tasks import TaskSpace

BLOCKS = 10  # of each half of the losses, at most: the longer they are, the less their means depend on each other


def change(losses: Sequence[float]) -> tuple[float, float]:
    """How far the mean of the newer half of some losses is from that of the older half, and what chance makes of that.

    The second is the standard error of the first. Successive losses are alike, as batches overlap: the variance of the noise is
    that of their means over blocks, from successive ones, in whose differences a trend hardly shows (von Neumann et al. 1941).
    What lasts longer than a block is not taken for noise. The oldest, which make no whole block, are left out of both halves.
    """
    half = len(losses) // 2
    if not half:
        return 0.0, 0.0
    blocks = min(half, BLOCKS)
    kept = half - half % blocks
    values = np.asarray(losses)
    means = np.stack([values[-half - kept : len(losses) - half], values[-kept:]]).reshape(2 * blocks, -1).mean(1)
    variance = float((np.diff(means) ** 2).mean()) / 2
    return abs(float(means[blocks:].mean() - means[:blocks].mean())), float(np.sqrt(2 * variance / blocks))


class ModelProgress(Curriculum):
    """A task weighs as much as the world model's loss on it changes beyond what chance makes of it, `certainty` standard errors.

    Learning progress of a predictor (Schmidhuber 1991; Oudeyer et al. 2007, doi:10.1109/TEVC.2006.890271): progress and not
    error, so that what cannot be foretold does not attract. The newest losses of a task are compared with those before them; what
    is older than both is forgotten, as a moving average would not quite: the loss of an untrained model is so great that little
    of it outweighs all that comes later. A loss that rises counts too: the policy has come to where the model has yet to learn,
    or it forgets. Every task weighs besides what chance makes of the loss of the median task: where nothing changes by much more
    than that, all are alike.

    Needs the signal `model_loss`.
    """

    required_signals = frozenset({"model_loss"})
    reads = frozenset({"explore", "model_progress"})

    def __init__(self, tasks: TaskSpace, config: CurriculumConfig) -> None:
        super().__init__(tasks, config)
        self.losses = [deque[float](maxlen=2 * config.model_progress.window) for _ in range(len(tasks))]
        self.changes = np.zeros((len(tasks), 2))  # of each task's loss, and what chance makes of that

    def observe(self, signals: Mapping[str, Mapping[str, float]]) -> None:
        for task, found in signals.items():
            if "model_loss" in found:
                i = self.index[task]
                self.losses[i].append(found["model_loss"])
                self.changes[i] = change(self.losses[i])

    def chance(self) -> np.ndarray:
        """(N,) how far a loss may change by chance, in its own unit."""
        return self.config.model_progress.certainty * self.changes[:, 1]

    def progress(self) -> np.ndarray:
        """(N,) change of the loss beyond that."""
        return (self.changes[:, 0] - self.chance()).clip(min=0.0)

    def distribution(self) -> np.ndarray:
        known = [len(losses) > 1 for losses in self.losses]
        alike = float(np.median(self.chance()[known])) if any(known) else 0.0
        return shares(self.progress() + alike, self.config.explore)

    def metrics(self) -> dict[str, float]:
        newest = np.array([np.mean([*losses][-self.config.model_progress.window :]) if losses else 0.0 for losses in self.losses])
        return super().metrics() | self.named("progress", self.progress()) | self.named("loss", newest)

    def state_dict(self) -> dict[str, Any]:
        return {"losses": [list(losses) for losses in self.losses]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for i, losses in enumerate(state["losses"]):
            self.losses[i].clear()
            self.losses[i].extend(float(loss) for loss in losses)
            self.changes[i] = change(self.losses[i])
