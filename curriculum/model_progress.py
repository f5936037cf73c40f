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


def change(losses: Sequence[float], certainty: float) -> float:
    """How far the mean of the newer half of some losses is from that of the older half, beyond what chance makes of it.

    `certainty` standard errors are taken off, with the noise's variance from successive losses, whose trend hardly shows (von
    Neumann et al. 1941). Of an odd number the oldest is left out.
    """
    half = len(losses) // 2
    if not half:
        return 0.0
    values = np.asarray(losses)[len(losses) - 2 * half :]
    variance = float((np.diff(values) ** 2).mean()) / 2
    moved = abs(float(values[half:].mean() - values[:half].mean()))
    return max(moved - certainty * float(np.sqrt(2 * variance / half)), 0.0)


class ModelProgress(Curriculum):
    """A task weighs as much as the world model's loss on it changes, beyond what chance makes of it.

    Learning progress of a predictor (Schmidhuber 1991; Oudeyer et al. 2007, doi:10.1109/TEVC.2006.890271): progress and not
    error, so that what cannot be foretold does not attract. The newest losses of a task are compared with those before them; what
    is older than both is forgotten, as a moving average would not quite: the loss of an untrained model is so great that little
    of it outweighs all that comes later. A loss that rises counts too: the policy has come to where the model has yet to learn,
    or it forgets.

    Needs the signal `model_loss`.
    """

    required_signals = frozenset({"model_loss"})

    def __init__(self, tasks: TaskSpace, config: CurriculumConfig) -> None:
        super().__init__(tasks, config)
        self.losses = [deque[float](maxlen=2 * config.model_progress.window) for _ in range(len(tasks))]
        self.changes = np.zeros(len(tasks))

    def observe(self, signals: Mapping[str, Mapping[str, float]]) -> None:
        for task, found in signals.items():
            if "model_loss" in found:
                i = self.index[task]
                self.losses[i].append(found["model_loss"])
                self.changes[i] = change(self.losses[i], self.config.model_progress.certainty)

    def progress(self) -> np.ndarray:
        """(N,) change of the loss beyond chance, in its own unit."""
        return self.changes

    def distribution(self) -> np.ndarray:
        return shares(self.progress(), self.config.explore)

    def metrics(self) -> dict[str, float]:
        newest = np.array([np.mean([*losses][-self.config.model_progress.window :]) if losses else 0.0 for losses in self.losses])
        return super().metrics() | self.named("progress", self.progress()) | self.named("loss", newest)

    def state_dict(self) -> dict[str, Any]:
        return {"losses": [list(losses) for losses in self.losses]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for i, losses in enumerate(state["losses"]):
            self.losses[i].clear()
            self.losses[i].extend(float(loss) for loss in losses)
            self.changes[i] = change(self.losses[i], self.config.model_progress.certainty)
