"""The `summary.json` of a peer: the same keys as of a run of ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from agent.evaluation import TaskResult
from agent.metrics import SuccessTracker


def peer_summary(
    env_steps: int,
    updates: int,
    wall_seconds: float,
    tracker: SuccessTracker,
    sampled: Mapping[str, TaskResult],
    greedy: Mapping[str, TaskResult],
) -> dict[str, Any]:
    """A run's figures.

    Args:
        env_steps: on all tasks.
        updates: gradient steps.
        wall_seconds: of training alone.
        tracker: knows training success.
        sampled: how the acting policy did on held-out layouts.
        greedy: how the most likely actions did.
    """
    return {
        "env_steps": env_steps,
        "updates": updates,
        "wall_seconds": round(wall_seconds, 2),
        "tasks": {
            task: {
                "success": float(np.mean(result.success)),
                "success_greedy": float(np.mean(greedy[task].success)),
                "return": float(np.mean(result.score)),
                "episodes": len(result.success),
                "layouts": result.layouts,
            }
            for task, result in sampled.items()
        },
        "steps_to_threshold": tracker.steps_to_threshold(),
        "seconds_to_threshold": tracker.seconds_to_threshold(),
        "training": {
            name: {"success": task.success if task.episodes else None, "episodes": task.episodes}
            for name, task in tracker.tasks.items()
        },
    }
