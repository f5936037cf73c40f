"""A time limit on calls into environments."""

from __future__ import annotations

import math
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

TICKS = 4  # looks at the clock within one limit


class TimeUp(BaseException):
    """The call has taken too long. No `Exception`, so that `except Exception` in an environment does not swallow it."""


class Deadline:
    """`with deadline:` keeps a clock ticking; inside, `start` and `stop` are put round each call, which costs next to nothing.

    `TimeUp` is raised in a call at the first tick past its limit, and again at each further one should the environment catch it.

    The clock is SIGALRM, so it ticks in the main thread of a process alone (elsewhere there is no limit), and interrupts Python,
    sleeping and waiting, but no C code that never comes back: only the process of `env.vectorization=async` can be killed then.
    Whatever handled the signal before is put back at the end of the block.

    Args:
        seconds: that a call may take, 0 for no limit.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._until = math.inf
        self._ticking = False
        self._before: Any = None

    def start(self, factor: int = 1) -> None:
        """A call begins that may take `factor` times the limit."""
        if self.seconds > 0:
            self._until = time.monotonic() + factor * self.seconds

    def stop(self) -> None:
        """The call is over."""
        self._until = math.inf

    def __enter__(self) -> None:
        if self.seconds > 0 and threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGALRM, self._tick)
            self._ticking = True
            signal.setitimer(signal.ITIMER_REAL, self.seconds / TICKS, self.seconds / TICKS)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
        if self._ticking:
            self._ticking = False
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._before)

    def _tick(self, number: int, frame: FrameType | None) -> None:
        if time.monotonic() >= self._until:
            raise TimeUp
