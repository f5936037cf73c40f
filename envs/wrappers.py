"""Wrappers named in config: `env.wrappers=[{name: "module:Class", kwargs: {...}}]`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import gymnasium as gym

from envs.errors import UserError
from envs.suites import near


def apply_wrappers(env: gym.Env[Any, Any], entries: Sequence[Any]) -> gym.Env[Any, Any]:
    """Wrap `env` in the wrappers of `env.wrappers`, the first innermost.

    An entry is `{name, kwargs}` or a bare name; a name is `module:Class`, or a class of `gymnasium.wrappers`.

    Raises:
        UserError: an entry that names no wrapper or does not fit the environment.
    """
    for entry in entries:
        name, kwargs = _read(entry)
        wrapper = find_wrapper(name)
        try:
            env = wrapper(env, **kwargs)
        except Exception as error:  # a wrapper may refuse an environment in any way it likes
            raise UserError(f"env.wrappers: {name} with kwargs {kwargs} does not fit the environment: {error}") from error
    return env


def find_wrapper(name: str) -> type[gym.Wrapper[Any, Any, Any, Any]]:
    """The wrapper class called `name`.

    Raises:
        UserError: it does not exist.
    """
    module_name, colon, class_name = name.rpartition(":")
    module_name = module_name if colon else "gymnasium.wrappers"
    try:
        module = import_module(module_name)
    except Exception as error:  # a module may raise anything on import
        raise UserError(f"env.wrappers: {name}: cannot import {module_name} ({type(error).__name__}: {error}).") from error
    wrapper = getattr(module, class_name, None)
    if not isinstance(wrapper, type):
        known = [key for key, value in vars(module).items() if isinstance(value, type)]
        raise UserError(
            f"env.wrappers: {module_name} has no wrapper {class_name}{near(class_name, known)}; "
            "write module:Class or a name of gymnasium.wrappers."
        )
    return wrapper


def _read(entry: Any) -> tuple[str, dict[str, Any]]:
    if isinstance(entry, str):
        return entry, {}
    if isinstance(entry, Mapping) and isinstance(entry.get("name"), str) and set(entry) <= {"name", "kwargs"}:
        return entry["name"], dict(entry.get("kwargs") or {})
    raise UserError(f"env.wrappers: {entry} is no wrapper; write {{name: module:Class, kwargs: {{...}}}}.")
