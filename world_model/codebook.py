"""A codebook of typical vectors, found online: what is unlike everything so far becomes an entry of its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

ROUNDING = 16
MOST_SWAPS = 4  # entries that may change their place in one call: each costs the distances of all pairs
MARGIN = 2.0  # how much farther (squared) something new has to be than the closest two entries are, to take a place


class Codebook(nn.Module):
    """Incremental k-centre clustering (Charikar et al. 1997) whose centres are the running means of their members.

    A vector farther than `radius` from every entry becomes an entry, however rare it is: gradients would let a small key drown
    among walls. Once the book is full, the two entries closest to each other are merged when something new is farther away than
    they are: so the radius grows as far as the data ask for it. Entries come to rest as their counts grow, and codes with them.

    Distances are root mean squares over a vector's numbers.
    """

    values: Tensor
    weight: Tensor
    used: Tensor
    squared_error: Tensor

    def __init__(self, size: int, width: int, radius: float) -> None:
        super().__init__()
        self.size, self.radius = size, radius
        self.register_buffer("values", torch.zeros(size, width))
        self.register_buffer("weight", torch.zeros(size))  # members seen
        self.register_buffer("used", torch.ones((), dtype=torch.int64))  # the first entry is there from the start, all zeros
        self._used = 1  # the same, without asking the device
        self.register_buffer("squared_error", torch.zeros(()), persistent=False)  # summed over what was taken in
        self._taken_in = 0

    @property
    def in_use(self) -> int:
        """How many entries may have been given out, rounded up so that shapes seldom change."""
        return min(self.size, -(-self._used // ROUNDING) * ROUNDING)

    @property
    def entries(self) -> int:
        """How many entries have been given out."""
        return self._used

    @torch.no_grad()
    def pop_error(self) -> float | None:
        """Root mean square difference between the vectors taken in since the last call and their entries at that time."""
        if not self._taken_in:
            return None
        mean = float(self.squared_error) / self._taken_in
        self.squared_error.zero_()
        self._taken_in = 0
        return mean**0.5

    def nearest(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors (N, width) -> the closest entries (N,), and their mean squared distances (N,)."""
        entries = self.values[: self._used]
        score = torch.addmm(entries.square().sum(-1), x, entries.T, alpha=-2)  # squared distance, less that of x to zero
        least, codes = score.min(-1)
        return codes, (least + x.square().sum(-1)).clamp(min=0) / x.shape[-1]

    @torch.no_grad()
    def observe(self, x: Tensor) -> None:
        """Take in vectors (N, width): new entries for what is far from all, then the means."""
        codes, distance = self.nearest(x)
        swaps = 0
        while True:
            farthest = int(distance.argmax())
            found = float(distance[farthest])
            if found <= self.radius**2:
                break
            if self._used < self.size:
                place = self._used
                self._used += 1
            elif swaps < MOST_SWAPS and (pair := self._closest_pair(found)) is not None:
                kept, place = pair
                self._merge(kept, place)
                moved = codes == place
                codes[moved] = kept
                distance[moved] = (x[moved] - self.values[kept]).square().mean(-1)
                swaps += 1
            else:
                break
            self.values[place], self.weight[place] = x[farthest], 0.0
            to_new = (x - x[farthest]).square().mean(-1)
            closer = to_new < distance
            codes[closer] = place
            distance = torch.minimum(distance, to_new)
        self.used.fill_(self._used)
        self.squared_error += distance.sum()
        self._taken_in += len(x)
        number = codes.bincount(minlength=self.size).to(x.dtype)
        total = torch.zeros_like(self.values).index_add_(0, codes, x)
        self.weight += number
        self.values += (total - number.unsqueeze(-1) * self.values) / self.weight.clamp(min=1).unsqueeze(-1)

    def _closest_pair(self, found: float) -> tuple[int, int] | None:
        """The two entries closest to each other, the heavier one first; None unless something at `found` is much farther."""
        square = self.values.square().sum(-1)
        apart = torch.addmm(square, self.values, self.values.T, alpha=-2) + square.unsqueeze(-1)
        apart.fill_diagonal_(torch.inf)
        flat = int(apart.argmin())
        pair = divmod(flat, self.size)
        if found <= MARGIN * float(apart.view(-1)[flat]) / self.values.shape[-1]:
            return None
        return pair if self.weight[pair[0]] >= self.weight[pair[1]] else (pair[1], pair[0])

    def _merge(self, kept: int, gone: int) -> None:
        weight = self.weight[kept] + self.weight[gone]
        self.values[kept] += (self.values[gone] - self.values[kept]) * self.weight[gone] / weight.clamp(min=1)
        self.weight[kept] = weight

    def _load_from_state_dict(self, *args: object, **kwargs: object) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._used = int(self.used)
