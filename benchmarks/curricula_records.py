"""What a record of `benchmarks.curricula` keeps of a run, and the run for a comparison that is made of it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from agent.compare.runs import BrokenRunError, dotted, load_run
from agent.compare.runs import Run as ComparedRun
from agent.config import CompareConfig, RunConfig
from agent.metrics_file import read_metrics
from benchmarks.store import Record, brought_up
from benchmarks.training import RunError

PREFIX = "curriculum/"
LOGGED = 12  # evenly spaced log lines, at most, of which a record keeps what else the curriculum logged
LIKELY = 36  # evenly spaced log lines, at most, of which a record says how likely each task was to be played next


def figures_of(folder: Path) -> dict[str, Any]:
    """A run folder's figures as plain data: all that a comparison shows of it.

    Raises:
        RunError: the folder holds no finished run.
    """
    try:
        run = load_run(folder)
    except BrokenRunError as error:
        raise RunError(f"its folder cannot be compared: {error}") from error
    steps, likely = _thinned(run)
    logged_steps, logged = _logged(read_metrics(folder), run.env_steps)
    return {
        "curriculum": run.curriculum,
        "learner": run.learner,
        "reached": run.reached(CompareConfig().threshold),
        "env_steps": run.env_steps,
        "updates": run.updates,
        "wall_seconds": round(run.wall_seconds, 1),
        "evaluation_seconds": round(run.evaluation_seconds, 1),
        "curriculum_seconds": None if run.curriculum_seconds is None else round(run.curriculum_seconds, 1),
        "judged_steps": run.judged_steps,
        "episodes": dict(run.episodes),
        "trained": list(run.trained),
        "steps": [int(step) for step in run.steps],
        "success": {task: np.round(run.success[:, i], 4).tolist() for i, task in enumerate(run.tasks)},
        "probability_steps": steps,
        "probability": {task: likely[:, i].tolist() for i, task in enumerate(run.trained)} if steps else {},
        # What else the curriculum logged, reach and progress and imagined success among it; of reliability sums that only grow.
        "logged_steps": logged_steps,
        "logged": logged,
        # How well imagined success foretold real success, in each half: episodes, foretold, came, squared error of every tenth.
        "halves": None if run.halves is None else np.round(run.halves, 4).tolist(),
    }


def compared_run(record: Record) -> ComparedRun:
    """The run of a record, as `agent.compare` takes it."""
    figures = record["figures"]
    trained, success, likely = figures["trained"], figures["success"], figures["probability"]
    return ComparedRun(
        Path(f"{record['variant']}_seed{record['seed']}"),
        figures["curriculum"],
        record["seed"],
        tuple(trained),
        tuple(success),
        np.array(figures["steps"], float),
        np.array(list(success.values()), float).T,
        np.array(figures["probability_steps"], float),
        np.array([likely[task] for task in trained], float).T if likely else np.zeros((0, len(trained))),
        figures["env_steps"],
        figures["updates"],
        figures["wall_seconds"],
        figures["evaluation_seconds"],
        figures["episodes"],
        settings_of(record["config"]),
        None if figures["halves"] is None else np.array(figures["halves"], float),
        figures["learner"],
        figures.get("curriculum_seconds"),  # older records lack both
        figures.get("judged_steps"),
    )


def settings_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run by dotted keys, those of our own as they would be written today: newer keys at the defaults, which
    change nothing, so that runs of different versions do not seem to differ in them."""
    found = dotted(brought_up(config))
    return {**dotted(asdict(RunConfig())), **found} if "hierarchy.name" in found else found


def _logged(rows: Sequence[Mapping[str, float]], env_steps: int) -> tuple[list[int], dict[str, list[float | None]]]:
    """Env steps of at most `LOGGED` log lines, and the `curriculum/` figures there but for probabilities; None where missing."""
    lines = [row for row in rows if any(name.startswith(PREFIX) for name in row)]
    if not lines:
        return [], {}
    ends = (np.arange(LOGGED) + 1) / LOGGED * env_steps
    index = np.searchsorted([row["env_steps"] for row in lines], ends, side="right") - 1
    kept = [lines[i] for i in np.unique(np.maximum(index, 0))]
    names = sorted({name for row in kept for name in row if name.startswith(PREFIX) and not name.startswith(f"{PREFIX}p/")})
    figures = {n.removeprefix(PREFIX): [round(row[n], 4) if n in row else None for row in kept] for n in names}
    return [int(row["env_steps"]) for row in kept], figures


def _thinned(run: ComparedRun) -> tuple[list[int], Any]:
    """Env steps of at most `LIKELY` log lines, and the probability of each task there, (lines, tasks)."""
    if not len(run.probability_steps):
        return [], run.probability
    ends = (np.arange(LIKELY) + 1) / LIKELY * run.env_steps
    index = np.unique(np.maximum(np.searchsorted(run.probability_steps, ends, side="right") - 1, 0))
    return [int(step) for step in run.probability_steps[index]], np.round(run.probability[index], 3)
