"""Schedulers that only an agent with a world model and a hierarchy can have, by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from curriculum import CurriculumConfig
from curriculum.config import ImaginedSuccessConfig, ReachabilityConfig
from curriculum.imagined_success import ImaginedSuccess
from curriculum.reachability import Reachability
from tests.curriculum.test_schedulers import TASKS, outcomes


def test_imagined_success_weighs_a_toss_up_most_and_what_is_unknown_as_one():
    scheduler = ImaginedSuccess(TASKS, CurriculumConfig(explore=0.0))
    assert scheduler.distribution() == pytest.approx([1 / 3] * 3)
    scheduler.observe({"easy": {"imagined_success": 1.0}, "middle": {"imagined_success": 0.9}})
    assert scheduler.distribution() == pytest.approx([0, 0.09 / 0.34, 0.25 / 0.34])


def test_its_estimates_are_compared_with_what_came():
    """0.8 was foretold of easy: a success is off by -0.2, a failure by 0.8. Of hard nothing was foretold."""
    scheduler = ImaginedSuccess(TASKS, CurriculumConfig())
    scheduler.observe({"easy": {"imagined_success": 0.8}})
    scheduler.update(outcomes("easy", 1, 0) + outcomes("hard", 0))
    metrics = scheduler.metrics()
    assert metrics["brier"] == pytest.approx((0.04 + 0.64) / 2) and metrics["bias"] == pytest.approx(0.3)
    assert metrics["imagined/easy"] == 0.8 and "imagined/hard" not in metrics


def test_success_that_takes_longer_than_a_rollout_is_none_to_it():
    scheduler = ImaginedSuccess(TASKS, CurriculumConfig(imagined_success=ImaginedSuccessConfig(horizon=9)))
    scheduler.observe({"easy": {"imagined_success": 0.25}})
    scheduler.update(outcomes("easy", 1, 1))  # ten steps each
    assert scheduler.metrics()["brier"] == 0.0625 and scheduler.tallies[2].tolist() == [2, 0.5, 0, 0.125]


def test_what_a_reliability_curve_takes_is_tallied_in_tenths_and_kept_over_a_resume():
    """0.8 was foretold of easy, which succeeded once of two times, and 1.0 of middle, which did once."""
    scheduler = ImaginedSuccess(TASKS, CurriculumConfig())
    scheduler.observe({"easy": {"imagined_success": 0.8}, "middle": {"imagined_success": 1.0}})
    scheduler.update(outcomes("easy", 1, 0) + outcomes("middle", 1) + outcomes("hard", 0))
    resumed = ImaginedSuccess(TASKS, CurriculumConfig())
    resumed.load_state_dict(json.loads(json.dumps(scheduler.state_dict())))
    resumed.update(outcomes("middle", 0))
    found = {name: value for name, value in resumed.metrics().items() if name.startswith("reliability/")}
    eight = {"episodes": 2, "foretold": 1.6, "came": 1, "squared_error": 0.04 + 0.64}
    nine = {"episodes": 2, "foretold": 2, "came": 1, "squared_error": 1}
    expected = {f"reliability/0.8/{k}": v for k, v in eight.items()} | {f"reliability/0.9/{k}": v for k, v in nine.items()}
    assert found == pytest.approx(expected)


def test_reachability_tells_whether_the_worker_cannot_or_the_manager_does_not():
    """Weights r (1 - p) + r (1 - r): easy, all reached and solved nine times of ten; middle, all reached and never solved;
    hard, nothing reached."""
    scheduler = Reachability(TASKS, CurriculumConfig(window=8, explore=0.0))
    scheduler.update(outcomes("easy", *[1] * 8) + outcomes("middle", *[0] * 8) + outcomes("hard", *[0] * 8))
    scheduler.observe({"easy": {"reach": 1.0}, "middle": {"reach": 1.0}, "hard": {"reach": 0.0}})
    assert scheduler.distribution() == pytest.approx([0.1, 0.9, 0])


def test_a_worker_that_reaches_its_goals_now_and_then_has_to_learn_and_its_explorer_proves_nothing():
    """r (1 - p) + r (1 - r): 0.5 * 0.9 + 0.25, 0.5 * 0.1 + 0.25, and 0.5 * 0.5 + 0.25 where there was nothing but practice."""
    scheduler = Reachability(TASKS, CurriculumConfig(window=8, explore=0.0))
    alone = [replace(outcome, practice=True) for outcome in outcomes("hard", *[1] * 8)]
    scheduler.update(outcomes("easy", *[0] * 8) + outcomes("middle", *[1] * 8) + alone)
    scheduler.observe({task: {"reach": 0.5} for task in ("easy", "middle", "hard")})
    assert scheduler.distribution() == pytest.approx([0.7 / 1.5, 0.3 / 1.5, 0.5 / 1.5])


def test_the_first_reach_counts_in_full_and_later_ones_by_their_rate():
    scheduler = Reachability(TASKS, CurriculumConfig(reachability=ReachabilityConfig(rate=0.25)))
    scheduler.observe({"easy": {"reach": 0.8}})
    scheduler.observe({"easy": {"reach": 0.4}})
    assert scheduler.reach.tolist() == pytest.approx([0.7, 0.5, 0.5])
