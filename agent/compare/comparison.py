"""What a comparison finds: each curriculum's figures with their intervals, every pair, and which can be told apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations

import numpy as np

from agent.compare.runs import Run, differences
from agent.compare.statistics import (
    Floats,
    area,
    bootstrap,
    forgetting,
    holm,
    interval,
    iqm,
    median_reached,
    permutation_p,
    probability_of_improvement,
    smallest_p,
    worst,
)
from agent.config import CompareConfig
from envs.errors import UserError

LEVEL = 0.05  # of the corrected p-value below which two curricula count as told apart


@dataclass(frozen=True)
class Estimate:
    """A figure with the interval of its bootstrap."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Arm:
    """All runs of one curriculum, at the evaluations that every run has.

    Attributes:
        steps: (points,) env steps.
        success: (runs, points, tasks).
    """

    name: str
    runs: tuple[Run, ...]
    steps: Floats
    success: Floats
    threshold: float

    @property
    def learner(self) -> str:
        """The name of another learner than ours, else nothing."""
        return self.runs[0].learner

    @property
    def halves(self) -> list[Floats]:
        """Of every run that had its successes foretold, `Run.halves`."""
        return [run.halves for run in self.runs if run.halves is not None]

    @cached_property
    def mastered(self) -> Floats:
        """Share of test tasks mastered, (runs, points)."""
        # A hair below, since 0.9 * 100 is 90 only up to rounding.
        return np.asarray((self.success >= self.threshold - 1e-9).mean(-1))

    @cached_property
    def areas(self) -> Floats:
        """Area under the curve of `mastered`, (runs,): the primary figure."""
        return area(self.steps, self.mastered)

    @property
    def final(self) -> Floats:
        """Success at the end, (runs, tasks)."""
        return self.success[:, -1]

    @cached_property
    def forgotten(self) -> Floats:
        """How far tasks ended below their best, mean over tasks, (runs,)."""
        return np.array([forgetting(run).mean() for run in self.success])

    @property
    def reached(self) -> list[float | None]:
        """Env steps of each run's first evaluation with success of the threshold or more on the hardest task trained on."""
        return [run.reached(self.threshold) for run in self.runs]

    @property
    def ended(self) -> list[float]:
        return [float(run.env_steps) for run in self.runs]

    @property
    def median_reached(self) -> float | None:
        return median_reached(self.reached, self.ended)


@dataclass(frozen=True)
class Pair:
    """Two curricula, by the areas of their runs.

    Attributes:
        improvement: the probability that a run of `left` is better than one of `right`.
        p: of the permutation test, not corrected.
    """

    left: str
    right: str
    improvement: Estimate
    p: float

    def turned(self) -> Pair:
        """The same, seen from the other side."""
        seen = self.improvement
        return Pair(self.right, self.left, Estimate(1 - seen.value, 1 - seen.high, 1 - seen.low), self.p)


@dataclass(frozen=True)
class Verdict:
    """A curriculum against the baseline.

    Attributes:
        p: corrected for the number of curricula (Holm).
        smallest: that `p` could be with so many runs and curricula, whatever the runs showed.
    """

    pair: Pair
    p: float
    smallest: float

    @property
    def apart(self) -> bool:
        low, high = self.pair.improvement.low, self.pair.improvement.high
        return self.p < LEVEL and not low <= 0.5 <= high

    @property
    def attainable(self) -> bool:
        """Whether so many runs could tell the two apart at all."""
        return self.smallest < LEVEL


@dataclass
class Comparison:
    """Everything that a report shows.

    Attributes:
        bands: for each curriculum the IQM of its share of mastered tasks and of its success, (points,) with low and high ends.
        figures: for each curriculum its table of results.
        baseline: what the others are measured against; None where it was not run.
        notes: sentences on what was left out, and on what is unequal.
    """

    settings: CompareConfig
    arms: list[Arm]
    bands: dict[str, dict[str, tuple[Floats, Floats, Floats]]] = field(default_factory=dict)
    figures: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    pairs: list[Pair] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    baseline: str | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def runs(self) -> list[Run]:
        return [run for arm in self.arms for run in arm.runs]

    @property
    def trained(self) -> tuple[str, ...]:
        return self.runs[0].trained

    @property
    def tasks(self) -> tuple[str, ...]:
        return self.runs[0].tasks


def check_compare(config: CompareConfig) -> None:
    """Refuse settings that make no sense.

    Raises:
        UserError: a number out of range.
    """
    if not 0 < config.threshold <= 1:
        raise UserError(f"compare.threshold={config.threshold} is a share of episodes: give more than 0, and at most 1")
    if not 0 < config.confidence < 1:
        raise UserError(f"compare.confidence={config.confidence} has to lie between 0 and 1")
    if config.resamples < 100:
        raise UserError(f"compare.resamples={config.resamples} is too few for an interval: give 100 or more")


# Figures of one curriculum's runs: success (runs, points, tasks), areas (runs,), forgotten (runs,) -> a number.
FIGURES: dict[str, Callable[[Floats, Floats, Floats, float], Floats]] = {
    "area": lambda success, areas, forgotten, threshold: iqm(areas),
    "mastered": lambda success, areas, forgotten, threshold: iqm((success[:, -1] >= threshold - 1e-9).mean(-1)),
    "success": lambda success, areas, forgotten, threshold: iqm(success[:, -1].ravel()),
    "hardest": lambda success, areas, forgotten, threshold: iqm(success[:, -1, -1]),
    "worst": lambda success, areas, forgotten, threshold: np.asarray(worst(success[:, -1])),
    "forgotten": lambda success, areas, forgotten, threshold: iqm(forgotten),
}


def compare(runs: Sequence[Run], config: CompareConfig, rng: np.random.Generator) -> Comparison:
    """Compare the curricula of runs that were evaluated on the same tasks."""
    arms = _arms(runs, config.threshold)
    comparison = Comparison(config, arms, notes=_inequalities(runs))

    def estimate(value: Floats, draws: Floats) -> tuple[Floats, Floats, Floats]:
        return value, *interval(draws, config.confidence)

    for arm in arms:
        pooled = {"mastered": arm.mastered[..., None], "success": arm.success}
        comparison.bands[arm.name] = {
            name: estimate(_over_time(values), bootstrap([values], _over_time, config.resamples, rng))
            for name, values in pooled.items()
        }
        together = np.concatenate([arm.success.reshape(len(arm.runs), -1), arm.areas[:, None], arm.forgotten[:, None]], 1)

        def figures(together: Floats, arm: Arm = arm) -> Floats:
            success = together[:, :-2].reshape(-1, *arm.success.shape[1:])
            return np.array([f(success, together[:, -2], together[:, -1], config.threshold) for f in FIGURES.values()])

        values, low, high = estimate(figures(together), bootstrap([together], figures, config.resamples, rng))
        comparison.figures[arm.name] = {
            name: Estimate(float(values[i]), float(low[i]), float(high[i])) for i, name in enumerate(FIGURES)
        }
    comparison.pairs = [_pair(left, right, config, rng) for left, right in combinations(arms, 2)]
    if config.baseline in comparison.figures:
        comparison.baseline = config.baseline
        turned = [pair.turned() if pair.left == config.baseline else pair for pair in comparison.pairs]
        others = {arm.name for arm in arms if arm.learner}  # they say nothing about curricula
        against = [pair for pair in turned if pair.right == config.baseline and pair.left not in others]
        comparison.verdicts = _verdicts(against, {arm.name: len(arm.runs) for arm in arms})
    return comparison


def _verdicts(against: Sequence[Pair], sizes: Mapping[str, int]) -> list[Verdict]:
    """Of pairs with the baseline on the right, given the number of runs of every curriculum."""
    corrected = holm([pair.p for pair in against])
    # Holm's p of one falls with those of the others, so each is smallest when all are.
    smallest = holm([smallest_p(sizes[pair.left], sizes[pair.right]) for pair in against])
    return [Verdict(*found) for found in zip(against, corrected, smallest, strict=True)]


def _over_time(values: Floats) -> Floats:
    """IQM over runs and tasks at every point: (runs, points, tasks) -> (points,)."""
    return iqm(values.swapaxes(1, 2).reshape(-1, values.shape[1]))


def _pair(left: Arm, right: Arm, config: CompareConfig, rng: np.random.Generator) -> Pair:
    draws = bootstrap([left.areas, right.areas], probability_of_improvement, config.resamples, rng)
    low, high = interval(draws, config.confidence)
    value = float(probability_of_improvement(left.areas, right.areas))
    return Pair(left.name, right.name, Estimate(value, float(low), float(high)), permutation_p(left.areas, right.areas, rng))


def _arms(runs: Sequence[Run], threshold: float) -> list[Arm]:
    """Runs by curriculum, the best first and other learners last; all on the steps of that of our runs with the fewest
    evaluations, so that areas compare."""
    own = [run for run in runs if not run.learner] or runs
    grid = min((run.steps for run in own), key=len)
    start = max(run.steps[0] for run in runs)
    grid = grid[grid >= start] if (grid >= start).any() else grid[-1:]
    names = dict.fromkeys(run.curriculum for run in runs)
    arms = []
    for name in names:
        of_it = tuple(sorted((run for run in runs if run.curriculum == name), key=lambda run: run.seed))
        arms.append(Arm(name, of_it, grid, np.stack([_at(run, grid) for run in of_it]), threshold))
    return sorted(arms, key=lambda arm: (bool(arm.learner), -float(iqm(arm.areas)), -float(arm.final.mean()), arm.name))


def _at(run: Run, grid: Floats) -> Floats:
    """The last evaluation up to each step of the grid, (points, tasks); at its last step the run's last one."""
    index = np.searchsorted(run.steps, grid, side="right") - 1
    index[-1] = len(run.steps) - 1
    return np.asarray(run.success[np.maximum(index, 0)])


def _inequalities(runs: Sequence[Run]) -> list[str]:
    """What makes the comparison less than fair, a sentence each."""
    notes = [
        f"The runs differ in more than curriculum and seed: {key} is {' or '.join(value[:80] for value in values[:4])}."
        for key, values in list(differences(runs).items())[:8]
    ]
    own = [run for run in runs if not run.learner] or runs
    for name, counts in {"env steps": [run.env_steps for run in runs], "updates": [run.updates for run in own]}.items():
        if max(counts) > 1.01 * min(counts):
            notes.append(f"The runs had unequal numbers of {name}: from {min(counts):,} to {max(counts):,}.")
    if any(len(run.steps) == 1 for run in runs):
        notes.append("Not every run was evaluated on the way (eval.every=0), so only its end is compared.")
    notes += [
        f"{name} is another learner, shown for scale: no conclusion on curricula is drawn from it."
        for name in dict.fromkeys(run.curriculum for run in runs if run.learner)
    ]
    return notes
