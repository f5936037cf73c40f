"""Features of inputs that come again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor


class FeatureCache:
    """Features by the key of what they were made from; those not asked for the longest are dropped at `most` entries."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.changes = 0  # counts up whenever an entry comes or goes
        self._rows: OrderedDict[int, Tensor] = OrderedDict()

    def __len__(self) -> int:
        return len(self._rows)

    def clear(self) -> None:
        self._rows.clear()
        self.changes += 1

    def take_in(self, keys: Sequence[int], read: Callable[[list[int]], Tensor]) -> None:
        """Have features of all `keys`: `read` answers those (N, width) of the places in `keys` that are new, each once."""
        new: dict[int, int] = {}
        for place, key in enumerate(keys):
            if key in self._rows:
                self._rows.move_to_end(key)
            else:
                new.setdefault(key, place)
        if not new:
            return
        features = read(list(new.values()))
        self._rows.update(zip(new, features.unbind(), strict=True))
        while len(self._rows) > max(self.most, len(keys)):
            self._rows.popitem(last=False)
        self.changes += 1

    def rows(self, keys: Sequence[int]) -> Tensor:
        """Features (N, width) of keys taken in."""
        return torch.stack([self._rows[key] for key in keys])

    def sorted_keys(self) -> list[int]:
        return sorted(self._rows)
