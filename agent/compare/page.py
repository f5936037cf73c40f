"""Puts a comparison on one page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agent.compare.comparison import LEVEL, Arm, Comparison, Estimate, Verdict
from agent.compare.figures import (
    MOST_PAIRS,
    band_figure,
    imagined_figures,
    pairs_figure,
    probability_figures,
    reached_figure,
    success_figures,
    within_horizon,
)
from agent.report.figures import duration
from agent.report.imagined import HALVES, Tally
from agent.run_folder import write_text

PAGE = "comparison.html"
DASH = "–"
MOST_TASKS = 12  # columns of the table of runs


def write_page(comparison: Comparison, folder: Path) -> Path:
    """Write `comparison.html`, a page that needs no other file and no network; answers its path."""
    write_text(folder / PAGE, render(comparison))
    return folder / PAGE


def render(comparison: Comparison) -> str:
    """The page as HTML."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    own = Path(__file__).parent
    templates = Environment(
        loader=FileSystemLoader([own, own.parent / "report"]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    settings = comparison.settings
    percent = f"{100 * settings.confidence:g} %"
    how = f"IQM over runs; band: {percent} bootstrap interval, runs drawn whole."
    return templates.get_template("comparison.html.j2").render(
        comparison=comparison,
        percent=percent,
        level=LEVEL,
        dash=DASH,
        tiles=_tiles(comparison),
        findings=findings_of(comparison),
        results=[_result(comparison, arm) for arm in comparison.arms],
        mastery=band_figure(
            comparison, "mastered", "Tasks mastered", "share of test tasks",
            f"Share of test tasks with success of {settings.threshold:g} or more. {how}",
        ),
        success=band_figure(comparison, "success", "Success", "success", "IQM over runs and test tasks; band: as for mastery."),
        reached=reached_figure(comparison),
        pairs=pairs_figure(comparison),
        many=_many_pairs(comparison),
        probabilities=probability_figures(comparison),
        successes=success_figures(comparison),
        foretold=imagined_figures(comparison),
        scores=foretold_of(comparison),
        costs=costs_of(comparison),
        runs=[_run(arm, i) for arm in comparison.arms for i in range(len(arm.runs))],
        shown=comparison.tasks[-MOST_TASKS:],
        untrained=[task for task in comparison.tasks if task not in comparison.trained],
    )  # fmt: skip


def _tiles(comparison: Comparison) -> list[tuple[str, str]]:
    best = comparison.arms[0]
    figures = comparison.figures[best.name]
    return [
        ("curricula", str(sum(not arm.learner for arm in comparison.arms))),
        ("runs", str(len(comparison.runs))),
        ("env steps a run", f"{max(run.env_steps for run in comparison.runs):,}"),
        ("test tasks, of which never trained on", f"{len(comparison.tasks)}, {len(comparison.tasks) - len(comparison.trained)}"),
        (f"largest area: {best.name}", f"{figures['area'].value:.2f}"),
    ]


def findings_of(comparison: Comparison) -> list[str]:
    """What so few runs could not have shown, if anything; then a sentence on every curriculum but the baseline."""
    return _out_of_reach(comparison.verdicts) + [_finding(verdict) for verdict in comparison.verdicts]


def _out_of_reach(verdicts: Sequence[Verdict]) -> list[str]:
    """Which curricula this number of runs cannot tell from the baseline, whatever the runs show, and which it could."""
    beyond, within = (
        ", ".join(f"{v.pair.left} ({v.smallest:.3g})" for v in verdicts if v.attainable == attainable)
        for attainable in (False, True)
    )
    if not beyond:
        return []
    enough = f" Enough to tell: {within}." if within else ""
    least = "In brackets is the smallest p that they can have, corrected."
    return [f"Too few runs to tell from {verdicts[0].pair.right}, whatever they show: {beyond}.{enough} {least}"]


def foretold_of(comparison: Comparison) -> list[str]:
    """A sentence on every curriculum whose runs had their successes foretold: is that better than no foresight?"""
    return [_foretold(arm) for arm in comparison.arms if arm.halves]


def _finding(verdict: Verdict) -> str:
    """A sentence: can the two be told apart?"""
    pair, seen = verdict.pair, verdict.pair.improvement
    numbers = f"probability of improvement {seen.value:.2f}, {seen.low:.2f} to {seen.high:.2f}, p = {verdict.p:.3f}"
    if not verdict.apart:
        return f"{pair.left} cannot be told apart from {pair.right} with these runs ({numbers})."
    return f"{pair.left} is {'better' if seen.value > 0.5 else 'worse'} than {pair.right} ({numbers})."


def _foretold(arm: Arm) -> str:
    said = []
    for half, name in enumerate(HALVES):
        tally = Tally(np.sum(arm.halves, 0)[half])
        if tally.episodes:
            gain = tally.uninformed - tally.brier
            how = "better than" if gain > 0 else "worse than" if gain < 0 else "as well as"
            said.append(f"{how} the baseline in the {name} (Brier score {tally.brier:.3f}, baseline {tally.uninformed:.3f})")
    if not said:
        return f"{arm.name}: no episode ended of which success had been foretold."
    success = f"success {within_horizon(arm)}"
    return f"{arm.name}: {success} was foretold {' and '.join(said)}. The baseline always foretells the share of successes."


def _result(comparison: Comparison, arm: Arm) -> dict[str, Any]:
    figures = comparison.figures[arm.name]
    there = sum(steps is not None for steps in arm.reached)
    median = arm.median_reached
    return {
        "name": arm.name,
        "runs": len(arm.runs),
        "figures": [_estimate(figures[name]) for name in ("area", "mastered", "success", "hardest", "worst", "forgotten")],
        "steps": f"{median:,.0f}" if median is not None else f"> {min(arm.ended):,.0f}",
        "there": f"{there} of {len(arm.runs)}",
    }


def _many_pairs(comparison: Comparison) -> list[tuple[str, list[tuple[str, str] | None]]]:
    """Where pairs are too many for a figure: for each curriculum its probability of improvement over every one, with interval."""
    if len(comparison.pairs) <= MOST_PAIRS:
        return []
    seen = {(pair.left, pair.right): _estimate(pair.improvement) for p in comparison.pairs for pair in (p, p.turned())}
    names = [arm.name for arm in comparison.arms]
    return [(left, [seen.get((left, right)) for right in names]) for left in names]


def costs_of(comparison: Comparison) -> dict[str, Any]:
    """A row for each curriculum; of figures that not every run has a column where any run has them."""
    runs = comparison.runs
    return {
        "rows": [_cost(arm) for arm in comparison.arms],
        "own": any(run.curriculum_seconds is not None for run in runs),
        "judged": any(run.judged_steps is not None for run in runs),
    }


def _cost(arm: Arm) -> dict[str, Any]:
    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    own = [run.curriculum_seconds for run in arm.runs if run.curriculum_seconds is not None]
    judged = [run.judged_steps for run in arm.runs if run.judged_steps is not None]
    return {
        "name": arm.name,
        "env_steps": f"{mean(arm.ended):,.0f}",
        "updates": f"{mean([float(run.updates) for run in arm.runs]):,.0f}",
        "wall": duration(mean([run.wall_seconds for run in arm.runs])),
        "own": duration(mean(own)) + _of(own, arm) if own else DASH,
        "judged": f"{mean(judged):,.0f}" + _of(judged, arm) if judged else DASH,
        "evaluation": duration(mean([run.evaluation_seconds for run in arm.runs])),
        "episodes": [f"{mean([float(run.episodes.get(task, 0)) for run in arm.runs]):,.0f}" for task in arm.runs[0].trained],
    }


def _of(measured: list[float], arm: Arm) -> str:
    """Of how many runs a figure is, where not of all."""
    return "" if len(measured) == len(arm.runs) else f" ({len(measured)} of {len(arm.runs)} runs)"


def _run(arm: Arm, index: int) -> dict[str, Any]:
    run, reached = arm.runs[index], arm.reached[index]
    return {
        "name": arm.name,
        "seed": run.seed,
        "area": f"{arm.areas[index]:.2f}",
        "mastered": f"{arm.mastered[index, -1]:.2f}",
        "steps": f"{reached:,.0f}" if reached is not None else f"> {run.env_steps:,}",
        "success": [f"{value:.2f}" for value in arm.final[index][-MOST_TASKS:]],
        "wall": duration(run.wall_seconds),
    }


def _estimate(estimate: Estimate) -> tuple[str, str]:
    return f"{estimate.value:.2f}", f"{estimate.low:.2f} to {estimate.high:.2f}"
