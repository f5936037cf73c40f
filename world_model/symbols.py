"""Tables of the distinct symbols seen: a symbol's row is its code."""

from __future__ import annotations

import logging

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

UNKNOWN = 0
ROUNDING = 16

log = logging.getLogger(__name__)


class SymbolTable(nn.Module):
    """Fixed-size table from symbols (rows of integers) to codes, in the order they were first seen.

    Code 0 is 'unknown': it stands for everything that comes after the table is full, or that was never seen when `grow` is off.
    The table is part of the module's state, so that a checkpoint's codes keep their meaning.

    Args:
        size: codes there are, 'unknown' among them.
        width: integers in a symbol.
        source: what the symbols are of, for the warning that the table is full.
        size_key: the config key of `size`, for that warning.
    """

    values: torch.Tensor
    count: torch.Tensor

    def __init__(self, size: int, width: int, source: str = "a table", size_key: str = "size") -> None:
        super().__init__()
        self.size, self.source, self.size_key = size, source, size_key
        self._warned = False
        self.register_buffer("values", torch.zeros(size, width, dtype=torch.int64))
        self.register_buffer("count", torch.ones((), dtype=torch.int64))
        # Odd multipliers modulo 2^64 tell rows apart with one integer; drawn once, the same in every process.
        self._mixers = np.random.default_rng(0x5EED).integers(1, 2**63, width, dtype=np.uint64) | np.uint64(1)
        self._index: tuple[int, NDArray[np.uint64], NDArray[np.int64]] | None = None

    @property
    def in_use(self) -> int:
        """How many codes may have been given out, rounded up so that shapes seldom change."""
        return min(self.size, -(-self._sorted()[0] // ROUNDING) * ROUNDING)

    def lookup(self, symbols: NDArray[np.generic], grow: bool = True) -> NDArray[np.int64]:
        """Codes (...,) of symbols (..., width); unseen ones are added while there is room and `grow` is on."""
        keys = (symbols.astype(np.int64).astype(np.uint64) * self._mixers).sum(-1, dtype=np.uint64)
        codes, known = self._find(keys)
        if grow and not known.all() and int(self.count) < self.size:
            first = np.unique(keys[~known], return_index=True)[1]
            rows = symbols[~known].reshape(-1, symbols.shape[-1])[np.sort(first)]
            self._add(rows.astype(np.int64))
            codes, known = self._find(keys)
        if grow and not self._warned and not known.all():
            self._warned = True
            log.warning(
                "%s has more distinct symbols than %s=%d holds: from now on new ones all count as 'unknown'; give a larger %s",
                self.source, self.size_key, self.size, self.size_key,
            )  # fmt: skip
        return codes

    def symbols(self, codes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Symbols (..., width) of codes (...,); the unknown code gives zeros."""
        return self.values.cpu().numpy()[codes]

    def _add(self, rows: NDArray[np.int64]) -> None:
        start = int(self.count)
        rows = rows[: self.size - start]
        self.values[start : start + len(rows)] = torch.from_numpy(rows).to(self.values.device)
        self.count.fill_(start + len(rows))

    def _find(self, keys: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        _, ordered, order = self._sorted()
        if not len(ordered):
            return np.zeros(keys.shape, np.int64), np.zeros(keys.shape, np.bool_)
        place = np.searchsorted(ordered, keys).clip(max=len(ordered) - 1)
        known = ordered[place] == keys
        return np.where(known, order[place], UNKNOWN), known

    def _sorted(self) -> tuple[int, NDArray[np.uint64], NDArray[np.int64]]:
        count = int(self.count)
        if self._index is None or self._index[0] != count:
            rows = self.values[1:count].cpu().numpy()
            keys = (rows.astype(np.uint64) * self._mixers).sum(-1, dtype=np.uint64)
            order = np.argsort(keys)
            self._index = (count, keys[order], order + 1)
        return self._index

    def _load_from_state_dict(self, *args: object, **kwargs: object) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._index = None
