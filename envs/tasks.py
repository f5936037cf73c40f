"""Tasks: what a curriculum chooses from and what an episode is played on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # tasks are known to processes that need neither NumPy nor Gymnasium
    import numpy as np

    from envs.boxes import TaskBox


@dataclass(frozen=True)
class Task:
    """One task of a task space.

    Attributes:
        id: its name in the task space, logs and reports: `DoorKey-8x8`.
        params: what the delivery wrapper builds the environment from: `{"env": Gymnasium id, "kwargs": {...}}`;
            with `"numbers": {...}` these are its reset's options.
        seed: the seed of one episode; no task parameter, `None` until an episode is drawn.
        learn: whether the episode is learned from; if not it is only judged, and kept apart as held-out episodes are.
    """

    id: str
    params: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    learn: bool = True

    def with_seed(self, seed: int) -> Task:
        return replace(self, seed=seed)


@dataclass(frozen=True)
class TaskSpace:
    """An ordered set of tasks, from easy to hard. With a `box` they are its cells, each with the numbers of its centre."""

    tasks: tuple[Task, ...]
    box: TaskBox | None = None

    def __post_init__(self) -> None:
        if not self.tasks:
            raise ValueError("a task space needs at least one task")
        names = [task.id for task in self.tasks]
        doubles = sorted({name for name in names if names.count(name) > 1})
        if doubles:
            raise ValueError(f"task ids must differ; given twice: {', '.join(doubles)}")

    def __len__(self) -> int:
        return len(self.tasks)

    def __iter__(self) -> Iterator[Task]:
        return iter(self.tasks)

    def __getitem__(self, task_id: str) -> Task:
        return self.by_id[task_id]

    @property
    def by_id(self) -> Mapping[str, Task]:
        return MappingProxyType({task.id: task for task in self.tasks})

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(task.id for task in self.tasks)

    def level(self, index: int, seed: int) -> Task:
        """The task at a place of the order with a seed; of a cell of a box at a point in it that the seed draws."""
        if self.box is None:
            return self.tasks[index].with_seed(seed)
        return self.at(self.box.inside(index, seed), seed)

    def at(self, point: np.ndarray, seed: int) -> Task:
        """The task of the cell that a point (D,) of the box lies in, with that point's numbers."""
        assert self.box is not None
        task = self.tasks[self.box.cell(point)]
        return replace(task, params={**task.params, "numbers": self.box.values(point)}, seed=seed)

    @property
    def hardest(self) -> Task:
        return self.tasks[-1]


@dataclass(frozen=True)
class Outcome:
    """How one finished episode went; what a curriculum learns from.

    Attributes:
        task: id of the task it was played on.
        score: undiscounted sum of the environment's own rewards.
        success: by the run's `env.success` rule.
        length: environment steps.
        env_steps: environment steps of the whole run when it ended.
        seed: of the episode.
        numbers: of the task box, that it was played with.
        signals: what the curriculum asked to be told of every episode.
        practice: played otherwise than the agent is judged by (`Hierarchy.practice`).
    """

    task: str
    score: float
    success: bool
    length: int
    env_steps: int = 0
    seed: int = field(default=0, compare=False)
    numbers: Mapping[str, float] | None = field(default=None, compare=False)
    signals: Mapping[str, float] = field(default_factory=dict, compare=False)
    practice: bool = field(default=False, compare=False)
