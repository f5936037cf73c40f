"""The statistics of few runs: robust means, bootstrap intervals, exact tests, and times that some runs never reached.

Pure functions of numbers, after Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice".
There, runs are drawn apart for every task, since every task has agents of its own. Here one agent plays all tasks, so its results
go together: a run is drawn whole, and the strata are the curricula.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from math import comb, sqrt

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MOST_SPLITS = 20_000  # of two samples that a permutation test tries one by one; beyond, that many at random


def iqm(values: Floats, axis: int = 0) -> Floats:
    """Interquartile mean: the mean without the lowest and the highest quarter, each rounded down to whole values.

    Of fewer than four values it is the mean.
    """
    ordered = np.sort(values, axis)
    cut = ordered.shape[axis] // 4
    kept = np.take(ordered, range(cut, ordered.shape[axis] - cut), axis)
    return np.asarray(kept.mean(axis))


def bootstrap(strata: Sequence[Floats], statistic: Callable[..., Floats], resamples: int, rng: np.random.Generator) -> Floats:
    """A statistic of runs drawn anew, with replacement, each stratum as many as it has.

    Args:
        strata: values of the runs of each stratum, (runs, ...).
        statistic: of one array (runs, ...) for each stratum.

    Returns:
        (resamples, ...)
    """
    return np.array([
        statistic(*(values[rng.integers(len(values), size=len(values))] for values in strata)) for _ in range(resamples)
    ])  # fmt: skip


def interval(draws: Floats, confidence: float) -> tuple[Floats, Floats]:
    """The percentile interval over the first axis: lower and upper end."""
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return low, high


def wilson(share: float, n: int, z: float = 1.96) -> tuple[float, float]:
    """The interval of a share of `n` independent draws (Wilson 1927), which is sound near 0 and 1, too: of 95 % by default."""
    if n < 1:
        return 0.0, 1.0
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def probability_of_improvement(x: Floats, y: Floats) -> Floats:
    """How often a run of `x` is better than one of `y`, ties counted half (Mann-Whitney)."""
    return np.asarray(((x[:, None] > y) + 0.5 * (x[:, None] == y)).mean())


def permutation_p(x: Floats, y: Floats, rng: np.random.Generator) -> float:
    """Two-sided p-value of `probability_of_improvement` being 0.5: over all ways to split the runs in two groups of these sizes.

    Exact where there are at most `MOST_SPLITS` of them. With 3 runs against 3 it cannot be below 0.1, with 4 against 4 0.029.
    """
    values, n = np.concatenate([x, y]), len(x)
    observed = abs(float(probability_of_improvement(x, y)) - 0.5)

    def apart(chosen: Sequence[int]) -> float:
        mask = np.zeros(len(values), bool)
        mask[list(chosen)] = True
        return abs(float(probability_of_improvement(values[mask], values[~mask])) - 0.5)

    exact = comb(len(values), n) <= MOST_SPLITS
    if exact:
        return float(np.mean([apart(split) >= observed - 1e-12 for split in combinations(range(len(values)), n)]))
    hits = sum(apart(rng.permutation(len(values))[:n].tolist()) >= observed - 1e-12 for _ in range(MOST_SPLITS))
    return (hits + 1) / (MOST_SPLITS + 1)


def smallest_p(n: int, m: int) -> float:
    """The smallest that `permutation_p` can answer for `n` runs against `m`, when every run of one side beats any of the other.

    Then no split is as far apart but that one and its mirror image; not even this where sizes differ and the larger side ties.
    """
    splits = comb(n + m, n)
    return (1 + (n == m)) / splits if splits <= MOST_SPLITS else 1 / (MOST_SPLITS + 1)


def holm(p: Sequence[float]) -> list[float]:
    """p-values corrected for how many there are (Holm 1979), in the same order."""
    order = sorted(range(len(p)), key=p.__getitem__)
    corrected, highest = [0.0] * len(p), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p) - rank) * p[index]))
        corrected[index] = highest
    return corrected


def area(steps: Floats, values: Floats) -> Floats:
    """Mean of a curve over its steps, by trapezoids: values (..., points) -> (...). Of a single point it is the value."""
    if len(steps) == 1:
        return np.asarray(values[..., 0])
    return np.asarray(np.trapezoid(values, steps, axis=-1) / (steps[-1] - steps[0]))


def worst(values: Floats, share: float = 0.1) -> float:
    """Mean of the lowest `share` of the values, of at least one."""
    ordered = np.sort(values, axis=None)
    return float(ordered[: max(1, int(share * len(ordered)))].mean())


def forgetting(success: Floats) -> Floats:
    """How far every task ended below the best it ever had: success (points, tasks) -> (tasks,) (Chaudhry et al. 2018).

    The best of several noisy figures lies above the truth, so it is above 0 without any forgetting.
    """
    return np.asarray(success.max(0) - success[-1])


def reached_share(reached: Sequence[float | None], ended: Sequence[float]) -> tuple[Floats, Floats]:
    """Share of runs that have reached something, over time: one minus the Kaplan-Meier estimate.

    A run that ended before it got there is censored: it counts among those that may get there until it ended.

    Args:
        reached: when each run got there, or None; ended: how long each run lasted.

    Returns:
        times at which the share rises, from 0 on, and the share from then on.
    """
    times = sorted({0.0, *(time for time in reached if time is not None)})
    left, shares = 1.0, []
    for time in times:
        under_way = sum((end if at is None else at) >= time for at, end in zip(reached, ended, strict=True))
        arrived = sum(at == time for at in reached)
        left *= 1 - arrived / under_way if under_way else 1
        shares.append(1 - left)
    return np.array(times), np.array(shares)


def median_reached(reached: Sequence[float | None], ended: Sequence[float]) -> float | None:
    """When half of the runs have got there; None where they have not."""
    times, shares = reached_share(reached, ended)
    there = np.flatnonzero(shares >= 0.5 - 1e-9)
    return float(times[there[0]]) if len(there) else None
