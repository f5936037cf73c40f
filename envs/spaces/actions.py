"""Action spaces: from the environment's to the agent's and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gymnasium import spaces

from envs.errors import UserError
from envs.spaces.specs import ActionSpec


def action_spec(space: spaces.Space[Any]) -> ActionSpec:
    """What the agent chooses from.

    Raises:
        UserError: for a space that no policy of ours can act in yet.
    """
    if isinstance(space, spaces.Discrete):
        return ActionSpec(kind="discrete", size=int(space.n), start=int(space.start))
    raise UserError(
        f"the action space {space} is not supported yet, only Discrete is; turn it into Discrete with a wrapper (env.wrappers)."
    )


def to_environment(spec: ActionSpec) -> Callable[[Any], Any]:
    """A function from the agent's action (one of `range(spec.size)`) to the environment's.

    It answers Python integers: environments compare actions with enumerations, which is slow for numpy scalars.
    """
    if spec.kind != "discrete":
        raise ValueError(f"no mapping for actions of kind {spec.kind!r}")
    start = spec.start
    return (lambda action: int(action) + start) if start else int
