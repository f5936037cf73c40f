"""Which values the elements of an integer space can take, exactly: float64 does not hold every 64-bit integer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces


@dataclass(frozen=True)
class Ranges:
    """Of each element, in the space's shape (a Discrete has one element, shape (1,)).

    Attributes:
        low: int64, the lowest value (of unsigned 64-bit integers, modulo 2^64).
        count: float64, how many values there are.
    """

    low: np.ndarray
    count: np.ndarray

    @property
    def logits(self) -> float:
        """Size of a prediction of all elements as categories: elements times the most values of any."""
        return float(self.count.size * self.count.max(initial=0))

    def within(self, lowest: int, highest: int) -> bool:
        """Whether every value of every element is from `lowest` to `highest`."""
        return bool((self.low >= lowest).all() and (self.low + self.count - 1 <= highest).all())


def integer_ranges(space: spaces.Space[Any]) -> Ranges | None:
    """The ranges of Discrete, MultiDiscrete, MultiBinary and of a Box of integers or booleans; None for other spaces."""
    if isinstance(space, spaces.Discrete):
        return Ranges(np.array([int(space.start)], np.int64), np.array([float(space.n)]))
    if isinstance(space, spaces.MultiDiscrete):
        return Ranges(np.asarray(space.start).astype(np.int64), space.nvec.astype(np.float64))
    if isinstance(space, spaces.MultiBinary):
        return Ranges(np.zeros(space.shape, np.int64), np.full(space.shape, 2.0))
    if isinstance(space, spaces.Box) and space.dtype is not None and space.dtype.kind in "iub":
        low = space.low.astype(np.int64)
        span = space.high.astype(np.int64).astype(np.uint64) - low.astype(np.uint64)  # exact modulo 2^64, and never negative
        return Ranges(low, np.asarray(span.astype(np.float64) + 1))
    return None
