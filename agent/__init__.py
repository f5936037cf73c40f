"""The whole agent: acting, replay, training, evaluation, checkpoints. `Agent.load(folder)` takes up a trained one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent.agent import Agent

__all__ = ["Agent"]


def __getattr__(name: str) -> Any:
    if name != "Agent":
        raise AttributeError(f"module 'agent' has no attribute {name!r}")
    from agent.agent import Agent

    return Agent
