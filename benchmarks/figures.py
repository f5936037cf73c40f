"""What is made of a learner's records: figures per seed, medians and worst, as data and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from benchmarks.comparison import median_reached, worst_reached
from benchmarks.store import Record


def learner_figures(records: Sequence[Record], task: str) -> dict[str, Any]:
    """What one learner did: figures per seed, and the median and worst steps and seconds to threshold on `task`.

    A seed that failed or never reached the threshold counts as worse than any that did.
    """
    runs = {
        str(record["seed"]): {"error": record["error"], "commit": record["commit"], **(record["figures"] or {"reached": None})}
        for record in records
    }
    steps = [run["reached"] for run in runs.values()]
    seconds = [(run.get("seconds_to_threshold") or {}).get(task) for run in runs.values()]
    held_out = [((run.get("tasks") or {}).get(task) or {}).get("success") for run in runs.values()]
    return {
        "runs": runs,
        "steps_to_threshold": {"median": median_reached(steps), "worst": worst_reached(steps)},
        "seconds_to_threshold": {"median": median_reached(seconds), "worst": worst_reached(seconds)},
        "least_held_out_success": min((share for share in held_out if share is not None), default=None),
    }


def learners_table(title: str, learners: Mapping[str, Mapping[str, Any]], tasks: Sequence[str]) -> Group:
    """A row for each seed of each learner, then its median and worst: env steps to threshold, seconds, held-out success."""
    table = Table(title=title, title_justify="left")
    families = {task.rpartition("-")[0] for task in tasks}
    short = [task.rpartition("-")[2] for task in tasks] if len(families) == 1 else tasks
    table.add_column("learner")
    table.add_column("seed")
    for name in (*(f"steps to\n{task}" for task in short), "seconds", *(f"held-out\n{task}" for task in short)):
        table.add_column(name, justify="right")
    failures: list[Text] = []
    for learner, figures in learners.items():
        for seed, run in figures["runs"].items():
            if run["error"] is not None:
                failures.append(Text(f"{learner} seed {seed} failed: {run['error']}"))
                continue
            steps = [_number((run.get("steps_to_threshold") or {}).get(task)) for task in tasks]
            held_out = [(run.get("tasks") or {}).get(task, {}).get("success") for task in tasks]
            seconds = (run.get("seconds_to_threshold") or {}).get(tasks[-1])
            table.add_row(learner, seed, *steps, _number(seconds), *("-" if s is None else f"{s:.2f}" for s in held_out))
        for name in ("median", "worst"):
            gap = [""] * (len(tasks) - 1)
            last = _number(figures["steps_to_threshold"][name]), _number(figures["seconds_to_threshold"][name])
            table.add_row(learner, name, *gap, *last, style="bold", end_section=name == "worst")
    return Group(table, *failures)


def _number(value: float | None) -> str:
    return "never" if value is None else f"{value:,.0f}"
