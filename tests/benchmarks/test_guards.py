"""The benchmark of the guards' cost: both ways play the same, and what is made of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.guards import BENCHMARK, plan, summarise
from benchmarks.guards_measure import guarded, gymnasium_envs, measure, plain, some_actions
from envs import EnvConfig, make_envs, make_task_space

CARTPOLE = EnvConfig(id="CartPole-v1", num_envs=3, holdout=False)


def test_both_ways_play_the_same_episodes(monkeypatch: pytest.MonkeyPatch):
    ours, theirs = make_envs(CARTPOLE, make_task_space(CARTPOLE)), gymnasium_envs(CARTPOLE)
    seen: dict[str, list[np.ndarray]] = {"ours": [], "theirs": []}

    def watch(envs: Any, name: str) -> None:
        step = envs.step

        def noting(action: np.ndarray) -> Any:
            result = step(action)
            seen[name].append(result[0]["observation"].copy())
            return result

        monkeypatch.setattr(envs, "step", noting)

    watch(ours, "ours")
    watch(theirs, "theirs")
    for step in (guarded(ours), plain(theirs)):
        for action in some_actions(ours.spec.action, 60, 3):
            step(action)
    assert len(seen["ours"]) == 60 and np.array_equal(seen["ours"], seen["theirs"]), "and 60 steps are several episodes"
    ours.close()
    theirs.close()


def test_a_measurement_holds_rates_their_ratio_and_its_spread():
    figures = measure(CARTPOLE, rounds=4, seconds=0.005)
    assert set(figures["steps_per_second"]) == {"ours", "gymnasium"} and figures["steps_a_round"] % 3 == 0
    assert 0 < figures["ratio"]["low"] <= figures["ratio"]["median"] <= figures["ratio"]["high"]


def test_a_case_is_an_environment_and_how_it_is_vectorised():
    assert [run.variant for run in plan(BENCHMARK.parse(["--modes", "sync", "async"]))][:3] == [
        "MiniGrid-DoorKey-8x8-v0 sync",
        "MiniGrid-DoorKey-8x8-v0 async",
        "CartPole-v1 sync",
    ]
    record = {"variant": "CartPole-v1 sync", "error": None, "figures": {"extra_microseconds": 3.0}}
    result = summarise(BENCHMARK.parse([]), [record])
    step = result["training_step_microseconds"]
    assert step is not None and result["cases"]["CartPole-v1 sync"]["share_of_training_step"] == 3.0 / step
