"""The processes of one run: who they are, and how they tell each other plain data and average tensors."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from world_model.engines.joining import PATIENCE, join_processes, launched_processes
from world_model.model import WorldModel

T = TypeVar("T")
NOTE = 4096  # bytes of a message that go at once; a longer one takes a second round
HEAD = 8  # bytes of it that tell the length

Observations = Mapping[str, NDArray[Any]]


class Processes:
    """Rank and number of the processes of a run. Every one makes the same calls in the same order; a single one waits for nobody.

    Messages are JSON, on the CPU (gloo), whatever the training itself communicates through.

    Attributes:
        rank: of this process, 0 to size - 1. size: how many there are.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size
        self._group = dist.new_group(backend="gloo", timeout=PATIENCE) if size > 1 else None

    @classmethod
    def join(cls, device: torch.device) -> Processes:
        """Those that a launcher started; this one alone without it.

        Raises:
            UserError: the launcher left out what is needed to find the others.
        """
        if launched_processes() == 1:
            return cls()
        join_processes(device)
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, which decides tasks, writes and reports."""
        return self.rank == 0

    def leave(self) -> None:
        """The others are not waited for any more, nor may they wait for this one."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()

    def gather(self, data: T) -> list[T]:
        """What every process gives (plain data), by rank, to all of them."""
        if self.size == 1:
            return [data]
        payload = np.frombuffer(json.dumps(data, default=_plain).encode(), np.uint8)
        note = np.zeros(NOTE, np.uint8)
        note[:HEAD] = np.frombuffer(len(payload).to_bytes(HEAD, "little"), np.uint8)
        note[HEAD : HEAD + len(payload)] = payload[: NOTE - HEAD]
        notes = self._gather(note)
        lengths = [int.from_bytes(x[:HEAD].tobytes(), "little") for x in notes]
        longest = max(lengths)
        if longest > NOTE - HEAD:
            notes = self._gather(np.pad(np.append(note[:HEAD], payload), (0, longest - len(payload))))
        return [json.loads(x[HEAD : HEAD + n].tobytes()) for x, n in zip(notes, lengths, strict=True)]

    def broadcast(self, data: T) -> T:
        """What rank 0 gives (plain data), to all of them."""
        return self.gather(data if self.leads else None)[0]  # type: ignore[return-value]

    def any(self, flag: bool) -> bool:
        """Whether it holds for some process."""
        if self.size == 1:
            return flag
        found = torch.tensor([int(flag)])
        dist.all_reduce(found, dist.ReduceOp.MAX, group=self._group)
        return bool(found.item())

    def mean(self, values: Mapping[str, float], totals: Collection[str] = ()) -> dict[str, float]:
        """Means of every name over the processes that have it; sums of those whose names begin with one of `totals`."""
        if self.size == 1:
            return dict(values)
        given = self.gather(dict(values))
        found: dict[str, float] = {}
        for name in dict.fromkeys(name for one in given for name in one):
            own = [one[name] for one in given if name in one]
            found[name] = sum(own) / (1 if name.startswith(tuple(totals)) else len(own))
        return found

    @torch.no_grad()
    def average(self, tensors: Sequence[Tensor], exact: bool = False) -> None:
        """Give every process the means of tensors of floats, in place: the same to the last bit. With `exact` (float64) numbers
        that are equal already stay as they are."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([x.detach().flatten().to(torch.float64 if exact else x.dtype) for x in tensors])
        dist.all_reduce(flat)
        flat /= self.size
        for x, mean in zip(tensors, flat.split([x.numel() for x in tensors]), strict=True):
            x.copy_(mean.view_as(x))

    def concatenate(self, arrays: Observations) -> dict[str, NDArray[Any]]:
        """Arrays {key: (n, ...)}, as many rows in each process, one after the other by rank: {key: (size * n, ...)}."""
        if self.size == 1:
            return dict(arrays)
        return {
            key: np.concatenate([x.view(value.dtype).reshape(value.shape) for x in self._gather(_bytes(value))])
            for key, value in arrays.items()
        }

    def _gather(self, data: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
        """Bytes (n,), as many in each process."""
        own = torch.from_numpy(data.copy())
        found = [torch.empty_like(own) for _ in range(self.size)]
        dist.all_gather(found, own, group=self._group)
        return [x.numpy() for x in found]


def rank_folder(folder: Path, rank: int) -> Path:
    """Where a process keeps its own part of what `folder` is for: rank 0 in it, rank N in `rank_N` below."""
    return folder / f"rank_{rank}" if rank else folder


def tokenize_together(
    model: WorldModel, obs: Observations, grow: bool | Collection[str], processes: Processes
) -> dict[str, Tensor]:
    """`WorldModel.tokenize` of this process's observations {key: (n, ...)}, n the same in all.

    What tables, codebooks and running means take in are the observations of all processes, in the order of ranks, so that they
    are the same everywhere, and those of one process with as many environments.
    """
    if processes.size == 1 or not grow:
        return model.tokenize(dict(obs), grow)
    rows = len(next(iter(obs.values())))
    own = slice(processes.rank * rows, (processes.rank + 1) * rows)
    return {key: x[own] for key, x in model.tokenize(processes.concatenate(obs), grow).items()}


def _bytes(value: NDArray[Any]) -> NDArray[np.uint8]:
    return np.frombuffer(np.ascontiguousarray(value).tobytes(), np.uint8)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"processes cannot tell each other a {type(value).__name__}")
