"""From the `hierarchy` config group to a hierarchy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from envs.by_name import class_by_name
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
    way_out = f"choose one of {', '.join(HIERARCHIES)}, or give package.module.Class of your own (docs/hierarchy.md)"
    make: Any = HIERARCHIES.get(config.name) or class_by_name(config.name, Hierarchy, "hierarchy.name", way_out)
    found: Hierarchy = make(latents, width, actions, config)
    return found
