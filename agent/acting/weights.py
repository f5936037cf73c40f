"""Weights in shared memory: one process writes them, others read them, and nobody waits."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from agent.agent import Agent
from envs.errors import UserError

SHARED = Path("/dev/shm")
MIB = 1 << 20
ALIGN = 16  # bytes: every dtype may be viewed there


@dataclass(frozen=True)
class Place:
    """Where a tensor lies in a buffer of bytes."""

    start: int
    shape: tuple[int, ...]
    dtype: torch.dtype

    def view(self, buffer: Tensor) -> Tensor:
        size = prod(self.shape) * self.dtype.itemsize
        return buffer[self.start : self.start + size].view(self.dtype).view(self.shape)


class Layout:
    """Where all weights and tables of an agent lie in one buffer of `size` bytes."""

    def __init__(self, agent: Agent) -> None:
        self._places: dict[str, Place] = {}
        self.size = 0
        for name, tensor in agent_state(agent).items():
            self._places[name] = Place(self.size, tuple(tensor.shape), tensor.dtype)
            self.size += -(-tensor.numel() * tensor.element_size() // ALIGN) * ALIGN

    def write(self, agent: Agent, buffer: Tensor) -> None:
        """Copy the agent's weights to a buffer, uint8 (size,)."""
        for name, tensor in agent_state(agent).items():
            self._places[name].view(buffer).copy_(tensor)

    def read(self, buffer: Tensor, agent: Agent) -> None:
        """Copy weights from a buffer to an agent of the same specs and config."""
        state = {name: place.view(buffer) for name, place in self._places.items()}
        agent.model.load_state_dict(_below(state, "model."))
        agent.hierarchy.load_state_dict(_below(state, "hierarchy."))


class SharedWeights:
    """All weights and tables of an agent, and after how many updates they were written.

    A count of writes is odd while one is going on. Whoever finds it odd or changed after reading throws away what was read, so
    neither side ever waits for the other, or for one that died meanwhile.
    """

    def __init__(self, agent: Agent) -> None:
        self._layout = Layout(agent)
        check_room(self._layout.size)
        self._buffer = torch.zeros(self._layout.size, dtype=torch.uint8).share_memory_()
        self._clock = torch.zeros(2, dtype=torch.int64).share_memory_()  # writes begun and ended, updates
        self._read = 0  # the count of writes at the last read of this process
        self.version = 0  # updates of what this process has read last

    def publish(self, agent: Agent, updates: int) -> None:
        """Write the agent's weights, for all to read."""
        self._clock[0] += 1
        self._layout.write(agent, self._buffer)
        self._clock[1] = updates
        self._clock[0] += 1

    def take(self, agent: Agent) -> bool:
        """Give the agent the newest weights; False where it has them, or where they are just being written."""
        before = int(self._clock[0])
        if before % 2 or before == self._read:
            return False
        found, version = self._buffer.clone(), int(self._clock[1])
        if int(self._clock[0]) != before:
            return False
        self._layout.read(found, agent)
        self._read, self.version = before, version
        return True


def check_room(needed: int) -> None:
    """Refuse to share more bytes than there is shared memory: a process that writes beyond it is killed without a word.

    Raises:
        UserError: says how much is needed, and how much is there.
    """
    if not SHARED.is_dir():  # elsewhere than on Linux
        return
    place = os.statvfs(SHARED)
    free = place.f_bavail * place.f_frsize
    if needed > free:
        raise UserError(
            f"acting=async shares {needed / MIB:,.0f} MiB of weights and {SHARED} has room for {free / MIB:,.0f}: make it larger "
            "(docker run --shm-size), or give acting=sync"
        )


def agent_state(agent: Agent) -> dict[str, Tensor]:
    """Weights and tables of world model and policy, by name."""
    state = {f"model.{name}": value for name, value in agent.model.state_dict().items()}
    return state | {f"hierarchy.{name}": value for name, value in agent.hierarchy.state_dict().items()}


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
