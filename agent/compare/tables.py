"""A comparison as CSV files, for whoever draws figures of their own."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agent.compare.comparison import Comparison
from agent.report.imagined import HALVES, Tally
from agent.run_folder import write_text


def write_tables(comparison: Comparison, folder: Path) -> list[Path]:
    """Write `runs.csv` (a row a run), `curves.csv` (a row an evaluation and task), `pairs.csv` and, where imagination foretold
    success, `imagined.csv` (a row a run, half and tenth); answers their paths."""
    tables = {"runs.csv": _runs(comparison), "curves.csv": _curves(comparison), "pairs.csv": _pairs(comparison)}
    if any(arm.halves for arm in comparison.arms):
        tables["imagined.csv"] = _imagined(comparison)
    for name, (head, rows) in tables.items():
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(head)
        writer.writerows([_cell(value) for value in row] for row in rows)
        write_text(folder / name, file.getvalue())
    return [folder / name for name in tables]


Table = tuple[Sequence[str], Iterable[Sequence[Any]]]


def _runs(comparison: Comparison) -> Table:
    head = [
        "curriculum", "seed", "area", "mastered", "success", "worst_task", "forgotten", "steps_to_threshold", "env_steps",
        "updates", "wall_seconds", "evaluation_seconds", "curriculum_seconds", "judged_steps",
        *(f"success/{task}" for task in comparison.tasks), *(f"episodes/{task}" for task in comparison.trained), "folder",
    ]  # fmt: skip
    rows = [
        [
            arm.name, run.seed, arm.areas[i], arm.mastered[i, -1], arm.final[i].mean(), arm.final[i].min(), arm.forgotten[i],
            arm.reached[i], run.env_steps, run.updates, run.wall_seconds, run.evaluation_seconds, run.curriculum_seconds,
            run.judged_steps, *arm.final[i], *(run.episodes.get(task) for task in comparison.trained), str(run.folder),
        ]
        for arm in comparison.arms for i, run in enumerate(arm.runs)
    ]  # fmt: skip
    return head, rows


def _curves(comparison: Comparison) -> Table:
    """At every evaluation, and how likely the task was to be played next then (nothing for tasks never trained on)."""
    rows = []
    for run in comparison.runs:
        for step, success in zip(run.steps, run.success, strict=True):
            line = np.searchsorted(run.probability_steps, step, side="right") - 1
            likely = run.probability[line] if line >= 0 else []
            chance = dict(zip(run.trained, likely, strict=False))
            rows += [
                [run.curriculum, run.seed, int(step), task, value, chance.get(task)]
                for task, value in zip(run.tasks, success, strict=True)
            ]
    return ["curriculum", "seed", "env_steps", "task", "success", "probability"], rows


def _pairs(comparison: Comparison) -> Table:
    rows = [[p.left, p.right, p.improvement.value, p.improvement.low, p.improvement.high, p.p] for p in comparison.pairs]
    return ["better", "than", "probability_of_improvement", "low", "high", "permutation_p"], rows


def _imagined(comparison: Comparison) -> Table:
    rows = [
        [run.curriculum, run.seed, half, *found, Tally(values).brier]
        for run in comparison.runs if run.halves is not None
        for half, values in zip(HALVES, run.halves, strict=True)
        for found in Tally(values).bins
    ]  # fmt: skip
    return ["curriculum", "seed", "half", "foretold", "came", "episodes", "brier_of_the_half"], rows


def _cell(value: Any) -> Any:
    """Numbers in full; text that a spreadsheet would take for a formula is quoted (run folders may come from anywhere)."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@"):
        return f"'{value}"
    return "" if value is None else value
