"""The statistics of a comparison, on numbers worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from pytest import approx

from agent.compare.statistics import (
    area,
    bootstrap,
    forgetting,
    holm,
    interval,
    iqm,
    median_reached,
    permutation_p,
    probability_of_improvement,
    reached_share,
    smallest_p,
    wilson,
    worst,
)


def of(*values: float) -> np.ndarray:
    return np.array(values, float)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_the_interquartile_mean_leaves_out_the_lowest_and_the_highest_quarter():
    assert iqm(of(100, 1, 2, -50)) == approx(1.5)
    assert iqm(of(9, 1, 2, 3, 4, 5, 6, -7)) == approx(3.5), "1 and 9, 6 and -7 are out: (2 + 3 + 4 + 5) / 4"
    assert iqm(of(1, 2, 6)) == approx(3), "of three it is the mean"
    assert iqm(np.array([[0.0, 10], [1, 20], [2, 30], [3, 90]])) == approx([1.5, 25]), "over the first axis"


def test_the_interval_of_a_share_is_wilsons_and_stays_within_0_and_1():
    assert wilson(81 / 263, 263) == approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(0.0, 20) == approx((0.0, 0.1611), abs=1e-4) and wilson(1.0, 20) == approx((0.8389, 1.0), abs=1e-4)
    assert wilson(0.0, 0) == (0.0, 1.0), "nothing was drawn"


def test_a_bootstrap_draws_each_stratum_as_many_runs_as_it_has():
    sizes = []

    def apart(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        sizes.append((len(x), len(y)))
        assert set(x) <= {1, 2, 3} and set(y) <= {10, 20}
        return np.asarray(y.mean() - x.mean())

    draws = bootstrap([of(1, 2, 3), of(10, 20)], apart, 400, rng())
    assert draws.shape == (400,) and set(sizes) == {(3, 2)}
    assert draws.mean() == approx(13, abs=0.8)
    assert draws.min() >= 7 and draws.max() <= 19


def test_the_interval_of_a_mean_of_0_and_1_is_that_of_the_binomial():
    draws = bootstrap([of(0, 1)], lambda x: np.asarray(x.mean()), 4000, rng())
    shares = [float((draws == value).mean()) for value in (0, 0.5, 1)]
    assert shares == approx([0.25, 0.5, 0.25], abs=0.03)
    low, high = interval(np.arange(101.0), 0.9)
    assert (float(low), float(high)) == approx((5, 95))


def test_the_probability_of_improvement_counts_ties_half():
    assert probability_of_improvement(of(2, 3), of(0, 1)) == 1
    assert probability_of_improvement(of(1, 1), of(1, 1)) == 0.5
    assert probability_of_improvement(of(0, 2), of(1, 1, 2)) == approx((0 + 0 + 0 + 1 + 1 + 0.5) / 6)


def test_few_runs_cannot_have_a_small_p_whatever_they_say():
    assert permutation_p(of(8, 9), of(1, 2), rng()) == approx(2 / 6)
    assert permutation_p(of(7, 8, 9), of(1, 2, 3), rng()) == approx(2 / 20)
    assert permutation_p(of(6, 7, 8, 9), of(1, 2, 3, 4), rng()) == approx(2 / 70)
    assert permutation_p(of(1, 1, 1), of(1, 1, 1), rng()) == 1
    # 1 4 against 2 3: 0.5 exactly, as far from the middle as none
    assert permutation_p(of(1, 4), of(2, 3), rng()) == 1


def test_the_smallest_p_is_that_of_runs_which_lie_all_on_one_side(monkeypatch: pytest.MonkeyPatch):
    assert [smallest_p(n, m) for n, m in ((1, 1), (1, 5), (3, 5), (5, 3), (4, 4))] == approx([1, 1 / 6, 1 / 56, 1 / 56, 2 / 70])
    assert permutation_p(of(7, 8, 9), of(1, 2, 3, 4, 5), rng()) == approx(2 / 56), "7 8 9 and, the other way, 1 2 3"
    assert permutation_p(of(7, 8, 9), of(1, 1, 1, 1, 1), rng()) == approx(1 / 56), "of 1 1 1 none is lower than the other 1s"
    monkeypatch.setattr("agent.compare.statistics.MOST_SPLITS", 30)
    assert smallest_p(3, 5) == 1 / 31, "where splits are drawn, none of them may be as far apart"


def test_where_there_are_too_many_splits_some_are_drawn(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("agent.compare.statistics.MOST_SPLITS", 400)
    few = permutation_p(np.arange(8.0), np.arange(8.0) + 4, rng())
    monkeypatch.setattr("agent.compare.statistics.MOST_SPLITS", 20_000)
    assert few == approx(permutation_p(np.arange(8.0), np.arange(8.0) + 4, rng()), abs=0.02)


def test_holm_multiplies_the_smallest_p_by_all_the_next_by_one_less_and_keeps_the_order():
    assert holm([0.04, 0.01, 0.03]) == approx([0.06, 0.03, 0.06])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_area_is_the_mean_over_steps_not_over_points():
    steps = of(0, 10, 100)
    assert area(steps, of(0, 1, 1)) == approx((10 * 0.5 + 90) / 100)
    assert area(steps, np.array([[1.0, 1, 1], [0, 0, 1]])) == approx([1, 0.45])
    assert area(of(500), np.array([[0.25], [1]])) == approx([0.25, 1]), "of one point its value"


def test_the_worst_tenth_is_of_at_least_one_value():
    assert worst(of(0.5, 0.2, 0.9)) == 0.2
    assert worst(np.linspace(0, 1, 21)) == approx(0.025), "the two lowest of 21"


def test_forgetting_is_what_is_missing_to_the_best_there_was():
    success = np.array([[0.2, 0.0], [1.0, 0.5], [0.7, 0.9]])
    assert forgetting(success) == approx([0.3, 0.0])


def test_runs_that_never_get_there_are_censored_not_dropped():
    times, shares = reached_share([300, None, 100, None], [1000, 1000, 1000, 1000])
    assert times.tolist() == [0, 100, 300] and shares == approx([0, 0.25, 0.5])
    assert median_reached([300, None, 100, None], [1000] * 4) == 300
    assert median_reached([100, None, None], [1000] * 3) is None
    assert median_reached([], []) is None


def test_a_run_that_ended_early_counts_until_it_ended():
    # By hand, Kaplan-Meier: at 100 one of 4 gets there, 3/4 are left; one ends at 150; at 200 one of 2: 3/8 are left.
    times, shares = reached_share([100, None, 200, None], [500, 150, 500, 500])
    assert times.tolist() == [0, 100, 200] and shares == approx([0, 1 / 4, 5 / 8])
    assert median_reached([100, None, 200, None], [500, 150, 500, 500]) == 200
