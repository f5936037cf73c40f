"""Ctrl-C and SIGTERM end a job after the step under way."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol

from agent.console import console


class Stoppable(Protocol):
    """What looks at `stopping` after every step."""

    stopping: bool


@contextmanager
def stop_on_signal(job: Stoppable) -> Iterator[None]:
    """The first signal asks `job` to stop; a second Ctrl-C ends the program at once."""

    def stop(number: int, frame: FrameType | None) -> None:
        if job.stopping:
            raise KeyboardInterrupt
        job.stopping = True
        console.print("Stopping: checkpoint and report follow (press Ctrl-C again to quit without them) ...")

    try:
        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread: whoever runs us there stops us some other way
        before = {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
