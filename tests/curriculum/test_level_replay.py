"""Prioritised level replay by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from curriculum import CurriculumConfig
from curriculum.config import LevelReplayConfig
from curriculum.level_replay import LevelReplay, priorities
from envs.tasks import Outcome
from tests.curriculum.test_schedulers import TASKS


def replay(**keys: object) -> LevelReplay:
    settings = dict(levels=4, fill=0.5, replay=0.5, temperature=1.0, staleness=0.0) | keys
    return LevelReplay(TASKS, CurriculumConfig(level_replay=LevelReplayConfig(**settings)))  # type: ignore[arg-type]


def played(task: str, seed: int, **signals: float) -> Outcome:
    return Outcome(task, 0.0, False, 10, seed=seed, signals=signals)


def test_priorities_go_by_rank_or_by_score():
    """Ranks 2, 1, 3: 1/2, 1, 1/3; a temperature of 0.5 squares them."""
    scores = np.array([0.5, 2.0, 0.0])
    assert priorities(scores, LevelReplayConfig(temperature=1.0)) == pytest.approx(np.array([3, 6, 2]) / 11)
    assert priorities(scores, LevelReplayConfig(temperature=0.5)) == pytest.approx(np.array([9, 36, 4]) / 49)
    proportional = LevelReplayConfig(prioritization="proportional", temperature=1.0)
    assert priorities(scores, proportional) == pytest.approx([0.2, 0.8, 0])
    assert priorities(np.zeros(2), proportional).tolist() == [0.5, 0.5]


def test_nothing_is_replayed_before_there_are_levels_enough_and_a_share_afterwards():
    """Levels of easy, scored 1, and of hard, scored 3: by rank 1/3 and 2/3 of the half that is replayed."""
    scheduler = replay()
    scheduler.update([played("easy", 7, value_error=1.0)])
    assert scheduler.distribution() == pytest.approx([1 / 3] * 3)
    scheduler.update([played("hard", 9, value_error=3.0)])
    assert scheduler.distribution() == pytest.approx([1 / 6 + 1 / 6, 1 / 6, 1 / 6 + 1 / 3])
    drawn = scheduler.sample(600, np.random.default_rng(0))
    again = [task for task in drawn if (task.id, task.seed) in {("easy", 7), ("hard", 9)}]
    assert 250 < len(again) < 350 and all(task.learn for task in drawn)


def test_staleness_is_how_many_episodes_ago_a_level_was_played():
    """Three episodes: the first level is two episodes old, the second, played again, none."""
    scheduler = replay(staleness=1.0)
    scheduler.update([played("easy", 1, value_error=0), played("hard", 2, value_error=0), played("hard", 2, value_error=0)])
    assert scheduler.chances().tolist() == [1, 0] and scheduler.levels == [(0, 1), (2, 2)]


def test_a_level_played_again_is_scored_anew_and_a_full_memory_gives_up_its_least_likely_level_for_a_better_one():
    scheduler = replay(levels=2)
    scheduler.update([played("easy", 1, value_error=1.0), played("easy", 2, value_error=2.0), played("easy", 1, value_error=3.0)])
    assert scheduler.scores == [3, 2]
    scheduler.update([played("hard", 5, value_error=1.0)])
    assert scheduler.levels == [(0, 1), (0, 2)], "no better"
    scheduler.update([played("hard", 5, value_error=2.5)])
    assert scheduler.levels == [(0, 1), (2, 5)] and scheduler.scores == [3, 2.5]


def test_a_level_that_is_not_scored_any_more_is_given_up():
    """Its episodes are kept out of training: it would never be learned, and stay the one that is most wrong."""
    scheduler = replay()
    scheduler.update([played("easy", 1, value_error=1.0), played("easy", 2, value_error=2.0), played("hard", 3, value_error=3.0)])
    scheduler.update([played("easy", 1), played("easy", 9)])
    assert scheduler.levels == [(2, 3), (0, 2)] and scheduler.scores == [3, 2] and scheduler.played == [3, 2]
    scheduler.update([played("hard", 3, value_error=0.5), played("easy", 2)])
    assert scheduler.levels == [(2, 3)] and scheduler.scores == [0.5] and scheduler.played == [6]
    assert scheduler.distribution() == pytest.approx([1 / 3] * 3), "too few are left"


def test_the_score_is_the_signal_that_was_chosen():
    scheduler = replay(score="regret")
    scheduler.update([played("easy", 1, value_error=5.0, regret=0.5), played("easy", 2, value_error=5.0)])
    assert scheduler.required_signals == {"regret"} and scheduler.scores == [0.5]


def test_robust_replay_learns_from_new_levels_only_until_there_are_enough():
    scheduler, rng = replay(robust=True), np.random.default_rng(0)
    assert all(task.learn for task in scheduler.sample(20, rng))
    scheduler.update([played("easy", 1, value_error=1.0), played("easy", 2, value_error=1.0)])
    assert all(task.learn == (task.id == "easy" and task.seed in (1, 2)) for task in scheduler.sample(50, rng))


def test_env_steps_of_levels_that_are_only_judged_are_counted_and_go_on_after_a_resume():
    scheduler, rng = replay(robust=True, replay=0.0), np.random.default_rng(0)
    learned = scheduler.sample(1, rng)[0]  # there are not levels enough yet
    scheduler.update([played("easy", 1, value_error=1.0), played("easy", 2, value_error=1.0)])
    judged = [task for task in scheduler.sample(2, rng) if not task.learn]
    again = replay(robust=True, replay=0.0)
    again.load_state_dict(json.loads(json.dumps(scheduler.state_dict())))
    for task in (learned, *judged):
        assert task.seed is not None
        again.update([replace(played(task.id, task.seed, value_error=1.0), length=7)])
    assert len(judged) == 2 and again.metrics()["judged_steps"] == 14
    assert "judged_steps" not in replay().metrics()
