"""What the records of `benchmarks.hierarchy` come to: pure functions of records, over seeds with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from agent.compare.statistics import area as mean_of_curve
from agent.compare.statistics import bootstrap, interval, permutation_p, probability_of_improvement, smallest_p
from benchmarks.comparison import median_reached
from benchmarks.mastery import Curve
from benchmarks.store import Record

AT = (10_000, 20_000, 30_000, 40_000)  # env steps at which runs are compared: every variant is played so long
CONFIDENCE, RESAMPLES = 0.95, 2000
FEW = 0.1  # p-value that has to do where there are no more than three runs against three
HALF = 0.5  # of the success, which shuffled goals are to cost
PPO: dict[str, tuple[tuple[int | None, ...], int]] = {
    "multiroom": ((None, None, None), 600_000),
    "keycorridor": ((293_000, 227_000, 373_000), 600_000),
    "doorkey": ((109_000, 223_000, 92_000), 600_000),
}
"""Env steps of PPO (stable-baselines3) under a sequential curriculum to the same threshold on the hardest task, seeds 1 to 3, and
how long a run was at most; measured before this project began."""


def success_at(points: Sequence[Sequence[float]], steps: int) -> float:
    """Success after so many env steps, on a straight line between two evaluations, from 0 before any step; after a run's end as
    it was then."""
    known = [(0.0, 0.0), *((float(at), float(success)) for at, success in points)]
    return float(np.interp(steps, [at for at, _ in known], [success for _, success in known]))


def area(curve: Curve) -> float:
    """Mean of the success over tasks and over the first `AT[-1]` env steps, by trapezoids between `AT`."""
    at = (0, *AT)
    success = np.array([[success_at(points, n) for n in at] for points in curve.values()])
    return float(mean_of_curve(np.array(at, float), success).mean())


def run_figures(record: Record, tasks: Sequence[str]) -> dict[str, Any]:
    """Of one run: what its table rows show. Of one that failed its error alone.

    Goals are looked at, and swapped, on the hardest task that was mastered in training or, as 40,000 env steps may be too few for
    that, is solved half of the time.
    """
    found = record["figures"]
    if record["error"] is not None:
        return {"error": record["error"], "commit": record["commit"], "reached": None}
    held_out, last = found["held_out"], {task: found["tasks"][task] for task in tasks}
    reached = found["steps_to_threshold"]
    able = [task for task in tasks if reached.get(task) is not None or last[task]["success"] >= HALF]
    hardest = able[-1] if able else None
    swapped = last[hardest].get("goals") if hardest else None
    return {
        "error": None,
        "commit": record["commit"],
        "begun": begun(found["mastery"].get(tasks[-1], [])),
        "reached": found["reached"],
        "env_steps": found["env_steps"],
        "updates": found["updates"],
        "area": area(held_out),
        "at": [success_at(held_out[tasks[-1]], n) for n in AT],
        "held_out": [last[task]["success"] for task in tasks],
        "forgotten": max((lost for task, lost in found["forgotten"].items() if task != tasks[-1]), default=None),
        "swapped": {"task": hardest, **swapped} if swapped else None,
        "goals": {"task": hardest, **told} if (told := found.get("goals", {}).get(hardest)) else None,
        "lead": lead(found["mastery"][tasks[-1]], found.get("practice", {}).get(tasks[-1], [])),
        "wall_seconds": found["wall_seconds"],
    }


def begun(points: Sequence[Sequence[float]]) -> float | None:
    """Env steps of the first point that was kept of a task's training curve, None of none: by then an episode of it that counts
    had ended. Curves of earlier records may lack up to the first few log lines (`mastery_curve`)."""
    return float(points[0][0]) if points else None


def lead(judged: Sequence[Sequence[float]], practice: Sequence[Sequence[float]]) -> float | None:
    """How far a director's explorer is ahead of its manager and worker: training success of the former's episodes less that of
    the latter's, each over the last 100 of a task. The mean over the env steps in which both are known, by trapezoids between
    the points of both; None where there are no such steps, as of a flat policy."""
    if not judged or not practice:
        return None
    start, end = max(judged[0][0], practice[0][0]), min(judged[-1][0], practice[-1][0])
    if end <= start:
        return None
    at = np.array(sorted({start, end, *(float(n) for n, _ in (*judged, *practice) if start < n < end)}))
    ours, theirs = (np.interp(at, *np.array(points, float).T) for points in (judged, practice))
    return float(mean_of_curve(at, theirs - ours))


def variant_figures(records: Sequence[Record], tasks: Sequence[str]) -> dict[str, Any]:
    """`{runs: {seed: run_figures}, failed, steps, area, at, seconds}`: `steps` is a median in which what never got there, or
    failed, counts as longer than any; the last three are `[mean, low, high]` over the runs that finished, by the bootstrap."""
    runs = {str(record["seed"]): run_figures(record, tasks) for record in sorted(records, key=lambda r: r["seed"])}
    finished = [run for run in runs.values() if run["error"] is None]
    return {
        "runs": runs,
        "failed": len(runs) - len(finished),
        "steps": median_reached([run["reached"] for run in runs.values()]),
        "area": mean_interval([run["area"] for run in finished]),
        "at": mean_interval([float(np.mean(run["at"])) for run in finished]),
        "seconds": mean_interval([run["wall_seconds"] for run in finished]),
    }


def mean_interval(values: Sequence[float]) -> list[float] | None:
    """`[mean, low, high]`: of a single run no interval, `[mean, mean, mean]`; None of none."""
    if not values:
        return None
    draws = bootstrap([np.array(values)], lambda x: np.asarray(x.mean()), RESAMPLES, np.random.default_rng(0))
    low, high = interval(draws, CONFIDENCE)
    return [float(np.mean(values)), float(low), float(high)]


def ahead(ours: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any] | None:
    """Of two variants, success on the hardest task at equal steps (the mean over `AT`): `difference` with its bootstrap interval,
    `low` and `high`; `probability`, how often a run is better; `p`, the p-value of the two being the same. `ahead`: the
    interval, too narrow of so few runs, is above 0, and p at most 0.05 or, of three against three, 0.1, their smallest."""
    a, b = (
        np.array([float(np.mean(run["at"])) for run in figures["runs"].values() if run["error"] is None])
        for figures in (ours, other)
    )
    if not len(a) or not len(b):
        return None
    rng = np.random.default_rng(0)
    draws = bootstrap([a, b], lambda x, y: np.asarray(x.mean() - y.mean()), RESAMPLES, rng)
    low, high = interval(draws, CONFIDENCE)
    p = permutation_p(a, b, rng)
    return {
        "difference": float(a.mean() - b.mean()),
        "low": float(low),
        "high": float(high),
        "probability": float(probability_of_improvement(a, b)),
        "p": p,
        "ahead": bool(low > 0 and p <= max(1 - CONFIDENCE, min(FEW, smallest_p(len(a), len(b)))) + 1e-9),
    }


def share_of_ppo(family: str, steps: float | None) -> float | None:
    """A median of env steps as a share of PPO's median; None where one of them never got there."""
    median = median_reached(PPO[family][0])
    return None if steps is None or median is None else steps / median


def swap_counts(figures: Mapping[str, Any]) -> tuple[int, int]:
    """Runs whose success falls by half or more when goals are shuffled (`run_figures` says on which task), and all runs of which
    that is known."""
    swapped = [run["swapped"] for run in figures["runs"].values() if run.get("swapped")]
    lost = [found["shuffled"]["lost"] for found in swapped if found.get("shuffled", {}).get("lost") is not None]
    return sum(share >= HALF for share in lost), len(lost)
