"""A continuous box of tasks: numbers that an environment takes at every reset, cut into cells that are its tasks by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np


@dataclass(frozen=True)
class TaskBox:
    """Numbers `names`, each from low (easy) to high (hard), every range cut into `cells` alike.

    Points are given in units of the ranges, (D,) in [0, 1]. Cells are counted from easy to hard: by how many steps they are away
    from the lowest corner.

    Raises:
        ValueError: a range that is empty or not finite, no number, or no cell.
    """

    names: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    cells: int = 3

    def __post_init__(self) -> None:
        if not self.names or self.cells < 1:
            raise ValueError("a box of tasks needs a number and a cell")
        for name, low, high in zip(self.names, self.low, self.high, strict=True):
            if not (np.isfinite([low, high]).all() and low < high):
                raise ValueError(f"the range of {name}, [{low:g}, {high:g}], has to go from a lower to a higher number")

    @classmethod
    def parse(cls, ranges: Mapping[str, Sequence[float]], cells: int = 3) -> TaskBox:
        """From {name: [low, high]}. Raises ValueError."""
        wrong = [name for name, limits in ranges.items() if not isinstance(limits, Sequence) or len(limits) != 2]
        if wrong:
            raise ValueError(f"the range of {wrong[0]} has to be two numbers, [LOW, HIGH]")
        limits = [(float(low), float(high)) for low, high in ranges.values()]
        return cls(tuple(ranges), tuple(low for low, _ in limits), tuple(high for _, high in limits), cells)

    @cached_property
    def places(self) -> list[tuple[int, ...]]:
        """Of every cell its place along each range."""
        return sorted(product(range(self.cells), repeat=len(self.names)), key=lambda place: (sum(place), place))

    @cached_property
    def _cells(self) -> dict[tuple[int, ...], int]:
        return {place: cell for cell, place in enumerate(self.places)}

    def cell(self, point: np.ndarray) -> int:
        """Which cell a point (D,) lies in."""
        place = tuple(int(k) for k in np.minimum(np.asarray(point) * self.cells, self.cells - 1))
        return self._cells[place]

    def centre(self, cell: int) -> np.ndarray:
        """(D,) the point in the middle of a cell."""
        return (np.array(self.places[cell]) + 0.5) / self.cells

    def inside(self, cell: int, seed: int) -> np.ndarray:
        """(D,) a point of a cell, uniformly drawn by the seed."""
        return (np.array(self.places[cell]) + np.random.default_rng(seed).random(len(self.names))) / self.cells

    def values(self, point: np.ndarray) -> dict[str, float]:
        """The numbers at a point (D,), as the environment takes them."""
        low, high = np.array(self.low), np.array(self.high)
        return dict(zip(self.names, (low + np.asarray(point) * (high - low)).tolist(), strict=True))

    def point(self, values: Mapping[str, float]) -> np.ndarray:
        """The inverse of `values`."""
        low, high = np.array(self.low), np.array(self.high)
        return (np.array([values[name] for name in self.names]) - low) / (high - low)

    def chances(self, masses: np.ndarray) -> np.ndarray:
        """Probability of each cell, when the D numbers are drawn apart and masses (D, cells) are those of each range's parts."""
        found: np.ndarray = np.prod(masses[np.arange(len(self.names)), np.array(self.places)], axis=1)
        return found
