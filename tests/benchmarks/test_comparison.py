"""What learners are compared by."""

from __future__ import annotations

import pytest

from benchmarks.comparison import break_even_seconds_per_step, median_reached, worst_reached


def test_break_even_is_the_extra_seconds_over_the_steps_saved():
    # 200 s against 14 s buys 36,000 - 18,000 steps: 186 s / 18,000 = 10.33 ms a step.
    assert break_even_seconds_per_step(200.0, 18_000, 14.0, 36_000) == pytest.approx(186 / 18_000)


def test_at_the_break_even_cost_both_learners_take_equally_long():
    cost = break_even_seconds_per_step(300.0, 20_000, 15.0, 45_000)
    assert cost is not None
    assert 300.0 + cost * 20_000 == pytest.approx(15.0 + cost * 45_000)


def test_break_even_is_negative_when_we_are_faster_even_where_steps_are_free():
    assert break_even_seconds_per_step(10.0, 10_000, 30.0, 20_000) == pytest.approx(-0.002)


@pytest.mark.parametrize("our_steps", [36_000, 36_001, 90_000])
def test_there_is_no_break_even_when_we_use_no_fewer_steps(our_steps):
    assert break_even_seconds_per_step(200.0, our_steps, 14.0, 36_000) is None


@pytest.mark.parametrize(
    "figures", [(None, None, 14.0, 36_000), (200.0, 18_000, None, None), (None, 18_000, 14.0, 36_000), (None, None, None, None)]
)
def test_there_is_no_break_even_when_one_of_the_two_never_got_there(figures):
    assert break_even_seconds_per_step(*figures) is None


def test_the_median_of_an_even_number_is_the_mean_of_the_middle_two():
    assert median_reached([4, 1, 3, 2]) == 2.5


def test_a_seed_that_never_got_there_counts_as_the_worst_in_the_median():
    assert median_reached([30, None, 10]) == 30
    assert median_reached([None, None, 10]) is None
    assert median_reached([None, 10]) is None


def test_the_worst_is_none_as_soon_as_one_seed_never_got_there():
    assert worst_reached([30, 10, 20]) == 30
    assert worst_reached([30, None, 20]) is None


def test_of_no_figures_there_is_neither_median_nor_worst():
    assert median_reached([]) is None
    assert worst_reached([]) is None
