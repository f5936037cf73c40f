"""From the `hierarchy` config group to a hierarchy."""

from __future__ import annotations

from collections.abc import Callable

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
    """The hierarchy named by `config.name`.

    Raises:
        UserError: if there is none of that name.
    """
    if config.name not in HIERARCHIES:
        raise UserError(f"hierarchy.name '{config.name}' is unknown; choose one of {', '.join(HIERARCHIES)}")
    return HIERARCHIES[config.name](latents, width, actions, config)
