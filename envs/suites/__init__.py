"""Suites: ordered task spaces by name, and what makes two episodes of an environment the same layout.

A suite is a module here with a function that answers its tasks, from easy to hard. It is imported when it is asked for.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import gymnasium as gym
import numpy as np

from envs.errors import UserError
from envs.tasks import Task

# suite name -> "module:function", a function () -> tuple[Task, ...]
SUITES: dict[str, str] = {
    "doorkey": "envs.suites.minigrid:doorkey",
    "multiroom": "envs.suites.minigrid:multiroom",
    "keycorridor": "envs.suites.minigrid:keycorridor",
    "babyai_goto": "envs.suites.babyai:goto",
    "babyai_pickup": "envs.suites.babyai:pickup",
    "babyai_open": "envs.suites.babyai:opening",
}

# package that an environment's class (or a base of it) comes from
# -> "module:function", a function (unwrapped env) -> bytes of its initial state
LAYOUTS: dict[str, str] = {
    "minigrid": "envs.suites.minigrid:layout_bytes",
}


@dataclass(frozen=True)
class Package:
    """Where environments come from: the package they need, the module whose import registers them, and what to install."""

    needs: str
    registers: str
    install: str


# start of an environment id -> package (Gymnasium finds only its own environments by itself)
PACKAGES: dict[str, Package] = {
    "MiniGrid-": Package("minigrid", "minigrid", "minigrid"),
    "BabyAI-": Package("minigrid", "minigrid", "minigrid"),
    "ALE/": Package("ale_py", "ale_py", "-e '.[suites]'"),
    "Strata-Obstacles": Package("minigrid", "envs.suites.obstacles", "minigrid"),
    "Crafter-": Package("crafter", "envs.suites.crafter", "-e '.[suites]'"),
}

# part of the place where Gymnasium has an environment of its own -> package that it needs
GYMNASIUM: dict[str, Package] = {
    "gymnasium.envs.mujoco": Package("mujoco", "envs.suites.mujoco", "-e '.[mujoco]'"),
}

Observation = Mapping[str, np.ndarray]


def suite_tasks(name: str) -> tuple[Task, ...]:
    """The tasks of a suite, from easy to hard. Of your own, `name` is `module:function`.

    Raises:
        UserError: there is no such suite.
    """
    if name in SUITES:
        return tuple(_load(SUITES[name])())
    if ":" not in name:
        known = ", ".join(SUITES)
        raise UserError(f"env.suite={name} is unknown{near(name, SUITES)}; suites are: {known}, or module:function for your own.")
    try:
        tasks = tuple(_load(name)())
    except (ImportError, AttributeError, TypeError) as error:
        raise UserError(f"env.suite={name}: there is no such function that takes nothing and answers tasks ({error}).") from error
    except Exception as error:  # the user's own code may raise anything
        raise UserError(f"env.suite={name} raises {type(error).__name__}: {error}; mend it.") from error
    if not tasks or not all(isinstance(task, Task) and "env" in task.params for task in tasks):
        raise UserError(
            f'env.suite={name} answers no tasks; let it answer Task("NAME", {{"env": ID, "kwargs": {{}}}}), one or more.'
        )
    return tasks


def layout_hasher(env: gym.Env[Any, Any]) -> Callable[[Observation], str]:
    """A function from the first observation of an episode of `env` to the name of its layout: 16 hexadecimal digits.

    Suites say what their layouts are made of (`LAYOUTS`); of any other environment it is the initial observation.
    """
    inner = env.unwrapped
    packages = {base.__module__.partition(".")[0] for base in type(inner).__mro__}
    for package, home in LAYOUTS.items():
        if package in packages:
            layout_bytes = _load(home)
            return lambda observation: _digest(layout_bytes(inner))
    return lambda observation: _digest(b"".join(observation[key].tobytes() for key in sorted(observation)))


def register_environments(env_id: str) -> None:
    """Import the package that registers `env_id`, where we know one.

    Raises:
        UserError: it is not installed.
    """
    for start, package in PACKAGES.items():
        if env_id.lower().startswith(start.lower()):
            _import(env_id, package)


def require_packages(env_id: str, entry_point: str) -> None:
    """See that the package is there that one of Gymnasium's own environments needs.

    Raises:
        UserError: it is not installed.
    """
    for start, package in GYMNASIUM.items():
        if entry_point.startswith(start):
            _import(env_id, package)


def _import(env_id: str, package: Package) -> None:
    try:
        import_module(package.needs)
        import_module(package.registers)
    except ImportError as error:
        raise UserError(
            f"environment {env_id} needs {package.needs}, which cannot be imported ({error}); pip install {package.install}."
        ) from error


def near(name: str, names: Any) -> str:
    """` (did you mean ...?)` for error messages, or nothing."""
    by_lower = {str(known).lower(): str(known) for known in names}
    matches = [by_lower[match] for match in difflib.get_close_matches(name.lower(), list(by_lower), n=3)]
    return f" (did you mean {' or '.join(matches)}?)" if matches else ""


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def _load(home: str) -> Callable[..., Any]:
    module, _, function = home.partition(":")
    loaded: Callable[..., Any] = getattr(import_module(module), function)
    return loaded
