"""How a run is going, live: a bar on a terminal, a plain line every now and then elsewhere."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import NamedTuple

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text


class Tick(NamedTuple):
    """The counters at one moment."""

    seconds: float
    env_steps: int
    updates: int


class Rates:
    """Speeds over a sliding span of time, so that warm-up and compilation do not weigh on the estimate for ever."""

    def __init__(self, span: float = 30.0) -> None:
        self.span = span
        self._ticks: deque[Tick] = deque()

    def add(self, tick: Tick) -> None:
        """Note the counters; keeps what is newer than `span` seconds, and one tick before that to measure from."""
        self._ticks.append(tick)
        while len(self._ticks) > 2 and self._ticks[1].seconds <= tick.seconds - self.span:
            self._ticks.popleft()

    def per_second(self) -> tuple[float, float]:
        """Env steps and updates per second; zeros before two moments are known."""
        if len(self._ticks) < 2:
            return 0.0, 0.0
        first, last = self._ticks[0], self._ticks[-1]
        seconds = max(last.seconds - first.seconds, 1e-9)
        return (last.env_steps - first.env_steps) / seconds, (last.updates - first.updates) / seconds


class Progress:
    """Env steps done, speed, time left, device, current task and success of every task.

    Use it as a context manager and call `update` as often as you like: a terminal is redrawn four times a second, anything else
    (a file, a pipe, a batch system) gets a plain line every `every` seconds and a last one at the end.

    Args:
        total_env_steps: where the run ends at the latest.
        device: what it computes on, to be shown.
        enabled: False shows nothing.
        threshold: success from which a task counts as mastered, and is shown in green.
        env_steps, updates: counters that a resumed run starts with.
        unit: what is counted, where it is not env steps.
    """

    def __init__(
        self,
        total_env_steps: int,
        device: str = "cpu",
        enabled: bool = True,
        every: float = 10.0,
        threshold: float = 0.9,
        env_steps: int = 0,
        updates: int = 0,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
        unit: str = "env steps",
    ) -> None:
        self.total, self.device, self.enabled, self.every, self.unit = total_env_steps, device, enabled, every, unit
        self.threshold = threshold
        self._console = console or Console()
        self._clock = clock
        self._env_steps, self._task = env_steps, ""
        self._success: dict[str, float] = {}
        self._rates = Rates()
        self._rates.add(Tick(clock(), env_steps, updates))
        self._printed = clock()
        self._last_line = ""
        self._live: Live | None = None

    def __enter__(self) -> Progress:
        if self.enabled and self._console.is_terminal:
            self._live = Live(get_renderable=self._bar, console=self._console, refresh_per_second=4, transient=False)
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
        elif self.enabled and self.line() != self._last_line:
            self._print()

    def update(self, env_steps: int, updates: int, task: str = "", success: Mapping[str, float] | None = None) -> None:
        """Note where the run is: `task` is the one played most just now, `success` is `{task: training success}`."""
        now = self._clock()
        self._rates.add(Tick(now, env_steps, updates))
        self._env_steps, self._task = env_steps, task or self._task
        if success is not None:
            self._success = dict(success)
        if self.enabled and self._live is None and now - self._printed >= self.every:
            self._printed = now
            self._print()

    def line(self) -> str:
        """Everything on one line: `12,000/40,000 env steps (30 %) | 310 steps/s | ...`."""
        share = min(100 * self._env_steps / max(self.total, 1), 100)  # the last step is one of all environments
        parts = [f"{self._env_steps:,}/{self.total:,} {self.unit} ({share:.0f} %)", *self._figures()]
        if self._task:
            parts.append(f"on {self._task}")
        if self._success:
            parts.append("success " + "  ".join(f"{name} {value:.2f}" for name, value in self._success.items()))
        return " | ".join(parts)

    def _figures(self) -> list[str]:
        steps, updates = self._rates.per_second()
        left = clock_time(max(self.total - self._env_steps, 0) / steps) if steps > 0 else "-"
        speed = [] if self.unit == "updates" else [f"{steps:,.0f} steps/s"]
        return [*speed, f"{updates:.1f} updates/s", f"ETA {left}", self.device]

    def _print(self) -> None:
        # Without soft_wrap rich would break the line at 80 columns, where there is no terminal to be that narrow.
        self._last_line = self.line()
        self._console.print(self._last_line, soft_wrap=True, highlight=False, markup=False)

    def _bar(self) -> RenderableType:
        top = Table.grid(padding=(0, 1))
        done = Text(f"{self._env_steps:,}/{self.total:,} {self.unit}", style="bold")
        top.add_row(ProgressBar(total=max(self.total, 1), completed=min(self._env_steps, self.total), width=32), done)
        figures = Text(" · ".join(self._figures()), style="dim")
        tasks = Text("success  " if self._success else "")
        for name, value in self._success.items():
            style = "bold cyan" if name == self._task else ("green" if value >= self.threshold else "")
            tasks.append(f"{'> ' if name == self._task else ''}{name} {value:.2f}   ", style=style)
        if self._task and self._task not in self._success:
            tasks.append(f"> {self._task}", style="bold cyan")
        return Group(top, figures, tasks)


def clock_time(seconds: float) -> str:
    """`75` -> `1:15`, `3725` -> `1:02:05`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
