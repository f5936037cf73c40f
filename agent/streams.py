"""Rows of records in rings: the memory under the replay. It knows records, rewards and time, not episodes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from agent.sequences import SampleMix, SequenceBatch
from envs.spaces.actions import no_actions
from envs.spaces.specs import EnvSpec

FIELDS = {
    "log_prob": np.float32,
    "reward": np.float32,
    "first": np.bool_,
    "terminated": np.bool_,
    "truncated": np.bool_,
    "task": np.int64,
}


class Streams:
    """E rows, each a ring of its newest `row_capacity` records; a record's time is its number in its row, from 0.

    Attributes:
        count: (E,) records ever written, so the time of the next one.
    """

    def __init__(self, spec: EnvSpec, rows: int, row_capacity: int) -> None:
        self.rows, self.row_capacity = rows, row_capacity
        total = rows * row_capacity
        self.count = np.zeros(rows, np.int64)
        self._obs = {leaf.key: np.zeros((total, *leaf.shape), leaf.dtype) for leaf in spec.observations}
        self._fields: dict[str, np.ndarray] = {name: np.zeros(total, dtype) for name, dtype in FIELDS.items()}
        self._fields["action"] = no_actions(spec.action, total)
        self._hits = np.zeros((rows, row_capacity), np.int64)  # times of rewarded records, a queue for each row
        self._hit_head = np.zeros(rows, np.int64)
        self._hit_tail = np.zeros(rows, np.int64)

    @property
    def size(self) -> np.ndarray:
        """(E,) records that each row still holds."""
        return np.minimum(self.count, self.row_capacity)

    def append(self, rows: np.ndarray, obs: Mapping[str, np.ndarray], **fields: object) -> None:
        """The next record of each of `rows` (n,), all different; fields left out are zero."""
        self._write(rows, self.count[rows], obs, fields)
        self.count[rows] += 1

    def extend(self, row: int, obs: Mapping[str, np.ndarray], **fields: object) -> None:
        """The next n records of one row; of more than it holds only the last stay."""
        total = len(next(iter(obs.values())))
        kept = np.arange(max(total - self.row_capacity, 0), total)
        obs = {key: values[kept] for key, values in obs.items()}
        shapes = {name: (total, *self._fields[name].shape[1:]) for name in fields}
        fields = {name: np.broadcast_to(np.asarray(values), shapes[name])[kept] for name, values in fields.items()}
        self._write(np.full(len(kept), row), self.count[row] + kept, obs, fields)
        self.count[row] += total

    def set_newest(self, rows: np.ndarray, **fields: np.ndarray) -> None:
        """Fill in fields (n,) of the newest record of each of `rows` (n,)."""
        at = self._at(rows, self.count[rows] - 1)
        for name, values in fields.items():
            self._fields[name][at] = values

    def end_newest(self, rows: np.ndarray) -> None:
        """Make the newest record of each of `rows` (n,) the last of an episode that was cut off: nothing was done at it."""
        at = self._at(rows, self.count[rows] - 1)
        self._fields["truncated"][at] = True
        self._fields["action"][at], self._fields["log_prob"][at] = 0, 0.0

    def take_back(self, rows: np.ndarray) -> None:
        """Have the next record of each of `rows` (n,) written over its newest, which must hold no reward."""
        self.count[rows] -= 1

    def newest(self, row: int, number: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Copies of a row's last `number` records, oldest first: observations and fields."""
        at = self._at(row, np.arange(self.count[row] - number, self.count[row]))
        return {key: values[at] for key, values in self._obs.items()}, {name: values[at] for name, values in self._fields.items()}

    def gather(self, rows: np.ndarray, times: np.ndarray, length: int) -> SequenceBatch:
        """The slices of `length` records that begin at (rows, times), both (B,)."""
        return self._gather(rows, times[:, None] + np.arange(length))

    def _gather(self, rows: np.ndarray, times: np.ndarray) -> SequenceBatch:
        """The records of rows (B,) at times (B, T)."""
        at = self._at(rows[:, None], times)
        obs = {key: values.take(at, axis=0) for key, values in self._obs.items()}
        fields: dict[str, Any] = {name: values.take(at, axis=0) for name, values in self._fields.items()}
        return SequenceBatch(obs=obs, **fields)

    def gather_with(self, rows: np.ndarray, times: np.ndarray, length: int, before: int) -> SequenceBatch:
        """The same, each with the `before` records that come before it, the oldest one in the place of what is no longer held."""
        found = self.gather(rows, times, length)
        if before:
            earlier = times[:, None] - before + np.arange(before + 1)
            oldest = (self.count - self.size)[rows, None]
            found.before = self._gather(rows, np.maximum(earlier, oldest))
            found.before.first |= earlier <= oldest
        return found

    def first_of(self, task: int) -> np.ndarray:
        """Places of the first records of a task's episodes, for `observed`."""
        return np.flatnonzero(self._fields["first"] & (self._fields["task"] == task))

    def observed(self, places: np.ndarray) -> dict[str, np.ndarray]:
        """Observations {key: (n, *shape)} at places (n,)."""
        return {key: values[places] for key, values in self._obs.items()}

    def draw(
        self, batch: int, length: int, rng: np.random.Generator, mix: SampleMix, whole: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rows and first times (B,) of slices drawn by `mix`, in random order; none straddles a write head.

        The shares of `mix` are of `whole` slices, of which others may come from elsewhere; of `batch` where it is not given.
        Raises ValueError while no row holds `length` records.
        """
        room = np.maximum(self.size - length + 1, 0)  # (E,) slices that each row holds
        if not room.any():
            raise ValueError(f"no environment has {length} records yet; the longest stream has {int(self.size.max())}")
        window = -(-mix.recent_window // self.rows)
        recent_room = np.minimum(room, max(window - length + 1, 1))
        hits = np.where(room > 0, self._hit_tail - self._hit_head, 0)
        whole = whole or batch
        rewarded = min(_round(whole * min(mix.rewarded, mix.rewarded_cap * int(hits.sum())), rng), batch)
        recent = min(_round(whole * mix.recent, rng), batch - rewarded)

        rows, times = self._draw_rewarded(hits, rewarded, length, rng)
        for places, number in ((recent_room, recent), (room, batch - rewarded - recent)):
            row, age = _draw(places, number, rng)
            rows, times = np.concatenate([rows, row]), np.concatenate([times, self.count[row] - length - age])
        order = rng.permutation(batch)
        return rows[order], times[order]

    def _draw_rewarded(
        self, hits: np.ndarray, number: int, length: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rows and first times (n,) of slices that hold a rewarded record at a random place.

        Not at the first place, where the row allows: a model predicts the reward of arriving at t from t - 1.
        """
        rows, index = _draw(hits, number, rng)
        hit = self._hits[rows, (self._hit_head[rows] + index) % self.row_capacity]
        count = self.count[rows]
        lowest = np.maximum(hit - length + 1, count - self.size[rows])
        highest = np.maximum(np.minimum(hit - 1, count - length), lowest)
        return rows, rng.integers(lowest, highest + 1)

    def _at(self, rows: np.ndarray | int, times: np.ndarray) -> np.ndarray:
        return rows * self.row_capacity + times % self.row_capacity

    def _write(self, rows: np.ndarray, times: np.ndarray, obs: Mapping[str, np.ndarray], fields: Mapping[str, object]) -> None:
        at = self._at(rows, times)
        np.add.at(self._hit_head, rows, self._fields["reward"][at] != 0)  # rewarded records that are about to be lost
        for key, values in self._obs.items():
            values[at] = obs[key]
        for name, values in self._fields.items():
            values[at] = fields.get(name, 0)
        rewarded = self._fields["reward"][at] != 0
        for row, time in zip(rows[rewarded].tolist(), times[rewarded].tolist(), strict=True):
            self._hits[row, self._hit_tail[row] % self.row_capacity] = time
            self._hit_tail[row] += 1


def _draw(places: np.ndarray, number: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """`number` uniform draws among the `places` (E,) that the rows offer: rows, and indices below `places[row]`."""
    if number == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    ends = np.cumsum(places)
    drawn = rng.integers(ends[-1], size=number)
    rows = np.searchsorted(ends, drawn, side="right")
    return rows, drawn - (ends - places)[rows]


def _round(number: float, rng: np.random.Generator) -> int:
    """Round up or down by chance, so that the mean over many batches is exact."""
    return int(number + rng.random())
