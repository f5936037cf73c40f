"""What learner and actors say to each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from agent.config import RunConfig
from envs import StepResult, TaskVectorEnv
from envs.tasks import Task

Observations = dict[str, np.ndarray]


@dataclass(frozen=True)
class Orders:
    """What an actor is started with.

    Attributes:
        envs: builds its environments, given their number and `env.vectorization`.
        rows: the first of its environments, and one past the last, among all of the run.
        tasks: to begin with, one an environment, and as many to go on with.
        steps: env steps of the whole run so far.
        per_step: env steps of the whole run that one step of its environments goes along with.
        seed: of its random numbers.
        ahead: steps that it may take before it is granted one.
    """

    config: RunConfig
    envs: Callable[[int, str], TaskVectorEnv]
    rows: tuple[int, int]
    tasks: list[Task]
    steps: int
    per_step: int
    seed: int
    ahead: int


class Grant(NamedTuple):
    """One step more that the actor may be ahead, and tasks for episodes to come."""

    tasks: list[Task]


class Fault(NamedTuple):
    """Of an environment; see `envs.faults.FaultLedger`."""

    kind: str
    env: int
    task: str
    detail: str
    drops: bool


class Began(NamedTuple):
    """Episodes that began: in which environments (of the actor, from 0), on which tasks, and what all environments show now."""

    envs: list[int]
    tasks: list[Task]
    obs: Observations


@dataclass(frozen=True)
class Played:
    """One step of all environments of an actor.

    Attributes:
        version: updates that the weights had seen which chose the actions.
        practice: which episodes it was a step of (`Agent.practice`).
        began: the episodes that follow those that ended.
    """

    version: int
    action: np.ndarray
    log_prob: np.ndarray
    practice: np.ndarray
    result: StepResult
    began: Began
    faults: list[Fault] = field(default_factory=list)


class Failed(NamedTuple):
    """What ended an actor; `user` where it is to be told as it is."""

    words: str
    user: bool


Message = Began | Played | Failed  # what an actor says
