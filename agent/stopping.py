"""Ctrl-C and SIGTERM end a job after the step under way."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol

from agent.console import console
from world_model.engines.joining import is_first_process, is_launched


class Stoppable(Protocol):
    """What looks at `stopping` after every step."""

    stopping: bool


@contextmanager
def stop_on_signal(job: Stoppable) -> Iterator[None]:
    """The first signal asks `job` to stop; a second Ctrl-C ends the program at once.

    Not so where a launcher started it, be it alone: that passes on what the terminal has sent to the process already.
    """
    alone = not is_launched()

    def stop(number: int, frame: FrameType | None) -> None:
        if job.stopping and alone:
            raise KeyboardInterrupt
        job.stopping = True
        if alone:
            console.print("Stopping: checkpoint and report follow (press Ctrl-C again to quit without them) ...")
        elif is_first_process():
            console.print("Stopping: checkpoint and report follow ...")

    try:
        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread: whoever runs us there stops us some other way
        before = {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
