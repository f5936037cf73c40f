"""The benchmark of environments: what counts as met, and what is made of several seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.environments import BENCHMARK, CASES, plan, reads_its_mission, summarise


def summary(**task: Any) -> dict[str, Any]:
    return {"tasks": {"easy": {}, "hard": task}, "steps_to_threshold": {"easy": 10, "hard": None}, "env_steps": 500}


def record(variant: str, seed: int, figures: dict[str, Any] | None, error: str | None = None) -> dict[str, Any]:
    return {"variant": variant, "seed": seed, "figures": figures, "error": error}


@pytest.mark.parametrize(
    ("success", "length", "shuffled", "met"),
    [(0.95, 8.0, 9.0, True), (0.94, 8.0, 16.0, False), (1.0, 8.0, 8.7, False)],
)
def test_a_mission_is_read_if_that_of_another_leads_astray(success: float, length: float, shuffled: float, met: bool):
    assert reads_its_mission(summary(success=success, length=length, shuffled={"length": shuffled})) is met


def test_pendulum_is_met_above_its_return_only():
    met = CASES["pendulum"].met
    assert met is not None and met({"tasks": {"p": {"return": -249.0}}}) and not met({"tasks": {"p": {"return": -250.0}}})


def test_seeds_are_averaged_and_a_failed_one_is_shown_and_left_out():
    runs = [{**summary(**{"return": score, "return_greedy": score + 10}), "met": score > -250} for score in (-200.0, -300.0)]
    records = [record("pendulum", 1, runs[0]), record("pendulum", 2, runs[1]), record("pendulum", 3, None, "it broke")]
    case = summarise(BENCHMARK.parse([]), records)["cases"]["pendulum"]
    assert case["runs"]["1"] == {"error": None, "met": True, "return": -200.0, "return, greedy": -190.0}
    assert case["runs"]["2"]["met"] is False and case["runs"]["3"] == {"error": "it broke"}
    assert case["mean"] == {"return": -250.0, "return, greedy": -240.0}


def test_a_threshold_that_one_seed_never_reached_has_no_mean():
    reached = {**summary(success=1.0), "met": None, "steps_to_threshold": {"hard": 900}}
    never = {**summary(success=0.5), "met": None}
    case = summarise(BENCHMARK.parse([]), [record("doorkey_pixels", 1, reached), record("doorkey_pixels", 2, never)])
    assert case["cases"]["doorkey_pixels"]["mean"] == {"steps to 0.9": None, "success": 0.75}


def test_a_quick_run_of_one_case_gives_its_figures(tmp_path: Path):
    options = BENCHMARK.parse(["--quick", "--only", "pendulum"])
    (run,) = plan(options)
    assert run.variant == "pendulum" and run.config["env"]["id"] == "Pendulum-v1"
