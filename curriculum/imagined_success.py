"""Play what sometimes succeeds in imagination: no env step is spent on finding out."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from curriculum.base import Curriculum
from curriculum.config import CurriculumConfig
from curriculum.weights import shares
from envs.tasks import Outcome, TaskSpace

PAIRS = 100  # newest episodes that estimates are compared with
BINS = 10  # of equal width, that estimates go into
TALLIES = ("episodes", "foretold", "came", "squared_error")  # of each bin, from the beginning of the run: numbers and sums


class ImaginedSuccess(Curriculum):
    """A task weighs p (1 - p), as in `learnability`, p being its success as the world model imagines it under the present policy.

    The estimate is new after every few updates, for tasks that are seldom played too; how well it holds is logged: `brier` is the
    mean squared distance from what the newest episodes came to (Brier 1950), `bias` the mean of estimate less success. What is
    needed for a reliability curve of any stretch of the run is logged as `reliability/BIN/WHAT`, sums that only grow: how many
    episodes ended whose estimate was in that tenth, their estimates, their successes and squared errors.

    Needs the signal `imagined_success`. What has no estimate yet counts as a toss-up.
    """

    required_signals = frozenset({"imagined_success"})
    reads = frozenset({"explore", "imagined_success"})

    def __init__(self, tasks: TaskSpace, config: CurriculumConfig) -> None:
        super().__init__(tasks, config)
        self.p = np.full(len(tasks), 0.5)
        self.known = np.zeros(len(tasks), bool)
        self.tallies = np.zeros((BINS, len(TALLIES)))
        self.pairs: deque[tuple[float, bool]] = deque(maxlen=PAIRS)  # of every episode: what was foretold, what came

    def observe(self, signals: Mapping[str, Mapping[str, float]]) -> None:
        for task, found in signals.items():
            if "imagined_success" in found:
                self.p[self.index[task]] = found["imagined_success"]
                self.known[self.index[task]] = True

    def update(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            i = self.index[outcome.task]
            if self.known[i]:
                # What takes longer than a rollout is a failure to it, so it is one here.
                p, came = float(self.p[i]), bool(outcome.success) and outcome.length <= self.config.imagined_success.horizon
                self.pairs.append((p, came))
                self.tallies[min(int(p * BINS), BINS - 1)] += (1, p, came, (p - came) ** 2)

    def distribution(self) -> np.ndarray:
        return shares(self.p * (1 - self.p), self.config.explore)

    def metrics(self) -> dict[str, float]:
        found = super().metrics()
        found |= {f"imagined/{task.id}": float(self.p[i]) for i, task in enumerate(self.tasks) if self.known[i]}
        if self.pairs:
            errors = np.array([estimate - success for estimate, success in self.pairs])
            found |= {"brier": float((errors**2).mean()), "bias": float(errors.mean())}
        for i in np.flatnonzero(self.tallies[:, 0]):
            names = (f"reliability/{i / BINS:.1f}/{name}" for name in TALLIES)
            found |= dict(zip(names, self.tallies[i].tolist(), strict=True))
        return found

    def state_dict(self) -> dict[str, Any]:
        pairs = [[p, int(success)] for p, success in self.pairs]
        return {"p": self.p.tolist(), "known": self.known.tolist(), "pairs": pairs, "tallies": self.tallies.tolist()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.p, self.known = np.array(state["p"], float), np.array(state["known"], bool)
        self.pairs = deque(((float(p), bool(success)) for p, success in state["pairs"]), maxlen=PAIRS)
        self.tallies = np.array(state.get("tallies", np.zeros((BINS, len(TALLIES)))), float)
