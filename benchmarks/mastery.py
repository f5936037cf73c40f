"""How success grew over a run: its curve for each task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Curve = dict[str, list[list[float]]]
"""{task: [[env steps, success], ...]}"""

POINTS = 60  # of a curve that is kept: more make records large, and tell little


def mastery_curve(lines: Sequence[Mapping[str, Any]], tasks: Sequence[str], of: str = "train/success") -> Curve:
    """The log lines of a run (`metrics.jsonl`) -> its curves, thinned to about `POINTS`, the first and the last among them.

    Args:
        of: `train/success`, over the last training episodes, `train/judged`, of those that were no practice, or `eval/success`,
            on held-out layouts.
    """
    found: Curve = {}
    for task in tasks:
        key = f"{of}/{task}"
        points = [[float(line["env_steps"]), float(line[key])] for line in lines if key in line]
        every = -(-len(points) // POINTS) or 1
        kept = points[::-1][::every][::-1]
        found[task] = kept if kept[:1] == points[:1] else [*points[:1], *kept]
    return found
