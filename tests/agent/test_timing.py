"""Seconds of every phase."""

from __future__ import annotations

import pytest

from agent.timing import PhaseTimer


class Clock:
    """Time that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_phases_add_up_over_the_run():
    clock = Clock()
    timer = PhaseTimer(clock)
    for seconds in (2.0, 3.0):
        with timer("model"):
            clock.now += seconds
        clock.now += 100.0
    assert timer.metrics() == {"time/model": 5.0}


def test_an_inner_phase_is_taken_out_of_the_outer_one():
    clock = Clock()
    timer = PhaseTimer(clock)
    with timer("policy"):
        clock.now += 1.0
        for _ in range(2):
            with timer("imagination"):
                clock.now += 4.0
                with timer("heads"):
                    clock.now += 0.5
        clock.now += 2.0
    assert timer.seconds == {"heads": 1.0, "imagination": 8.0, "policy": 3.0}
    assert sum(timer.seconds.values()) == clock.now


def test_a_phase_that_fails_is_counted_and_the_error_goes_on():
    clock = Clock()
    timer = PhaseTimer(clock)
    with pytest.raises(RuntimeError, match="broken"), timer("model"):
        clock.now += 1.0
        raise RuntimeError("broken")
    assert timer.seconds == {"model": 1.0}


def test_a_timer_goes_on_where_its_state_was_written():
    clock = Clock()
    timer = PhaseTimer(clock)
    timer.load_state_dict({"model": 10.0})
    with timer("model"):
        clock.now += 1.5
    assert timer.state_dict() == {"model": 11.5}
