"""The criterion that learners are compared by, and the figures made of it. Pure functions and plain counters."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from statistics import median


class Mastery:
    """Counts the training episodes of each task until its success reaches a threshold.

    Training success of a task is the mean over its last `window` training episodes, and counts once there are that many.

    Attributes:
        steps: task -> env steps on *all* tasks together when its success first reached the threshold, `None` until then.
        seconds: task -> seconds of training at that moment, `None` until then.
        episodes: task -> training episodes finished.
    """

    def __init__(self, tasks: Iterable[str], window: int = 100, threshold: float = 0.9) -> None:
        self.window = window
        self.threshold = threshold
        self._recent: dict[str, deque[bool]] = {task: deque(maxlen=window) for task in tasks}
        self.steps: dict[str, int | None] = dict.fromkeys(self._recent)
        self.seconds: dict[str, float | None] = dict.fromkeys(self._recent)
        self.episodes: dict[str, int] = dict.fromkeys(self._recent, 0)

    def record(self, task: str, success: bool, env_steps: int, seconds: float = 0.0) -> None:
        """Count one finished training episode."""
        self._recent[task].append(bool(success))
        self.episodes[task] += 1
        if self.steps[task] is None and self.over_last(task, self.window, self.threshold):
            self.steps[task] = env_steps
            self.seconds[task] = seconds

    def success(self, task: str) -> float | None:
        """Mean success of the last episodes of `task`, at most `window` of them; `None` before the first."""
        recent = self._recent[task]
        return sum(recent) / len(recent) if recent else None

    def over_last(self, task: str, episodes: int, threshold: float) -> bool:
        """Whether `task` has had `episodes` episodes (at most `window`) and at least `threshold` of the last ones succeeded."""
        recent = list(self._recent[task])[-episodes:]
        # Counted, not averaged: 90 of 100 must reach 0.9 whatever the rounding.
        return len(recent) == episodes and sum(recent) >= threshold * episodes - 1e-9


def break_even_seconds_per_step(
    our_seconds: float | None, our_steps: float | None, peer_seconds: float | None, peer_steps: float | None
) -> float | None:
    """The time an environment step has to take for us to win in wall-clock as well.

    It is `(our seconds - its seconds) / (its steps - ours)`; `None` when we use no fewer steps, or when one of the two never got
    there; negative when we are faster even where steps are free.
    """
    if our_seconds is None or our_steps is None or peer_seconds is None or peer_steps is None or our_steps >= peer_steps:
        return None
    return (our_seconds - peer_seconds) / (peer_steps - our_steps)


def median_reached(figures: Sequence[float | None]) -> float | None:
    """The median, counting `None` (never reached) as worse than any figure; `None` when that is what the middle is."""
    if not figures:
        return None
    middle = median(math.inf if figure is None else figure for figure in figures)
    return None if math.isinf(middle) else middle


def worst_reached(figures: Sequence[float | None]) -> float | None:
    """The largest figure; `None` when any was never reached."""
    reached = [figure for figure in figures if figure is not None]
    return max(reached) if reached and len(reached) == len(figures) else None
