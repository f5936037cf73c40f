"""Deciding: policies that learn inside the world model.

The names below load on first use, so that `hierarchy.config` can be imported without PyTorch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hierarchy.base import Hierarchy
    from hierarchy.build import HIERARCHIES, make_hierarchy
    from hierarchy.config import HierarchyConfig

__all__ = ["HIERARCHIES", "Hierarchy", "HierarchyConfig", "make_hierarchy"]

_HOME = {
    "HIERARCHIES": "hierarchy.build",
    "Hierarchy": "hierarchy.base",
    "HierarchyConfig": "hierarchy.config",
    "make_hierarchy": "hierarchy.build",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'hierarchy' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
