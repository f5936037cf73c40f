"""What `benchmarks.planner` makes of its figures: all seeds together, with intervals, and tables of 80 columns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from agent.compare.statistics import wilson

ALONE = "0"  # candidates: the policy alone
TIMES = ("milliseconds", "milliseconds_of_16")


def paired_difference(both: int, gained: int, lost: int, neither: int) -> tuple[float, float, float]:
    """How much larger one share of successes is than another of the same episodes, with its 95 % interval.

    Newcombe 1998, "Improved confidence intervals for the difference between binomial proportions based on paired data",
    method 10: the Wilson intervals of both shares, squared and added, less for how the outcomes go together.

    Args:
        both, gained, lost, neither: episodes with success either way, the first way only, the second way only, in no way.

    Returns:
        The difference, the lower and the upper end.
    """
    n = both + gained + lost + neither
    first, second = both + gained, both + lost
    p, q = first / n, second / n
    (low, high), (other_low, other_high) = wilson(p, n), wilson(q, n)
    together = float(both * neither - gained * lost)
    if together > 0:
        together = max(together - n / 2, 0.0)  # corrected for continuity
    margins = first * (n - first) * second * (n - second)
    phi = together / math.sqrt(margins) if margins else 0.0

    def apart(x: float, y: float) -> float:
        return math.sqrt(max(x * x - 2 * phi * x * y + y * y, 0.0))

    return p - q, max(-1.0, p - q - apart(p - low, other_high - q)), min(1.0, p - q + apart(q - other_low, high - p))


def pooled(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """All seeds of a variant at equal env steps, and the difference to the policy alone on the same layouts.

    The intervals are over layouts, of the agents that there are: they do not say how other training seeds would differ.

    Returns:
        `[{variant, task, env_steps, seeds, candidates: {M: {successes, episodes, success, low, high, more}}}]`; `more` is
        `{value, low, high, gained, lost}`, the last two in episodes, and `None` of the policy alone.
    """
    groups: dict[tuple[str, str, int], list[tuple[int, Mapping[str, Any]]]] = {}
    for run in runs:
        for checkpoint in run["checkpoints"]:
            key = (run["variant"], checkpoint["task"], checkpoint["env_steps"])
            groups.setdefault(key, []).append((run["seed"], checkpoint["candidates"]))
    rows = []
    for (variant, task, env_steps), found in sorted(groups.items()):
        outcomes = {
            candidates: [outcome for _, measured in found for outcome in measured[candidates]["outcomes"]]
            for candidates in found[0][1]
        }
        rows.append({
            "variant": variant,
            "task": task,
            "env_steps": env_steps,
            "seeds": [seed for seed, _ in found],
            "candidates": {
                candidates: {**_share(own), "more": None if candidates == ALONE else _more(own, outcomes[ALONE])}
                for candidates, own in outcomes.items()
            },
        })  # fmt: skip
    return rows


def _share(outcomes: Sequence[bool]) -> dict[str, Any]:
    success = sum(outcomes) / len(outcomes)
    low, high = wilson(success, len(outcomes))
    return {"successes": sum(outcomes), "episodes": len(outcomes), "success": success, "low": low, "high": high}


def _more(planned: Sequence[bool], alone: Sequence[bool]) -> dict[str, Any]:
    pairs = list(zip(planned, alone, strict=True))
    gained, lost = pairs.count((True, False)), pairs.count((False, True))
    value, low, high = paired_difference(pairs.count((True, True)), gained, lost, pairs.count((False, False)))
    return {"value": value, "low": low, "high": high, "gained": gained, "lost": lost}


def costs(runs: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """`{variant: {M: {milliseconds, milliseconds_of_16}}}` a decision: medians over all checkpoints of all seeds."""
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for run in runs:
        for checkpoint in run["checkpoints"]:
            for candidates, figures in checkpoint["candidates"].items():
                taken = found.setdefault(run["variant"], {}).setdefault(candidates, {name: [] for name in TIMES})
                for name in TIMES:
                    taken[name].append(figures[name])
    return {
        variant: {candidates: {name: median(values) for name, values in taken.items()} for candidates, taken in of.items()}
        for variant, of in found.items()
    }


def show(result: dict[str, Any]) -> Group:
    """Of every variant what each seed did, what all did together, and what a decision costs; then what failed."""
    shown: list[RenderableType] = []
    for variant in dict.fromkeys(run["variant"] for run in result["runs"] if run["checkpoints"]):
        runs = [run for run in result["runs"] if run["variant"] == variant and run["checkpoints"]]
        rows = [row for row in result["pooled"] if row["variant"] == variant]
        task = runs[0]["checkpoints"][0]["task"]
        shown += [Text(f"{variant}: held-out success on {task} (95 % interval)", "italic"), _seeds_table(runs)]
        shown += [Text(f"{variant}: all seeds together", "italic"), _pooled_table(rows)]
        shown += [Text("Intervals are over layouts, of these agents; other training seeds may differ.", "dim")]
        shown += [Text(f"{variant}: milliseconds a decision", "italic"), _costs_table(result["costs"][variant])]
    failed = [run for run in result["runs"] if run["error"] is not None]
    return Group(*shown, *(Text(f"{run['variant']} seed {run['seed']} failed: {run['error']}") for run in failed))


def _seeds_table(runs: Sequence[Mapping[str, Any]]) -> Table:
    table = _table("seed", "env\nsteps", *(f"{candidates} candidates" for candidates in runs[0]["checkpoints"][0]["candidates"]))
    for run in runs:
        for checkpoint in run["checkpoints"]:
            shares = [_interval(_share(figures["outcomes"])) for figures in checkpoint["candidates"].values()]
            table.add_row(str(run["seed"]), f"{checkpoint['env_steps']:,}", *shares)
        table.add_section()
    return table


def _pooled_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = _table("env\nsteps", "epi-\nsodes", "candi-\ndates", "success", "more than with 0,\non the same layouts")
    for row in rows:
        for candidates, figures in row["candidates"].items():
            more = figures["more"]
            said = "" if more is None else f"{more['value']:+.2f} ({more['low']:+.2f} to {more['high']:+.2f})"
            table.add_row(f"{row['env_steps']:,}", str(figures["episodes"]), candidates, _interval(figures), said)
        table.add_section()
    return table


def _costs_table(taken: Mapping[str, Mapping[str, float]]) -> Table:
    table = _table("candidates", "1 env", "16 envs")
    for candidates, figures in taken.items():
        table.add_row(candidates, *(f"{figures[name]:,.1f}" for name in TIMES))
    return table


def _table(*names: str) -> Table:
    """Figures that have no room break into lines, so that none is cut."""
    table = Table()
    for name in names:
        table.add_column(name, justify="right", overflow="fold")
    return table


def _interval(figures: Mapping[str, float]) -> str:
    return f"{figures['success']:.2f} ({figures['low']:.2f}-{figures['high']:.2f})"
