"""What a model may know of an environment: the modalities it observes and the actions it takes.

Plain, JSON-able data: it is stored in checkpoints and beside replay, and is all that `world_model` ever sees of an environment.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

KINDS = ("grid", "categorical", "text", "vector", "image")


def presence_key(key: str) -> str:
    """The key of the leaf that says whether an optional modality is there: `image?`, one category, 1 for yes."""
    return f"{key}?"


@dataclass(frozen=True)
class ModalitySpec:
    """One leaf of an observation space, as the adapter delivers it.

    Attributes:
        key: path of the leaf in the (nested) space, joined by dots: `image`, `pose.0`; `observation` for a bare space.
        kind: one of `KINDS`.
        shape: shape of one adapted observation. grid `(rows, columns, channels)`; categorical `(elements,)`;
            text `(max_bytes,)`; vector `(size,)`; image `(height, width, channels)`.
        dtype: numpy dtype name of the adapted array: `uint8` or `int64` for symbols, `float32` for vectors, `uint8` for images.
        classes: categorical only: the number of classes of each element; values run from 0 (offsets are removed by the adapter).
        static: constant over an episode (a mission): never predicted, carried along.
        optional: it may be missing at some steps or in some tasks; then it is all zeros, and the leaf `presence_key(key)` is 0.
        origin: the space it was inferred from, for people to read.
    """

    key: str
    kind: str
    shape: tuple[int, ...]
    dtype: str
    classes: tuple[int, ...] = ()
    static: bool = False
    optional: bool = False
    origin: str = ""

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ModalitySpec:
        return cls(
            key=str(data["key"]),
            kind=str(data["kind"]),
            shape=tuple(int(n) for n in data["shape"]),
            dtype=str(data["dtype"]),
            classes=tuple(int(n) for n in data.get("classes", ())),
            static=bool(data.get("static", False)),
            optional=bool(data.get("optional", False)),
            origin=str(data.get("origin", "")),
        )


@dataclass(frozen=True)
class ActionSpec:
    """The actions an agent chooses from.

    Attributes:
        kind: `discrete`, `multi_discrete` or `box`.
        size: discrete: number of choices, the agent's actions run from 0 to `size - 1`; else the number of elements.
        start: discrete only: offset that the adapter adds before the environment sees the action.
        classes, starts: multi_discrete only: choices of each element, which count from 0, and the offsets that the adapter adds.
        low, high: box only: what the agent's -1 and 1 stand for, element by element; always finite.
        env_shape, dtype: multi_discrete and box: of the environment's own action; the agent's is flat.
    """

    kind: str
    size: int
    start: int = 0
    classes: tuple[int, ...] = ()
    starts: tuple[int, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    env_shape: tuple[int, ...] = ()
    dtype: str = "int64"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one action of the agent: () for discrete, else (size,)."""
        return () if self.kind == "discrete" else (self.size,)

    @property
    def agent_dtype(self) -> str:
        """numpy dtype name of the agent's actions."""
        return "float32" if self.kind == "box" else "int64"

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ActionSpec:
        return cls(
            kind=str(data["kind"]),
            size=int(data["size"]),
            start=int(data.get("start", 0)),
            classes=tuple(int(n) for n in data.get("classes", ())),
            starts=tuple(int(n) for n in data.get("starts", ())),
            low=tuple(float(x) for x in data.get("low", ())),
            high=tuple(float(x) for x in data.get("high", ())),
            env_shape=tuple(int(n) for n in data.get("env_shape", ())),
            dtype=str(data.get("dtype", "int64")),
        )


@dataclass(frozen=True)
class EnvSpec:
    """Everything a model and a replay need to know of a task space's environments."""

    observations: tuple[ModalitySpec, ...]
    action: ActionSpec

    def unnamed(self) -> EnvSpec:
        """Without the names of the spaces it came from, which are for people and change between Gymnasium versions."""
        return replace(self, observations=tuple(replace(leaf, origin="") for leaf in self.observations))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> EnvSpec:
        return cls(
            observations=tuple(ModalitySpec.from_dict(leaf) for leaf in data["observations"]),
            action=ActionSpec.from_dict(data["action"]),
        )
