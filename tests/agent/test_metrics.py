"""Means between log steps, training success and steps to threshold."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch

from agent.learner import mean_of_each
from agent.metrics import Averager, SuccessTracker
from envs.tasks import Outcome


def outcome(success: bool, env_steps: int, task: str = "a", score: float = 0.0, length: int = 10) -> Outcome:
    return Outcome(task, score, success, length, env_steps)


def test_an_averager_answers_the_mean_since_it_was_last_asked():
    averager = Averager()
    averager.add({"loss": 1.0, "entropy": 4.0})
    averager.add({"loss": 3.0})
    assert averager.pop() == {"loss": 2.0, "entropy": 4.0}
    averager.add({"loss": 7.0})
    assert averager.pop() == {"loss": 7.0}
    assert averager.pop() == {}


def test_an_averager_weighs_what_it_is_told_to_weigh():
    averager = Averager()
    averager.add({"loss": 1.0}, weight=3.0)
    averager.add({"loss": 5.0}, weight=1.0)
    assert averager.pop() == {"loss": 2.0}  # (3 * 1 + 1 * 5) / 4


def test_an_averager_keeps_no_graph_of_the_tensors_it_is_given():
    averager = Averager()
    parameter = torch.tensor(2.0, requires_grad=True)
    averager.add({"loss": parameter * 3})
    averager.add({"loss": parameter * 5})
    assert not averager._sums["loss"].requires_grad
    assert averager.pop() == {"loss": 8.0}


def test_success_return_and_length_are_means_over_the_last_episodes_only():
    tracker = SuccessTracker(["a", "b"], window=4)
    for i, success in enumerate([False, False, True, True, True]):
        tracker.record(outcome(success, 10 * i, score=float(i), length=i), seconds=0.0)
    assert tracker.metrics() == {
        "train/success/a": 0.75,  # the last four: no, yes, yes, yes
        "train/return/a": 2.5,  # 1, 2, 3, 4
        "train/length/a": 2.5,
        "train/episodes/a": 5.0,
    }
    assert tracker.success() == {"a": 0.75}
    assert math.isnan(tracker.tasks["b"].success)


def test_the_threshold_is_reached_by_a_full_window_only():
    tracker = SuccessTracker(["a"], window=100, threshold=0.9)
    reached = [tracker.record(outcome(True, 10 * (i + 1)), seconds=float(i)) for i in range(120)]
    assert reached.index(True) == 99  # 99 successes out of 99 are not a full window
    assert reached.count(True) == 1
    assert tracker.steps_to_threshold() == {"a": 1000}
    assert tracker.seconds_to_threshold() == {"a": 99.0}


def test_ninety_of_a_hundred_are_enough_and_eighty_nine_are_not():
    for failures, expected in ((10, 100), (11, None)):
        tracker = SuccessTracker(["a"])
        for i in range(100):
            tracker.record(outcome(i >= failures, i + 1), seconds=0.0)
        assert tracker.steps_to_threshold()["a"] == expected


def test_a_full_window_reaches_the_threshold_when_an_old_failure_leaves_it():
    tracker = SuccessTracker(["a"])
    for i in range(100):
        tracker.record(outcome(i >= 11, i + 1), seconds=0.0)  # 89 of 100
    assert not tracker.record(outcome(False, 101), seconds=1.0)  # a failure for a failure
    assert tracker.record(outcome(True, 102), seconds=2.0)  # a success for a failure: 90
    assert (tracker.steps_to_threshold(), tracker.seconds_to_threshold()) == ({"a": 102}, {"a": 2.0})


def test_what_was_reached_stays_reached():
    tracker = SuccessTracker(["a"], window=2, threshold=1.0)
    for i, success in enumerate([True, True, False, False, True, True]):
        tracker.record(outcome(success, i), seconds=float(i))
    assert tracker.steps_to_threshold() == {"a": 1}


def test_steps_to_threshold_count_the_steps_of_all_tasks():
    tracker = SuccessTracker(["a", "b"], window=1)
    tracker.record(outcome(False, 500, "b"), seconds=1.0)
    tracker.record(outcome(True, 900, "a"), seconds=2.0)
    assert tracker.steps_to_threshold() == {"a": 900, "b": None}


def test_practice_counts_as_training_but_towards_no_threshold():
    tracker = SuccessTracker(["a"], window=2, threshold=1.0)
    for i, (success, practice) in enumerate([(True, True), (True, True), (False, False), (True, False), (True, True)]):
        assert not tracker.record(replace(outcome(success, i), practice=practice), seconds=0.0)
    found = tracker.metrics()
    assert (found["train/success/a"], found["train/judged/a"], found["train/practice/a"]) == (1.0, 0.5, 1.0)
    assert tracker.success() == {"a": 1.0} and tracker.judged() == {"a": 0.5}
    assert tracker.record(replace(outcome(True, 7), practice=False), seconds=0.0), "two successes that were no practice"
    assert tracker.steps_to_threshold() == {"a": 7}


def test_practice_is_no_sign_of_skill():
    tracker = SuccessTracker(["a"], threshold=0.9)
    for i in range(4):
        tracker.record(replace(outcome(True, i), practice=i < 2), seconds=0.0)
    assert tracker.solved_lately(2) and not tracker.solved_lately(3)


def test_a_record_from_before_there_was_practice_counts_whole():
    tracker = SuccessTracker(["a"], window=2, threshold=1.0)
    tracker.record(outcome(True, 1), seconds=0.0)
    state = tracker.state_dict()
    for key in ("judged", "practised", "practice"):
        del state["a"][key]
    tracker.load_state_dict(state)
    assert tracker.record(outcome(True, 2), seconds=0.0)


def test_a_tracker_goes_on_where_its_state_was_written():
    one = SuccessTracker(["a", "b"], window=3, threshold=1.0)
    for i, success in enumerate([False, True, True]):
        one.record(outcome(success, i, score=0.5), seconds=float(i))
    one.record(replace(outcome(False, 3), practice=True), seconds=3.0)
    two = SuccessTracker(["a", "b"], window=3, threshold=1.0)
    two.load_state_dict(json.loads(json.dumps(one.state_dict())))
    for tracker in (one, two):
        assert tracker.record(outcome(True, 9), seconds=9.0)
    assert one.state_dict() == two.state_dict()
    assert two.metrics()["train/episodes/a"] == 5.0


def test_an_unknown_task_is_an_error_that_names_it():
    with pytest.raises(KeyError, match="c"):
        SuccessTracker(["a"]).record(outcome(True, 1, "c"), seconds=0.0)


def test_what_minibatches_say_is_averaged_over_those_that_say_it():
    steps = [{"entropy": torch.tensor(1.0), "critic": torch.tensor(3.0, requires_grad=True)}, {"entropy": torch.tensor(2.0)}]
    means = mean_of_each(steps)
    assert {name: value.item() for name, value in means.items()} == {"entropy": 1.5, "critic": 3.0}
    assert not means["critic"].requires_grad
