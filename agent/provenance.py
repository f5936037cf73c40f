"""Where stored episodes come from, as every shard says it."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from importlib import metadata
from typing import Any

import gymnasium as gym

from agent.config import RunConfig
from envs import make_task_space
from envs.tasks import TaskSpace

LIBRARIES = ("strata-rl", "gymnasium", "numpy", "h5py", "torch")


def provenance(config: RunConfig, source: str = "real") -> dict[str, Any]:
    """Plain data: environment, tasks, split of their layouts, seed, versions, `real` or `synthetic`, and under which licence."""
    tasks = make_task_space(config.env)
    return {
        "environment": config.env.id or config.env.suite,
        "tasks": list(tasks.ids),
        "split": "train" if config.env.holdout else "all",
        "seed": config.seed,
        "source": source,
        "licence": config.replay.licence,
        "versions": versions(_packages(tasks)),
    }


def versions(packages: Iterable[str] = ()) -> dict[str, str]:
    """Versions of Python, of what everything stands on and of `packages`; what is not installed is left out."""
    found = {"python": platform.python_version()}
    for name in dict.fromkeys([*LIBRARIES, *packages]):
        try:
            found[name] = metadata.version(name)
        except (metadata.PackageNotFoundError, ValueError):
            continue
    return found


def _packages(tasks: TaskSpace) -> list[str]:
    """Top-level packages of the environments' classes, which are mostly called as their distributions are."""
    entries = (_entry_point(str(task.params.get("env", ""))) for task in tasks)
    return sorted({entry.partition(":")[0].partition(".")[0] for entry in entries if entry})


def _entry_point(env_id: str) -> str:
    try:
        entry = gym.spec(env_id).entry_point
    except Exception:  # a name that only an import would register: its package is not worth a failure
        return ""
    return entry if isinstance(entry, str) else getattr(entry, "__module__", "")
