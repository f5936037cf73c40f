"""What a run has stored and no longer holds in memory, sampled from disk through a bounded cache that reads ahead."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from agent.piece_cache import PieceCache
from agent.remote import RemoteShards, local_file
from agent.sequences import SequenceBatch
from agent.shard_file import check_header, episode_group, explained, read_records
from agent.shards import checked_origin
from agent.streams import FIELDS
from envs.errors import UserError
from envs.spaces.actions import no_actions
from envs.spaces.specs import EnvSpec

PIECE = 256  # records at most that are read at once: a slice of a long episode must not cost all of it
OPEN_FILES = 64


@dataclass(frozen=True)
class Piece:
    """Records [start, stop) of one stored episode; `task` is an index into the replay's `task_ids`."""

    shard: str
    episode: int
    start: int
    stop: int
    task: int


@dataclass(frozen=True)
class Records:
    """What a piece holds: observations `{key: (n, *shape)}` and fields `{name: (n, ...)}`."""

    obs: dict[str, np.ndarray]
    fields: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.fields["reward"])


class History:
    """Published episodes older than the newest `capacity` records, back to back in the order they ended in.

    Held-out episodes are left out. Every slice of that stream is equally likely, over the borders of episodes and shards. What is
    drawn is decided some batches ahead, by the caller's generator in the caller's thread: only the reading is another thread's.
    So the same generator and the same shards draw the same, whatever the cache and the speed of the disk.

    Attributes:
        cache: what is read, and how often it had to be.
        starts: where the slices of the last batch begin in the stream.
    """

    def __init__(
        self,
        folder: Path,
        spec: EnvSpec,
        task_ids: Sequence[str],
        names: Callable[[], Sequence[str]],
        capacity: int,
        cache: int,
        ahead: int = 4,
        remote: RemoteShards | None = None,
        synthetic: bool = False,
    ) -> None:
        """`names` answers the published shards, oldest first; of those that it answered once none may go.

        Args:
            capacity: newest records that memory holds, and that are none of history.
            cache: records of it that are kept decoded.
            ahead: batches that are drawn before they are asked for.
            remote: where shards are that the folder does not have.
            synthetic: whether shards of imagined episodes are taken, too.
        """
        self.folder, self.spec, self.task_ids, self.capacity, self.ahead = Path(folder), spec, tuple(task_ids), capacity, ahead
        self.cache: PieceCache[int, Records] = PieceCache(self._read, self._size_of, cache)
        self._names, self._remote, self._synthetic = names, remote, synthetic
        self._known = 0  # shards that are listed
        self._pieces: list[Piece] = []
        self._ends: list[int] = []  # where episodes end in the stream
        self._begins = np.zeros(0, np.int64)  # where pieces begin in it
        self._files: OrderedDict[str, h5py.File] = OrderedDict()  # of the reading thread alone
        self._length = 0  # of the slices that are drawn already
        self._before = 0  # records that come along before each
        self._drawn: deque[np.ndarray] = deque()  # starts of the slices of the next batches
        self.starts = np.zeros(0, np.int64)

    def __len__(self) -> int:
        """Records that may be drawn."""
        self._list_new_shards()
        older = bisect_right(self._ends, self._ends[-1] - self.capacity) if self._ends else 0
        return self._ends[older - 1] if older else 0

    def sample(self, batch: int, length: int, share: float, rng: np.random.Generator, before: int = 0) -> SequenceBatch | None:
        """The slices of `length` records that are history's in the next batch, `share * batch` on average; None where none are.
        Each with the `before` records that come before it.

        Raises:
            UserError: a shard is damaged or gone.
        """
        if (length, before) != (self._length, self._before):
            self._forget()
            self._length, self._before = length, before
        while len(self._drawn) <= self.ahead:
            number = int(batch * share + rng.random())  # up or down by chance, so that the mean is exact
            room = len(self) - length + 1
            starts = rng.integers(room, size=min(number, batch)) if room > 0 else np.zeros(0, np.int64)
            self.cache.want(self._pieces_of(starts))
            self._drawn.append(starts)
        self.starts = starts = self._drawn.popleft()
        found = self._gather(starts, length) if len(starts) else None
        if found is not None and before:
            found.before = self._gather(starts - before, before + 1)
            found.before.first |= starts[:, None] - before + np.arange(before + 1) <= 0
        self.cache.release(self._pieces_of(starts))
        return found

    def state_dict(self) -> dict[str, Any]:
        """What is drawn already, as plain data."""
        return {"length": self._length, "before": self._before, "drawn": [starts.tolist() for starts in self._drawn]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with what was drawn, if the shards are still those it was drawn from."""
        self._forget()
        drawn = [np.asarray(starts, np.int64) for starts in state.get("drawn", ())]
        length, before = int(state.get("length", 0)), int(state.get("before", 0))
        self._list_new_shards()
        stored = self._ends[-1] if self._ends else 0
        if all((starts + length <= stored).all() for starts in drawn):
            self._length, self._before, self._drawn = length, before, deque(drawn)
            for starts in drawn:
                self.cache.want(self._pieces_of(starts))

    def _forget(self) -> None:
        for starts in self._drawn:
            self.cache.release(self._pieces_of(starts))
        self._drawn.clear()

    def _list_new_shards(self) -> None:
        names = self._names()
        if len(names) == self._known:
            return
        for name in names[self._known :]:
            path = local_file(self.folder, name, self._remote)
            with explained(path), h5py.File(path, "r") as file:
                check_header(file, self.spec)
                checked_origin(file, path, self._synthetic)
                for index in range(int(file.attrs["total_episodes"])):
                    group, steps = episode_group(file, index)
                    if not group.attrs.get("held_out", False):
                        self._add(name, index, steps + 1, str(group.attrs["task"]))
        self._known = len(names)
        self._begins = np.cumsum([0] + [piece.stop - piece.start for piece in self._pieces])[:-1]

    def _add(self, shard: str, episode: int, records: int, task: str) -> None:
        if task not in self.task_ids:
            raise UserError(
                f"The replay holds an episode of task {task}, which is not one of this run's ({', '.join(self.task_ids)}): "
                "resume with the tasks it was recorded on, or with replay.history=0."
            )
        number = self.task_ids.index(task)
        for start in range(0, records, PIECE):
            self._pieces.append(Piece(shard, episode, start, min(start + PIECE, records), number))
        self._ends.append((self._ends[-1] if self._ends else 0) + records)

    def _pieces_of(self, starts: np.ndarray) -> list[int]:
        """Numbers of the pieces that slices from `starts` (n,) need, with what comes before them, each once for every slice."""
        return [number for start in starts.tolist() for number in self._holding(start - self._before, start + self._length)]

    def _holding(self, start: int, stop: int) -> range:
        """Numbers of the pieces that hold the records [start, stop) of the stream, whose first is 0."""
        first, last = np.searchsorted(self._begins, [max(start, 0), stop - 1], side="right") - 1
        return range(first, last + 1)

    def _gather(self, starts: np.ndarray, length: int) -> SequenceBatch:
        """The slices of `length` records from `starts` (n,); nothing where there are none, before the first."""
        size = (len(starts), length)
        obs = {leaf.key: np.zeros((*size, *leaf.shape), leaf.dtype) for leaf in self.spec.observations}
        fields: dict[str, Any] = {name: np.zeros(size, dtype) for name, dtype in FIELDS.items()}
        fields["action"] = no_actions(self.spec.action, *size)
        for b, start in enumerate(starts.tolist()):
            for number in self._holding(start, start + length):
                records, offset = self.cache.get(number), int(self._begins[number]) - start
                into = slice(max(offset, 0), min(offset + len(records), length))
                taken = slice(into.start - offset, into.stop - offset)
                for key, values in records.obs.items():
                    obs[key][b, into] = values[taken]
                for name, values in records.fields.items():
                    fields[name][b, into] = values[taken]
                fields["task"][b, into] = self._pieces[number].task
        return SequenceBatch(obs=obs, **fields)

    def _size_of(self, number: int) -> int:
        return self._pieces[number].stop - self._pieces[number].start

    def _read(self, number: int) -> Records:
        """Read a piece; in the reading thread."""
        piece = self._pieces[number]
        path = local_file(self.folder, piece.shard, self._remote)
        with explained(path):
            file = self._files.pop(piece.shard, None)
            if file is None:
                file = h5py.File(path, "r")
                while len(self._files) >= OPEN_FILES:
                    self._files.popitem(last=False)[1].close()
            self._files[piece.shard] = file
            return Records(*read_records(file, piece.episode, self.spec, piece.start, piece.stop))
