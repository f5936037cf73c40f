"""Reward terms as config names them: `env.rewards`, what the agent learns from. Returns are reported without them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from envs.errors import UserError
from envs.infos import number
from envs.suites import near

# kind -> its own settings, beside `kind` and `weight`
KINDS: dict[str, tuple[str, ...]] = {
    "environment": (),
    "info": ("key", "change", "default"),
    "observation": ("key", "index", "change", "default"),
    "potential": ("info", "observation", "function", "index", "default"),
    "count": ("key", "resolution"),
}
SOURCES = ("info", "observation", "function")  # what a potential is taken from


@dataclass(frozen=True)
class RewardTerm:
    """One named term.

    Attributes:
        kind: one of `KINDS`.
        weight: what it is multiplied by in the sum that the agent learns from.
        source: `info`, `observation` or `function`; empty for `environment` and `count`.
        key: the info entry, the observation's leaf, or `module:function`.
        index: which element of the leaf; empty where it has one alone.
        change: how much the number changed in this step, in place of the number itself.
        default: the number where an info has no such entry, or an observation lacks that part; None refuses that.
        resolution: count only: numbers that round down to the same multiple of it count as the same; None takes them as they are.
    """

    name: str
    kind: str
    weight: float = 1.0
    source: str = ""
    key: str = ""
    index: tuple[int, ...] = ()
    change: bool = False
    default: float | None = None
    resolution: float | None = None


@dataclass(frozen=True)
class RewardTerms:
    """The terms of a run, in the order given, and the discount that potentials are shaped with: the learner's own."""

    terms: tuple[RewardTerm, ...]
    gamma: float

    @classmethod
    def parse(cls, entries: Mapping[str, Any], gamma: float) -> RewardTerms | None:
        """Read `env.rewards`; None where it is empty: the environment's reward alone.

        Raises:
            UserError: an unknown kind or setting, or a value that does not fit.
        """
        return cls(tuple(_term(name, entry) for name, entry in entries.items()), gamma) if entries else None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(term.name for term in self.terms)

    @cached_property
    def weights(self) -> np.ndarray:
        """float32 (terms,)."""
        return np.array([term.weight for term in self.terms], np.float32)

    def of_kind(self, kind: str) -> list[int]:
        """The positions of all terms of one kind."""
        return [i for i, term in enumerate(self.terms) if term.kind == kind]


def _term(name: str, entry: Any) -> RewardTerm:
    here = f"env.rewards.{name}"
    if not isinstance(entry, Mapping) or "kind" not in entry:
        raise UserError(f"{here}={entry} is no reward term; write {{kind: {' or '.join(KINDS)}, weight: ...}}.")
    kind = entry["kind"]
    if kind not in KINDS:
        raise UserError(f"{here}.kind={kind} is unknown{near(str(kind), KINDS)}; choose one of {', '.join(KINDS)}.")
    known = ("kind", "weight", *KINDS[kind])
    for setting in entry:
        if setting not in known:
            raise UserError(f"{here}.{setting} is no setting of a term of kind {kind}; these are: {', '.join(known)}.")
    source, key = _source(here, kind, entry)
    return RewardTerm(
        name,
        kind,
        weight=_real(f"{here}.weight", entry.get("weight", 1.0)),
        source=source,
        key=key,
        index=_index(f"{here}.index", entry.get("index")),
        change=_truth(f"{here}.change", entry.get("change", False)),
        default=None if entry.get("default") is None else _real(f"{here}.default", entry["default"]),
        resolution=_resolution(f"{here}.resolution", entry.get("resolution")),
    )


def _source(here: str, kind: str, entry: Mapping[str, Any]) -> tuple[str, str]:
    if kind == "environment":
        return "", ""
    if kind == "potential":
        given = [source for source in SOURCES if entry.get(source) is not None]
        if len(given) != 1:
            raise UserError(f"{here} needs one of {', '.join(SOURCES)}, which its potential is taken from.")
        return given[0], str(entry[given[0]])
    if not entry.get("key"):
        what = "info entry" if kind == "info" else "part of the observation"
        raise UserError(f"{here} needs a key: the name of the {what} that it looks at.")
    return "" if kind == "count" else kind, str(entry["key"])


def _real(name: str, value: Any) -> float:
    if isinstance(value, str) or (real := number(value)) is None or not np.isfinite(real):
        raise UserError(f"{name}={value} has to be a finite number.")
    return real


def _resolution(name: str, value: Any) -> float | None:
    if value is None:
        return None
    if (real := _real(name, value)) <= 0:
        raise UserError(f"{name}={value} has to be above 0, or null.")
    return real


def _truth(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise UserError(f"{name}={value} has to be true or false.")
    return value


def _index(name: str, value: Any) -> tuple[int, ...]:
    parts = [] if value is None else [value] if isinstance(value, int) else value
    if isinstance(parts, str) or not all(isinstance(part, int) and not isinstance(part, bool) for part in parts):
        raise UserError(f"{name}={value} has to be a whole number, or a list of them: one for each axis.")
    return tuple(parts)
