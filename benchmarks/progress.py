"""How running benchmarks are shown in a terminal, and how Ctrl-C reaches them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from benchmarks.training import Metrics


@contextmanager
def ending_in_order(tell: Callable[[str], None]) -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets, instead of raising wherever the program happens to be; a second Ctrl-C does raise.

    Off the main thread, where Python allows no handlers, the event is never set.
    """
    stop = threading.Event()
    before: dict[signal.Signals, object] = {}

    def on_signal(number: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        tell("interrupted: ending the runs under way; finished ones are kept")

    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]


class Live:
    """Tells a terminal how the runs are doing; lines alone where there is no terminal. Safe to use from several threads."""

    def __init__(self, console: Console) -> None:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[told]}"),
            TimeElapsedColumn(),
        )
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._console = console

    def __enter__(self) -> Live:
        self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._progress.stop()

    def say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False)

    @contextmanager
    def run(self, name: str, total_steps: int | None) -> Iterator[Callable[[Metrics], None]]:
        """A line of the display for one run, while entered; what it answers takes the run's newest metrics."""
        line = self._progress.add_task(name, total=total_steps, told="starting")

        def tell(metrics: Metrics) -> None:
            steps = int(metrics.get("env_steps", 0))
            self._progress.update(line, completed=steps, told=f"{steps:,} env steps")

        try:
            yield tell
        finally:
            self._progress.remove_task(line)
