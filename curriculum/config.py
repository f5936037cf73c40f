"""The `curriculum` config group."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class CurriculumConfig:
    """Which scheduler decides the task of each episode. `threshold`, `window` and `revisit` are for `sequential`."""

    name: str = "sequential"
    threshold: float = 0.9  # success over the window at which the next task begins
    window: int = 30  # training episodes of the current task that the success is taken over
    revisit: float = 0.2  # share of episodes played on tasks already passed
