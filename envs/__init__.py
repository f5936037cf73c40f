"""Gymnasium in: observation spaces to modalities, vectorised environments, tasks and task spaces, suites.

The names below load on first use, so that `envs.spaces`, `envs.tasks` and `envs.errors` can be imported without Gymnasium.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

# Some environment packages import pygame, which greets on stdout; Gymnasium imports them as plugins, so this has to come first.
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")

if TYPE_CHECKING:
    from envs.config import EnvConfig
    from envs.errors import UserError
    from envs.make import make_envs, make_task_space
    from envs.rendering import render_grid
    from envs.success import SuccessRule
    from envs.tasks import Outcome, Task, TaskSpace
    from envs.vector import StepResult, TaskVectorEnv

__all__ = [
    "EnvConfig",
    "Outcome",
    "StepResult",
    "SuccessRule",
    "Task",
    "TaskSpace",
    "TaskVectorEnv",
    "UserError",
    "make_envs",
    "make_task_space",
    "render_grid",
]

_HOME = {
    "EnvConfig": "envs.config",
    "Outcome": "envs.tasks",
    "StepResult": "envs.vector",
    "SuccessRule": "envs.success",
    "Task": "envs.tasks",
    "TaskSpace": "envs.tasks",
    "TaskVectorEnv": "envs.vector",
    "UserError": "envs.errors",
    "make_envs": "envs.make",
    "make_task_space": "envs.make",
    "render_grid": "envs.rendering",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'envs' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
