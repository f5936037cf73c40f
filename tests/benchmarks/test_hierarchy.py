"""Flat and director side by side."""

from __future__ import annotations

import json
from typing import Any

import pytest
from rich.console import Console

from benchmarks import hierarchy
from benchmarks.harness import Options
from benchmarks.mastery import POINTS, mastery_curve, share_of_time
from benchmarks.training import composed_config

TASKS = hierarchy.FAMILIES["multiroom"]


def record(variant, seed, steps, error=None, lost=None):
    tasks: dict[str, Any] = {task: {"success": success} for task, success in zip(TASKS, (1.0, 0.95, 0.5), strict=True)}
    if lost is not None:
        tasks[TASKS[1]]["goals"] = {"shuffled": {"lost": lost}}
    figures = {
        "reached": steps,
        "area": 0.25,
        "wall_seconds": 100.0,
        "tasks": tasks,
        "forgotten": {TASKS[0]: 0.0, TASKS[1]: 0.05},
    }
    return {"variant": variant, "seed": seed, "error": error, "commit": "c", "figures": None if error else figures}


def test_the_area_is_that_under_the_share_of_tasks_mastered():
    curve = {"easy": [[10.0, 0.5], [20.0, 0.9], [40.0, 0.8], [60.0, 1.0]], "hard": [[50.0, 0.2], [80.0, 0.95]], "never": []}
    assert share_of_time(curve, 3, 100, 0.9) == ((40 - 20) + (100 - 60) + (100 - 80)) / 300
    assert share_of_time({"late": [[150.0, 1.0]]}, 1, 100, 0.9) == 0.0


def test_curves_are_thinned_and_keep_their_last_point():
    lines = [{"env_steps": n, "train/success/a": n / 1000} for n in range(1000)] + [{"env_steps": 1000}]
    curve = mastery_curve(lines, ("a", "b"))
    assert mastery_curve([{"env_steps": 5, "eval/success/a": 0.5}], ("a",), "eval/success") == {"a": [[5.0, 0.5]]}
    assert len(curve["a"]) <= POINTS and curve["a"][-1] == [999.0, 0.999] and curve["b"] == []


def test_practice_is_left_out_of_the_curves_where_there_was_any():
    lines = [{"env_steps": 1, "train/success/a": 0.5, "train/success/b": 0.9}]
    assert hierarchy.judged_curve(lines, ("a", "b")) == {"a": [[1.0, 0.5]], "b": [[1.0, 0.9]]}
    lines.append({"env_steps": 2, "train/success/a": 0.8, "train/success/b": 0.9, "train/judged/a": 0.3})
    assert hierarchy.judged_curve(lines, ("a", "b")) == {"a": [[2.0, 0.3]], "b": []}, "all of b's episodes were practice"


def test_what_was_mastered_and_is_missing_at_the_end_is_forgotten():
    curve = {"a": [[1.0, 0.95], [2.0, 0.75]], "b": [[1.0, 0.6], [2.0, 0.1]], "c": [[1.0, 0.9], [2.0, 0.9]]}
    found = hierarchy.forgotten(curve)
    assert found == {"a": pytest.approx(0.2), "c": 0.0}


def test_runs_that_never_got_there_count_as_longest_and_failures_are_said():
    records = [
        record("multiroom/flat", 1, 50_000),
        record("multiroom/flat", 2, None),
        record("multiroom/flat", 3, 70_000),
        record("multiroom/director", 1, None, lost=0.6),
        record("multiroom/director", 2, None, error="it broke"),
    ]
    result = json.loads(json.dumps(hierarchy.summarise(Options(), records), allow_nan=False))
    assert result["variants"]["multiroom/flat"]["steps"] == 70_000
    assert result["variants"]["multiroom/director"]["steps"] is None
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(hierarchy.show(result))
    text = console.export_text()
    for shown in ("50,000", "never", "0.60", "1.00 0.95 0.50", "multiroom/director seed 2 failed: it broke"):
        assert shown in text


def test_variants_run_seed_by_seed(monkeypatch):
    monkeypatch.setattr("benchmarks.hierarchy.composed_config", lambda given: {"given": given, "train": {"env_steps": 7}})
    chosen = ["multiroom/flat", "multiroom/director"]
    runs = hierarchy.plan(Options(seeds=(1, 2), arguments={"only": chosen}, overrides=("model=s",)))
    assert [(run.variant, run.seed) for run in runs] == [(name, seed) for seed in (1, 2) for name in chosen]
    assert runs[0].config["given"][-1] == "model=s" and runs[0].total_steps == 7


def test_what_needs_one_seed_runs_with_the_first_unless_it_is_asked_for(monkeypatch):
    monkeypatch.setattr("benchmarks.hierarchy.composed_config", lambda given: {"train": {"env_steps": 7}})
    runs = [(run.variant, run.seed) for run in hierarchy.plan(Options(seeds=(1, 2)))]
    assert {name for name, seed in runs if seed == 1} == set(hierarchy.VARIANTS)
    assert {name.partition("/")[2] for name, seed in runs if seed == 2} == {"flat", "director", "flat, undiscovered"}
    drawn = "multiroom/director, goals drawn"
    assert [run.seed for run in hierarchy.plan(Options(seeds=(1, 2), arguments={"only": [drawn]}))] == [1, 2]


@pytest.mark.parametrize("name", ["multiroom/flat", "keycorridor/director, alone", "multiroom/director, goals drawn"])
def test_run_py_takes_the_overrides(name: str):
    config = composed_config(hierarchy.VARIANTS[name])
    assert config["env"]["tasks"] == list(hierarchy.FAMILIES[name.partition("/")[0]])
    assert (config["hierarchy"]["name"] == "director") == ("director" in name)
    assert (config["curriculum"]["name"] == "target_only") == ("alone" in name)
