"""Schedulers: which task is each episode played on?"""

from __future__ import annotations

from collections.abc import Callable

from curriculum.base import Curriculum
from curriculum.config import CurriculumConfig
from curriculum.sequential import Sequential
from curriculum.target_only import TargetOnly
from curriculum.uniform import Uniform
from envs.errors import UserError
from envs.tasks import TaskSpace

CURRICULA: dict[str, Callable[[TaskSpace, CurriculumConfig], Curriculum]] = {
    "target_only": lambda tasks, config: TargetOnly(tasks),
    "uniform": lambda tasks, config: Uniform(tasks),
    "sequential": Sequential,
}


def make_curriculum(config: CurriculumConfig, tasks: TaskSpace) -> Curriculum:
    """The scheduler named by `config.name`.

    Raises:
        UserError: if there is none of that name.
    """
    if config.name not in CURRICULA:
        raise UserError(f"curriculum.name '{config.name}' is unknown; choose one of {', '.join(CURRICULA)}")
    return CURRICULA[config.name](tasks, config)


__all__ = ["CURRICULA", "Curriculum", "CurriculumConfig", "make_curriculum"]
