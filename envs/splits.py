"""Held-out layouts: which layouts may be trained on, and how an episode gets one of its split.

A layout belongs to a split by its own hash, so no list is kept and the splits are the same in every run and on every machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

SPLITS = ("train", "validation", "test")
_TENTHS = ("train",) * 8 + ("validation", "test")

MAX_DRAWS = 10_000  # a split of a tenth is missed that often with probability e^-1000: more means that it is empty
_PROBE_DRAWS = 128
_SAME_DRAWS = 24


def split_of(layout: str) -> str:
    """The split that a layout belongs to: 80 % train, 10 % validation, 10 % test."""
    return _TENTHS[int.from_bytes(hashlib.blake2b(layout.encode(), digest_size=8, person=b"split").digest(), "little") % 10]


def next_seed(seed: int) -> int:
    """The seed to try after `seed`: 31 bits of its splitmix64 (Steele et al. 2014)."""
    z = (seed + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return (z ^ (z >> 31)) >> 33


def can_hold_out(layout_of_seed: Callable[[int], str]) -> bool:
    """Whether a task has layouts enough to keep some apart: each split turns up among the layouts of its first seeds."""
    layouts: set[str] = set()
    for seed in range(_PROBE_DRAWS):
        layouts.add(layout_of_seed(seed))
        if {split_of(layout) for layout in layouts} == set(SPLITS):
            return True
        if seed + 1 == _SAME_DRAWS and len(layouts) == 1:
            return False
    return False
