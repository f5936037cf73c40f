"""`benchmarks.planner`: which checkpoints are measured with how many candidates, and what is made of the figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from agent.jobs import train
from benchmarks import planner
from benchmarks.harness import Options
from benchmarks.planner_measure import measure_checkpoint
from benchmarks.training import composed_config
from envs.errors import UserError
from tests.agent.tiny import DOORKEY, tiny_config

SETTINGS = {"task": "DoorKey-6x6", "planner": "actions", "horizon": 2, "candidates": [0, 3], "episodes": 2, "calls": 2, "seed": 5}


def figures(successes: int) -> dict[str, Any]:
    return {
        "successes": successes, "episodes": 100, "layouts": 50, "length": 90.4, "milliseconds": 4.26, "milliseconds_of_16": 17.0
    }  # fmt: skip


def record(seed: int, error: str | None = None) -> dict[str, Any]:
    found = {"checkpoints": [{"env_steps": 4000, "task": "DoorKey-6x6", "candidates": {"0": figures(20), "32": figures(60)}}]}
    return {"variant": "trained", "seed": seed, "error": error, "figures": None if error else found}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("minigrid", reason="needs the suites extra")
    folder = tmp_path_factory.mktemp("planner") / "run"
    config = tiny_config(DOORKEY, train=dict(env_steps=48, checkpoint_every=32))
    config.eval.episodes, config.eval.calibration = 1, 0
    train(config, folder)
    return folder


def test_every_checkpoint_of_a_given_run_is_measured_or_the_one_that_is_named(run: Path):
    paths = planner.checkpoints_of(run)
    assert [path.name for path in paths] == ["step_000000032", "step_000000048"]
    assert planner.checkpoints_of(paths[0]) == paths[:1]
    (planned,) = planner.plan(Options(arguments={"runs": [str(run)]}))
    assert (planned.variant, planned.seed, planned.config["env_steps"]) == ("given", 1, [32, 48])
    assert planned.config["measure"]["candidates"] == [0, 8, 32] and planned.config["measure"]["episodes"] == 100


def test_all_candidates_play_the_same_layouts_from_the_same_weights(run: Path):
    path = planner.checkpoints_of(run)[-1]
    found = measure_checkpoint(path, SETTINGS)
    assert found["env_steps"] == 48 and found["task"] == "DoorKey-6x6" and list(found["candidates"]) == ["0", "3"]
    for measured in found["candidates"].values():
        assert measured["episodes"] == 2 and measured["layouts"] == 2
        assert measured["milliseconds"] > 0 and measured["milliseconds_of_16"] > 0
    json.dumps(found, allow_nan=False)


def test_goals_cannot_be_planned_for_a_policy_without_them(run: Path):
    with pytest.raises(UserError, match=r"hierarchy\.planner=goals needs goals, which hierarchy=flat has not"):
        measure_checkpoint(planner.checkpoints_of(run)[-1], {**SETTINGS, "planner": "goals"})


def test_a_folder_without_a_checkpoint_and_a_horizon_of_nothing_are_refused(tmp_path: Path):
    with pytest.raises(UserError):
        planner.plan(Options(arguments={"runs": [str(tmp_path)]}))
    with pytest.raises(UserError, match="--horizon 0 is too short"):
        planner.plan(Options(arguments={"horizon": 0}))


def test_a_seed_is_trained_once_and_run_py_takes_the_overrides(monkeypatch: pytest.MonkeyPatch):
    assert composed_config([*planner.TRAINING, *planner.QUICK])["train"]["env_steps"] == 600
    monkeypatch.setattr(planner, "composed_config", lambda given: {"given": list(given), "train": {"env_steps": 7}})
    runs = planner.plan(Options(seeds=(1, 2), overrides=("train.env_steps=7",)))
    assert [(run.variant, run.seed, run.total_steps) for run in runs] == [("trained", 1, 7), ("trained", 2, 7)]
    assert runs[0].config["train"]["given"][-1] == "train.env_steps=7"


def test_the_interval_of_a_share_is_wilsons():
    """Newcombe (1998) gives 0.2553 to 0.3662 for 81 of 263, and 0 to 0.1611 for 0 of 20."""
    assert planner.wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert planner.wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)


def test_the_table_shows_every_number_of_candidates_with_its_interval_and_what_failed():
    result = planner.summarise(Options(), [record(1), record(2, error="it broke")])
    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(planner.show(result))
    text = console.export_text()
    for shown in ("4,000", "0.20", "0.60", "0.13-0.29", "4.3", "17.0", "trained seed 2 failed: it broke"):
        assert shown in text
