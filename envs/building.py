"""Build one environment of one task."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import gymnasium as gym

from envs.config import EnvConfig
from envs.errors import UserError
from envs.frames import shape_frames, skip_frames
from envs.suites import near, register_environments, require_packages
from envs.tasks import Task
from envs.wrappers import apply_wrappers


def build_environment(task: Task, config: EnvConfig) -> gym.Env[Any, Any]:
    """The environment of a task, and what config wraps it in: from the inside `env.max_episode_steps`, `env.noop_start`,
    `env.frame_skip`, `env.wrappers`, `env.resize`, `env.frame_stack`.

    `max_episode_steps` replaces the limit an id is registered with; an environment that counts its steps itself
    (MiniGrid's `max_steps`) keeps its own limit as well.

    Raises:
        UserError: unknown id, a missing package, constructor arguments that the environment refuses, or spaces that it lacks.
    """
    env_id = str(task.params["env"])
    kwargs = dict(task.params.get("kwargs", {}))
    check_id(env_id)
    try:
        env = gym.make(env_id, max_episode_steps=config.max_episode_steps, disable_env_checker=True, **kwargs)
    except Exception as error:  # constructors fail in many ways: wrong arguments, missing packages or files
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"environment {env_id} with env.kwargs {kwargs} cannot be built: {reason}") from error
    env = apply_wrappers(skip_frames(env, config), config.wrappers)
    for name in ("observation_space", "action_space"):
        if not isinstance(getattr(env, name, None), gym.spaces.Space):
            raise UserError(f"environment {env_id} has no {name} of gymnasium.spaces; define one, or put a wrapper round it.")
    return shape_frames(env, config)


def check_id(env_id: str) -> None:
    """See that `env_id` is known to Gymnasium.

    Raises:
        UserError: it is not.
    """
    module, _, name = env_id.rpartition(":")
    try:
        if module:
            import_module(module)
    except Exception as error:  # a module may raise anything on import
        raise UserError(f"env.id={env_id}: cannot import {module} ({type(error).__name__}: {error}).") from error
    register_environments(name)
    try:
        spec = gym.spec(name)
    except gym.error.Error as error:
        raise UserError(
            f"env.id={env_id} is unknown{near(name, gym.registry)}; "
            "give an id that Gymnasium knows, or module:Id for one that a module registers."
        ) from error
    require_packages(env_id, str(spec.entry_point))
