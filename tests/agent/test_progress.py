"""The progress display: speeds, time left, a plain line where there is no terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from agent.progress import Progress, Rates, Tick, clock_time
from tests.agent.test_timing import Clock


def shown(terminal: bool, clock: Clock, **options) -> tuple[Progress, io.StringIO]:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=100, color_system=None)
    return Progress(1000, console=console, clock=clock, **options), out


def test_speeds_are_differences_over_time():
    rates = Rates()
    assert rates.per_second() == (0.0, 0.0)
    rates.add(Tick(10.0, 100, 5))
    assert rates.per_second() == (0.0, 0.0)
    rates.add(Tick(14.0, 300, 15))
    assert rates.per_second() == (50.0, 2.5)


def test_speeds_forget_what_is_older_than_their_span():
    rates = Rates(span=10.0)
    for tick in (Tick(0.0, 0, 0), Tick(100.0, 10, 0), Tick(105.0, 110, 5), Tick(110.0, 210, 10)):
        rates.add(tick)
    assert rates.per_second() == (20.0, 1.0)  # from 100 s to 110 s; the slow start is gone


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (75, "1:15"), (59.6, "1:00"), (3725, "1:02:05"), (90000, "25:00:00")])
def test_times_read_as_clocks(seconds: float, text: str):
    assert clock_time(seconds) == text


def test_a_line_says_all_there_is_to_know():
    clock = Clock()
    progress, _ = shown(False, clock, device="cpu")
    clock.now = 4.0
    progress.update(200, 10, "DoorKey-6x6", {"DoorKey-5x5": 1.0, "DoorKey-6x6": 0.25})
    assert progress.line() == (
        "200/1,000 env steps (20 %) | 50 steps/s | 2.5 updates/s | ETA 0:16 | cpu | on DoorKey-6x6"
        " | success DoorKey-5x5 1.00  DoorKey-6x6 0.25"
    )


def test_the_speed_of_a_resumed_run_does_not_count_what_was_done_before():
    clock = Clock()
    progress, _ = shown(False, clock, env_steps=600, updates=50)
    clock.now = 2.0
    progress.update(700, 60)
    assert progress.line() == "700/1,000 env steps (70 %) | 50 steps/s | 5.0 updates/s | ETA 0:06 | cpu"


def test_before_anything_is_known_the_time_left_is_a_dash():
    progress, _ = shown(False, Clock())
    assert progress.line() == "0/1,000 env steps (0 %) | 0 steps/s | 0.0 updates/s | ETA - | cpu"


def test_without_a_terminal_there_is_a_plain_line_every_ten_seconds_and_one_at_the_end():
    clock = Clock()
    progress, out = shown(False, clock)
    with progress:
        for second in range(1, 26):
            clock.now = float(second)
            progress.update(second * 10, second)
    lines = out.getvalue().splitlines()
    assert [line.split("/")[0] for line in lines] == ["100", "200", "250"]
    assert "\x1b" not in out.getvalue()


def test_a_long_line_is_not_broken_where_there_is_no_terminal():
    clock = Clock()
    progress, out = shown(False, clock)
    with progress:
        clock.now = 1.0
        progress.update(10, 1, "t0", {f"task-with-a-long-name-{i}": 0.5 for i in range(9)})
    assert len(out.getvalue().splitlines()) == 1


def test_a_terminal_gets_a_bar_with_the_task_that_is_played():
    clock = Clock()
    progress, out = shown(True, clock)
    with progress:
        clock.now = 4.0
        progress.update(200, 10, "DoorKey-6x6", {"DoorKey-5x5": 1.0, "DoorKey-6x6": 0.25})
    last = out.getvalue()
    assert "200/1,000 env steps" in last
    assert "50 steps/s · 2.5 updates/s · ETA 0:16 · cpu" in last
    assert "> DoorKey-6x6 0.25" in last


def test_switched_off_it_prints_nothing():
    clock = Clock()
    progress, out = shown(False, clock, enabled=False)
    with progress:
        clock.now = 60.0
        progress.update(10, 1)
    assert out.getvalue() == ""


def test_steps_past_the_end_are_no_more_than_all_of_them():
    clock = Clock()
    progress, _ = shown(False, clock)
    progress.update(1008, 0)
    assert progress.line().startswith("1,008/1,000 env steps (100 %)")
    progress, out = shown(True, clock)
    with progress:
        progress.update(5000, 0)
    bar = next(line for line in out.getvalue().splitlines() if "5,000/1,000" in line)
    assert bar.count("━") <= 32
