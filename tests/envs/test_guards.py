"""Environments that break down in the middle of a run: what is survived, how it is counted, and where it ends."""

from __future__ import annotations

import logging
import signal
import time
from typing import Any

import numpy as np
import pytest

from envs import EnvConfig, StepResult, SuccessRule, TaskVectorEnv, UserError, make_envs, make_task_space
from envs.deadline import Deadline, TimeUp
from envs.guards import BrokenInfo

GOOD, BAD = 0, 99  # seeds

# fault of `tests.envs.bad` -> the kind it is counted as, all of which cost the episode
COSTLY = {
    "raise": "raised",
    "old_api": "raised",
    "shape": "outside_space",
    "words": "outside_space",
    "missing": "outside_space",
    "category": "outside_space",
    "below": "outside_space",
    "nan": "not_finite",
    "inf_reward": "not_finite",
    "no_reward": "not_finite",
    "space": "space_changed",
    "hang": "timeout",
}
HARMLESS = {"bounds": "out_of_bounds", "list": "odd_info", "keys": "odd_info"}


def bad_envs(fault: str, vectorization: str = "sync", num_envs: int = 2, **keys: Any) -> TaskVectorEnv:
    settings = {"step_timeout": 0.2 if fault in ("hang", "deaf", "hang_reset") else 60.0, "max_faults": 2} | keys
    kwargs = {"fault": fault}
    config = EnvConfig(id="tests.envs.bad:Bad-v0", kwargs=kwargs, holdout=False, vectorization=vectorization, **settings)
    return make_envs(config, make_task_space(config), num_envs)


def play(envs: TaskVectorEnv, steps: int, seeds: tuple[int, ...] = (GOOD, BAD)) -> StepResult:
    envs.reset([envs.tasks.hardest.with_seed(seed) for seed in seeds])
    for _ in range(steps):
        result = envs.step(np.zeros(len(seeds), np.int64))
    return result


def check_survived(envs: TaskVectorEnv, kind: str) -> None:
    """The second environment breaks down in its third step, the first one never; both go on."""
    result = play(envs, 3)
    assert result.dropped is not None and result.dropped.tolist() == [False, True]
    assert result.truncated.tolist() == [False, True] and not result.terminated.any()
    assert result.reward.tolist() == [0.0, 0.0] and result.infos == [{}, {}]
    assert result.obs["x"][:, 0].tolist() == [3.0, 2.0], "the last good observation"
    assert envs.faults.metrics() == {f"env/faults/{kind}": 1.0}
    obs = envs.reset([None, envs.tasks.hardest.with_seed(GOOD)], result.truncated)
    assert obs["x"][:, 0].tolist() == [3.0, 0.0]
    for _ in range(3):
        result = envs.step(np.zeros(2, np.int64))
    assert result.dropped is None and result.terminated.tolist() == [True, False] and result.obs["x"][1, 0] == 3.0
    envs.close()


@pytest.mark.parametrize("fault", COSTLY)
def test_a_breakdown_costs_the_episode_and_the_environment_is_built_anew(fault: str) -> None:
    check_survived(bad_envs(fault), COSTLY[fault])


@pytest.mark.parametrize("fault", ["raise", "nan", "hang", "deaf", "die"])
def test_in_processes_of_their_own_even_one_that_dies_or_is_deaf_costs_the_others_nothing(fault: str) -> None:
    check_survived(bad_envs(fault, "async"), {"die": "died", "deaf": "timeout"}.get(fault) or COSTLY[fault])


def test_an_action_space_that_changes_is_noticed_when_the_episode_ends() -> None:
    result = play(bad_envs("action_space"), 6)
    assert result.dropped is not None and result.dropped.tolist() == [False, True]


@pytest.mark.parametrize("fault", HARMLESS)
def test_what_does_no_harm_is_counted_and_goes_on(fault: str) -> None:
    envs = bad_envs(fault)
    result = play(envs, 6)
    assert result.dropped is None and result.terminated.all() and result.reward.tolist() == [1.0, 1.0]
    assert envs.faults.metrics() == {f"env/faults/{HARMLESS[fault]}": 4.0 if fault == "bounds" else 1.0}
    assert all(isinstance(key, str) for key in result.infos[1])


def test_an_info_that_cannot_be_sent_from_process_to_process_is_sent_without_what_is_in_the_way() -> None:
    envs = bad_envs("lambda", "async")
    result = play(envs, 6)
    assert result.infos == [{"is_success": True}, {"is_success": True}] and result.dropped is None
    assert envs.faults.metrics() == {"env/faults/odd_info": 1.0}
    envs.close()


def test_a_reward_in_an_array_of_one_is_a_reward() -> None:
    result = play(bad_envs("array_reward"), 3)
    assert result.dropped is None and result.reward.tolist() == [0.0, 0.5]


@pytest.mark.parametrize(("fault", "kind"), [("raise_reset", "raised"), ("hang_reset", "timeout")])
def test_a_reset_that_breaks_down_is_tried_again_under_another_seed(fault: str, kind: str) -> None:
    envs = bad_envs(fault, step_timeout=0.1)
    result = play(envs, 6)
    assert result.terminated.all() and envs.faults.metrics() == {f"env/faults/{kind}": 1.0}


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_one_fault_more_than_allowed_refuses_the_run_in_one_sentence(vectorization: str) -> None:
    envs = bad_envs("raise", vectorization, 1, max_faults=1)
    assert play(envs, 3, (BAD,)).truncated.all()
    with pytest.raises(UserError) as refusal:
        play(envs, 3, (BAD,))
    assert str(refusal.value) == (
        "environment 0 (task Bad-v0) raised an exception (ZeroDivisionError in step: physics broke down), and env.max_faults=1 "
        "such fault has been let pass already: mend the environment, put a wrapper round it (env.wrappers), or raise "
        "env.max_faults."
    )
    envs.close()


def test_each_kind_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    envs = bad_envs("nan")
    with caplog.at_level(logging.WARNING):
        play(envs, 3)
        play(envs, 3)
    assert [record.getMessage() for record in caplog.records] == [
        "environment 1 (task Bad-v0) gave an observation or a reward that is not a finite number: `x` holds nan "
        "(told once, counted as env/faults/not_finite)"
    ]
    assert envs.faults.metrics() == {"env/faults/not_finite": 2.0}


def test_an_environment_that_shows_nothing_at_all_is_refused_at_the_start() -> None:
    config = EnvConfig(id="tests.envs.bad:Bad-v0", kwargs={"fault": "raise_reset", "odds": 1}, holdout=False)
    with pytest.raises(UserError, match=r"environment Bad-v0 raises OSError: the level file is gone before it shows"):
        make_envs(config, make_task_space(config), 1)


@pytest.mark.parametrize("key", ["step_timeout", "max_faults"])
def test_negative_limits_are_refused(key: str) -> None:
    with pytest.raises(UserError, match=f"env.{key}=-1"):
        bad_envs("", "sync", 2, **{key: -1})


@pytest.mark.parametrize("value", [np.array([False, True]), np.array([]), float("nan"), None])
def test_an_odd_success_entry_is_no_success(value: Any) -> None:
    assert not SuccessRule.parse("info:won").judge(0.0, 0.0, True, {"won": value})


def test_an_info_that_was_none_is_a_failure_and_no_mistake_in_config() -> None:
    assert not SuccessRule.parse("info:won").judge(0.0, 0.0, True, BrokenInfo())


def test_a_deadline_interrupts_and_leaves_the_alarm_as_it_found_it() -> None:
    before = signal.getsignal(signal.SIGALRM)
    deadline = Deadline(0.05)
    with pytest.raises(TimeUp), deadline:
        deadline.start()
        time.sleep(10)
    assert signal.getsignal(signal.SIGALRM) is before and signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
