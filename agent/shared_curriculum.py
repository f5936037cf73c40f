"""One curriculum for all processes: rank 0 hears every outcome and decides every task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from agent.processes import Processes
from curriculum import Curriculum
from envs.tasks import Outcome, Task

Signals = Mapping[str, Mapping[str, float]]


class SharedCurriculum(Curriculum):
    """Stands for rank 0's curriculum in every process. `sample` is where the processes meet: each calls it, or `idle`, once at
    every step of its environments.

    Attributes:
        heard: the outcomes of all processes at the last meeting, in the order of ranks.
    """

    def __init__(self, own: Curriculum, processes: Processes) -> None:
        super().__init__(own.tasks, own.config)
        self.own, self.processes = own, processes
        self.required_signals = own.required_signals
        self.heard: list[Outcome] = []
        self._told: list[Outcome] = []

    def update(self, outcomes: Sequence[Outcome]) -> None:
        """Keeps what this process has to tell, up to the next meeting."""
        self._told += outcomes

    def sample(self, n: int, rng: np.random.Generator) -> list[Task]:
        """The next `n` tasks of this process; `rng` is rank 0's."""
        note: dict[str, Any] = {"outcomes": [asdict(outcome) for outcome in self._told], "tasks": n}
        notes = self.processes.gather(note)
        self._told = []
        self.heard = [Outcome(**outcome) for note in notes for outcome in note["outcomes"]]
        counts = [note["tasks"] for note in notes]
        if self.processes.leads and self.heard:
            self.own.update(self.heard)
        if not any(counts):
            return []
        tasks = [_told(task) for task in self.own.sample(sum(counts), rng)] if self.processes.leads else []
        tasks = self.processes.broadcast(tasks)
        start = sum(counts[: self.processes.rank])
        return [self._task(task) for task in tasks[start : start + n]]

    def idle(self, rng: np.random.Generator) -> None:
        """Meet the others without need of a task."""
        self.sample(0, rng)

    def observe(self, signals: Signals) -> None:
        """Learn from means over the processes that know a task's signal; every process calls it."""
        given = self.processes.gather({task: dict(values) for task, values in signals.items()})
        if self.processes.leads:
            self.own.observe(mean_signals(given))

    def distribution(self) -> np.ndarray:
        return self.own.distribution()

    def metrics(self) -> dict[str, float]:
        """Rank 0's; nothing from the others."""
        return self.own.metrics() if self.processes.leads else {}

    def state_dict(self) -> dict[str, Any]:
        return self.own.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.own.load_state_dict(state)

    def _task(self, told: Mapping[str, Any]) -> Task:
        task = self.tasks.tasks[self.index[told["id"]]]
        if told["numbers"] is not None:
            task = replace(task, params={**task.params, "numbers": told["numbers"]})
        return replace(task, seed=told["seed"], learn=told["learn"])


def mean_signals(given: Sequence[Signals]) -> dict[str, dict[str, float]]:
    """{task: {signal: mean over those that give it}}."""
    found: dict[str, dict[str, list[float]]] = {}
    for signals in given:
        for task, values in signals.items():
            for name, value in values.items():
                found.setdefault(task, {}).setdefault(name, []).append(value)
    return {task: {name: sum(own) / len(own) for name, own in values.items()} for task, values in found.items()}


def _told(task: Task) -> dict[str, Any]:
    return {"id": task.id, "seed": task.seed, "learn": task.learn, "numbers": task.params.get("numbers")}
