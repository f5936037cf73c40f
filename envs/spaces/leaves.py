"""Walk a nested observation space down to its leaves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gymnasium import spaces

from envs.errors import UserError

BARE_KEY = "observation"  # the key of a space that is not nested


@dataclass(frozen=True)
class Leaf:
    """One leaf of a nested space: `key` for people and arrays, `path` to find its value in an observation."""

    key: str
    path: tuple[Any, ...]
    space: spaces.Space[Any]

    def value(self, observation: Any) -> Any:
        for step in self.path:
            observation = observation[step]
        return observation

    def value_if_there(self, observation: Any) -> Any:
        """None where a part on the way to it is missing, or None itself."""
        for step in self.path:
            if observation is None or (isinstance(observation, Mapping) and step not in observation):
                return None
            observation = observation[step]
        return observation


def leaves(space: spaces.Space[Any]) -> tuple[Leaf, ...]:
    """The leaves of nested Dict and Tuple spaces, in the space's own order, under keys joined by dots: `pose.0`.

    Raises:
        UserError: the space has no leaf, or two leaves share a key (as `{"a.b": .., "a": {"b": ..}}` do).
    """
    found = tuple(_walk(space, ()))
    keys = [leaf.key for leaf in found]
    doubles = sorted({key for key in keys if keys.count(key) > 1})
    if doubles:
        raise UserError(
            f"two parts of the observation space are both called `{doubles[0]}`; "
            "rename one with an observation wrapper (env.wrappers)."
        )
    if not found:
        raise UserError(f"the observation space {space} is empty; give the environment an observation (env.wrappers).")
    return found


def merged(first: spaces.Space[Any], other: spaces.Space[Any]) -> spaces.Space[Any]:
    """`first`, and what only `other` has of (nested) Dict spaces."""
    if not (isinstance(first, spaces.Dict) and isinstance(other, spaces.Dict)):
        return first
    parts = dict(first.spaces)
    for name, child in other.spaces.items():
        parts[name] = merged(parts[name], child) if name in parts else child
    return spaces.Dict(parts)


def _walk(space: spaces.Space[Any], path: tuple[Any, ...]) -> Iterator[Leaf]:
    if isinstance(space, spaces.Dict):
        for name, child in space.spaces.items():
            yield from _walk(child, (*path, name))
    elif isinstance(space, spaces.Tuple):
        for index, child in enumerate(space.spaces):
            yield from _walk(child, (*path, index))
    else:
        yield Leaf(".".join(map(str, path)) or BARE_KEY, path, space)
