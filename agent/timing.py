"""Where the time goes: seconds spent in every phase of a run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager


class PhaseTimer:
    """Cumulative seconds of named phases, measured on the host: `with timer("model"): ...`.

    Phases may nest: the time of an inner phase is not counted again in the outer one, so the sum is never more than the wall
    time. A device that works asynchronously has its work counted in the phase that first waits for it.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.seconds: dict[str, float] = {}
        self._clock = clock
        self._inner: list[float] = []  # one entry a phase under way: seconds spent in the phases inside it

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        start = self._clock()
        self._inner.append(0.0)
        try:
            yield
        finally:
            elapsed = self._clock() - start
            own = elapsed - self._inner.pop()
            self.seconds[phase] = self.seconds.get(phase, 0.0) + own
            if self._inner:
                self._inner[-1] += elapsed

    def metrics(self) -> dict[str, float]:
        """`time/<phase>`: cumulative seconds."""
        return {f"time/{phase}": seconds for phase, seconds in self.seconds.items()}

    def state_dict(self) -> dict[str, float]:
        return dict(self.seconds)

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        self.seconds = dict(state)
