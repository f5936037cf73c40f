"""Numbers in an environment's infos."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from envs.errors import UserError
from envs.guards import BrokenInfo


def lookup(info: Mapping[str, Any], key: str) -> Any:
    """The entry called `key`; where there is none, the one that its parts lead to: `achievements.collect_wood`.

    Raises:
        KeyError: there is neither.
    """
    if key in info:
        return info[key]
    value: Any = info
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            raise KeyError(key)
        value = value[part]
    return value


def number(value: Any) -> float | None:
    """A number, truth value or array of one element as a float; None for anything else."""
    array = np.asarray(value)
    return float(array.item()) if array.size == 1 and array.dtype.kind in "biuf" else None


def entries(info: Mapping[str, Any]) -> str:
    """The names of what an info holds, for error messages."""
    return ", ".join(sorted(map(str, info))) or "nothing"


def reported(info: Mapping[str, Any], keys: Iterable[str], known: set[str] | None = None) -> dict[str, float]:
    """The numbers of an episode's last info that `env.report` names; an entry that holds several gives them all, `key.name` each.
    Numbers that are not finite are left out, and an info that was no dict reports nothing.

    Args:
        info: the last of an episode.
        keys: `env.report`.
        known: those of `keys` that some episode has had, to be handed on from one to the next: they may be missing at times.

    Raises:
        UserError: an entry that is not there, or holds no number, and was not known before.
    """
    found: dict[str, float] = {}
    if isinstance(info, BrokenInfo):
        return found
    for key in keys:
        try:
            values = dict(_numbers(key, lookup(info, key)))
        except KeyError:
            values = {}
        if known is not None and values:
            known.add(key)
        if not values and key not in (known or ()):
            raise UserError(f"env.report: an episode's last info has no number {key}; it holds {entries(info)}.")
        found |= {name: value for name, value in values.items() if np.isfinite(value)}
    return found


def achievement_score(rates: Iterable[float]) -> float:
    """How well achievements are unlocked, in percent: the geometric mean of their success rates (0..1 each).

    As Crafter has it (Hafner 2021, arXiv:2109.06780): exp(mean(ln(1 + 100 rate))) - 1, so that a rare one counts as much.

    Raises:
        ValueError: there is no rate.
    """
    logs = [math.log1p(100 * rate) for rate in rates]
    if not logs:
        raise ValueError("no achievement to score")
    return math.expm1(sum(logs) / len(logs))


def _numbers(key: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        for name, child in value.items():
            yield from _numbers(f"{key}.{name}", child)
    elif not isinstance(value, str) and (real := number(value)) is not None:
        yield key, real
