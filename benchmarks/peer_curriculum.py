"""The curriculum the peer is given: task by task from easy to hard, with a share of episodes on what it has passed."""

from __future__ import annotations

import numpy as np

from benchmarks.criterion import Mastery
from envs.tasks import Task, TaskSpace


class SequentialTasks:
    """Plays the current task, else (`revisit` of the episodes) a uniformly chosen passed one; moves on at `threshold` success.

    Args:
        tasks: from easy to hard.
        mastery: the training episodes, counted elsewhere.
        window: it moves on when at least `threshold` of the current task's last `window` episodes succeeded.
        threshold: that success.
        revisit: share of episodes on passed tasks, once there are any.
        rng: draws tasks and the seeds of episodes.
    """

    def __init__(
        self, tasks: TaskSpace, mastery: Mastery, window: int, threshold: float, revisit: float, rng: np.random.Generator
    ) -> None:
        self._tasks = tuple(tasks)
        self._mastery = mastery
        self._window = window
        self._threshold = threshold
        self._revisit = revisit
        self._rng = rng
        self._level = 0

    @property
    def current(self) -> Task:
        return self._tasks[self._level]

    def sample(self) -> Task:
        """The task of the next episode, with the episode's seed."""
        task = self.current
        if self._level and self._rng.random() < self._revisit:
            task = self._tasks[self._rng.integers(self._level)]
        return task.with_seed(int(self._rng.integers(2**31)))

    def update(self) -> None:
        """Move on if the current task is passed; to be called after each finished episode."""
        last = len(self._tasks) - 1
        if self._level < last and self._mastery.over_last(self.current.id, self._window, self._threshold):
            self._level += 1
