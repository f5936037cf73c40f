"""How success grew over a run: its curve for each task, and the area under the share of tasks mastered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

Curve = dict[str, list[list[float]]]
"""{task: [[env steps, success], ...]}"""

POINTS = 60  # of a curve that is kept: more make records large, and tell little


def mastery_curve(lines: Sequence[Mapping[str, Any]], tasks: Sequence[str], of: str = "train/success") -> Curve:
    """The log lines of a run (`metrics.jsonl`) -> its curves, thinned to `POINTS`, the last point always among them.

    Args:
        of: `train/success`, over the last training episodes, `train/judged`, of those that were no practice, or `eval/success`,
            on held-out layouts.
    """
    found: Curve = {}
    for task in tasks:
        key = f"{of}/{task}"
        points = [[float(line["env_steps"]), float(line[key])] for line in lines if key in line]
        every = -(-len(points) // POINTS) or 1
        found[task] = points[::-1][::every][::-1]
    return found


def share_of_time(curve: Curve, tasks: int, budget: int, mastered: float) -> float:
    """Area under the share of `tasks` that are mastered, over `budget` env steps: 1 if all were from the first step on.

    Between two points a task is as at the first of them. A run that stopped before its budget is taken to have gone on as it was.
    """
    steps = 0.0
    for points in curve.values():
        for (start, success), (end, _) in pairwise([*points, [float(budget), 0.0]]):
            if success >= mastered:
                steps += max(0.0, min(end, budget) - start)
    return steps / (tasks * budget)
