"""What goals are worth to a worker, as a table: `tasks.*.goals` and `goals` of the summary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.compare.statistics import wilson
from agent.report.data import RunData

DASH = "–"
KINDS = ("shuffled", "zeroed")


def goal_rows(run: RunData) -> list[dict[str, str]]:
    """One row a task of which it was measured; none of a run without goals."""
    found = {task: (_part(run.table("tasks"), task), _part(run.table("goals"), task)) for task in run.tasks}
    return [_row(task, row, goals) for task, (row, goals) in found.items() if goals or _part(row, "goals")]


def _row(task: str, row: Mapping[str, Any], goals: Mapping[str, Any]) -> dict[str, str]:
    n, success = goals.get("segments"), row.get("success")
    return {
        "task": task,
        "success": DASH if success is None else f"{success:.2f}",
        **{kind: _swapped(_part(_part(row, "goals"), kind)) for kind in KINDS},
        "reached": _share(goals.get("reached"), n),
        "heard": _share(goals.get("heard"), goals.get("pairs")),
        "segments": DASH if n is None else f"{n:,}",
    }


def goal_notes(run: RunData) -> list[str]:
    """What the columns of `goal_rows` mean, as far as there are any."""
    swapped = {kind for row in run.table("tasks").values() for kind in _part(row, "goals")}
    notes = []
    if "shuffled" in swapped:
        notes.append("Goals shuffled: every goal replaced by one of another episode; a worker that listens does worse.")
    if "zeroed" in swapped:
        notes.append(f"Without goals: {_alone(run)}.")
    if swapped and _part(run.config, "hierarchy").get("planner", "none") != "none":
        notes.append("Both without the planner, which success under its goals has.")
    if run.table("goals"):
        notes.append(
            "Reached: also by a worker that does not listen, if its manager asks for what comes anyway. Heard: of two different "
            "goals drawn in the same state the worker was told one, and came to be more like that; 0.5 if it does not listen. "
            "In brackets 95 % intervals (Wilson), as if goals were independent."
        )
    return notes


def _alone(run: RunData) -> str:
    """Who acts without goals; runs from before this was told have it in their config."""
    told = [_part(_part(row, "goals"), "zeroed").get("by") for row in run.table("tasks").values()]
    free = _part(_part(run.config, "hierarchy"), "worker").get("free")
    explorer = "explorer" in told or (not any(told) and bool(free))
    return "by the explorer alone, a policy that knows no goals, not by the worker" if explorer else "the worker is given none"


def _swapped(means: Mapping[str, Any]) -> str:
    """Success, and how much that is more or less than under its own goals."""
    if means.get("success") is None:
        return DASH
    lost = means.get("lost")
    return f"{means['success']:.2f}" + ("" if lost is None else f" ({round(-100 * lost):+d} %)")


def _share(share: float | None, n: int | None) -> str:
    if share is None or n is None:
        return DASH
    low, high = wilson(share, n)
    return f"{share:.2f} ({low:.2f} to {high:.2f})"


def _part(table: Any, key: str) -> Mapping[str, Any]:
    """A nested part; empty where it is missing or no table."""
    found = table.get(key) if isinstance(table, Mapping) else None
    return found if isinstance(found, Mapping) else {}
