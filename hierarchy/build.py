"""From the `hierarchy` config group to a hierarchy."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from envs.errors import UserError
from envs.spaces.specs import ActionSpec
from hierarchy.base import Hierarchy
from hierarchy.config import HierarchyConfig
from hierarchy.director import DirectorHierarchy
from hierarchy.flat import FlatPolicy
from world_model.latents import LatentSpec

HIERARCHIES: dict[str, Callable[[LatentSpec, int, ActionSpec, HierarchyConfig], Hierarchy]] = {
    "flat": FlatPolicy,
    "director": DirectorHierarchy,
}


def make_hierarchy(config: HierarchyConfig, latents: LatentSpec, width: int, actions: ActionSpec) -> Hierarchy:
    """The hierarchy named by `config.name`: one of `HIERARCHIES`, or `package.module.Class` of somebody's own.

    Raises:
        UserError: if there is none of that name.
    """
    make = HIERARCHIES[config.name] if config.name in HIERARCHIES else _imported(config.name)
    return make(latents, width, actions, config)


def _imported(name: str) -> Callable[[LatentSpec, int, ActionSpec, HierarchyConfig], Hierarchy]:
    way_out = f"choose one of {', '.join(HIERARCHIES)}, or give package.module.Class of your own (docs/hierarchy.md)"
    module, _, attribute = name.rpartition(".")
    if not module:
        raise UserError(f"hierarchy.name '{name}' is unknown; {way_out}")
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(f"hierarchy.name '{name}' cannot be imported ({error}); {way_out}") from error
    if not (isinstance(found, type) and issubclass(found, Hierarchy)):
        raise UserError(f"hierarchy.name '{name}' is no subclass of hierarchy.Hierarchy; {way_out}")
    return found
