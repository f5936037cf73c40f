"""Slots side by side, in this process or in one process each."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, Protocol

from envs.deadline import TICKS, Deadline
from envs.delivery import RESET_FACTOR, EnvSlot, SlotStart, SlotStep
from envs.errors import UserError
from envs.faults import FaultError
from envs.guards import picklable_info
from envs.tasks import Task

Build = Callable[..., EnvSlot]  # takes `deadline`
PRELOAD = ["__main__", "envs.make", "envs.pools"]  # imported once, by the process that workers are forked from
SPARE = 1.0  # seconds past its own time limit that a worker is given to report it
START = 60.0  # seconds that a new worker is given to import what it needs


class Pool(Protocol):
    """Slots that are begun and stepped together; a fault of one is its answer."""

    def begin(self, asked: Mapping[int, Task], afresh: Collection[int]) -> dict[int, SlotStart | FaultError]:
        """Start an episode of `asked[i]` in slot i, in a newly built environment where i is in `afresh`."""
        ...

    def step(self, actions: Sequence[Any]) -> list[SlotStep | FaultError]: ...

    def close(self) -> None: ...


class LocalPool:
    """One after the other in this process: best for cheap environments."""

    def __init__(self, builders: Iterable[Build], timeout: float = 0.0) -> None:
        self._deadline = Deadline(timeout)  # one clock for all
        self.slots = [build(deadline=self._deadline) for build in builders]

    def begin(self, asked: Mapping[int, Task], afresh: Collection[int]) -> dict[int, SlotStart | FaultError]:
        with self._deadline:
            return {i: self.slots[i].begin(task, i in afresh) for i, task in asked.items()}

    def step(self, actions: Sequence[Any]) -> list[SlotStep | FaultError]:
        with self._deadline:
            return [slot.step(action) for slot, action in zip(self.slots, actions, strict=True)]

    def close(self) -> None:
        with self._deadline:
            for slot in self.slots:
                slot.close()


class WorkerPool:
    """A process each: for slow environments, and for such as hang in C code or take their process down.

    Workers are forked from a clean process that has imported what they need: forking this one would copy its threads' locks as
    they are, and starting each from nothing takes seconds. A worker that dies or hangs is replaced alone.

    Args:
        builders: must be picklable.
        timeout: seconds a step may take, 0 for no limit.
    """

    def __init__(self, builders: Iterable[Build], timeout: float = 0.0) -> None:
        forking = "forkserver" in multiprocessing.get_all_start_methods()
        self._context: Any = multiprocessing.get_context("forkserver" if forking else "spawn")
        if forking:
            self._context.set_forkserver_preload(PRELOAD)
        self._builders = list(builders)
        self._timeout = timeout
        self._workers = [_Worker(self._context, build, timeout) for build in self._builders]

    def begin(self, asked: Mapping[int, Task], afresh: Collection[int]) -> dict[int, SlotStart | FaultError]:
        for i, task in asked.items():
            self._workers[i].send("begin", task, i in afresh)
        # Twice, as a reset may come after a build or a few draws of a layout.
        limit = 2 * RESET_FACTOR * self._timeout
        return {i: self._answer(i, limit) for i in asked}

    def step(self, actions: Sequence[Any]) -> list[SlotStep | FaultError]:
        for worker, action in zip(self._workers, actions, strict=True):
            worker.send("step", action)
        return [self._answer(i, self._timeout) for i in range(len(self._workers))]

    def close(self) -> None:
        for worker in self._workers:
            worker.send("close")
        for worker in self._workers:
            worker.join()

    def _answer(self, i: int, limit: float) -> Any:
        answer = self._workers[i].receive(limit)
        if isinstance(answer, UserError):
            raise answer
        if isinstance(answer, FaultError) and answer.kind in ("died", "timeout") and not self._workers[i].ready:
            self._workers[i].kill()
            self._workers[i] = _Worker(self._context, self._builders[i], self._timeout)
        return answer


class _Worker:
    """This side of one process.

    Attributes:
        ready: it is alive and waits for the next command.
    """

    def __init__(self, context: Any, build: Build, timeout: float) -> None:
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, build, timeout), daemon=True)
        self._process.start()
        theirs.close()
        self._sent = time.monotonic()
        self._grace = START  # until the first answer
        self.ready = True

    def send(self, command: str, *arguments: Any) -> None:
        self.ready, self._sent = False, time.monotonic()
        with suppress(OSError):  # a dead worker is met when its answer is read
            self._pipe.send((command, *arguments))

    def receive(self, limit: float) -> Any:
        """The answer; a fault where none comes within `limit` seconds (0: wait for ever), or ever."""
        until = self._sent + limit * (1 + 1 / TICKS) + SPARE + self._grace
        try:
            if not self._pipe.poll(max(until - time.monotonic(), 0.0) if limit > 0 else None):
                return FaultError("timeout", f"no answer within {limit:g} s, so its process was killed")
            answer = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join(SPARE)
            return FaultError("died", f"its process ended with exit code {self._process.exitcode}")
        self.ready, self._grace = True, 0.0
        return answer

    def join(self) -> None:
        self._process.join(SPARE)
        self.kill()

    def kill(self) -> None:
        if self._process.is_alive():
            self._process.kill()
        self._process.join()
        self._pipe.close()


def _serve(pipe: Connection, build: Build, timeout: float) -> None:
    """A worker's own loop, until it is told to close or nobody listens any more."""
    # Ctrl-C reaches every process of the terminal; the run's own process answers it and closes the workers in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    deadline = Deadline(timeout)
    slot = build(deadline=deadline)
    with deadline, suppress(EOFError, OSError):
        while True:
            command, *arguments = pipe.recv()
            if command == "close":
                break
            try:
                answer = slot.begin(*arguments) if command == "begin" else slot.step(*arguments)
            except UserError as error:
                pipe.send(error)
                continue
            if isinstance(answer, SlotStep) and answer.info is not None:
                info, odd = picklable_info(answer.info)
                answer = answer._replace(info=info, odd=answer.odd or odd)
            pipe.send(answer)
        slot.close()
