"""`benchmarks.planner`: which checkpoints are measured with how many candidates, and what is made of the figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from agent.compare.statistics import wilson
from agent.evaluation import StepLimit, TaskResult, evaluate
from agent.jobs import train
from benchmarks import planner
from benchmarks.harness import Options
from benchmarks.planner_measure import Watched, measure_checkpoint
from benchmarks.planner_table import paired_difference
from benchmarks.training import composed_config
from envs import make_task_space
from envs.config import EnvConfig
from envs.errors import UserError
from tests.agent.test_evaluation import Watcher
from tests.agent.tiny import DOORKEY, tiny_config

SETTINGS = {"task": "DoorKey-6x6", "planner": "actions", "horizon": 2, "candidates": [0, 3], "episodes": 2, "calls": 2, "seed": 5}
PHASES = EnvConfig(id="tests.agent.tiny:Phases-v0", num_envs=4, holdout=False, success="return>=1")


def figures(outcomes: list[bool], milliseconds: float) -> dict[str, Any]:
    return {
        "successes": sum(outcomes), "episodes": len(outcomes), "outcomes": outcomes, "layouts": len(outcomes), "length": 90.4,
        "milliseconds": milliseconds, "milliseconds_of_16": 4 * milliseconds,
    }  # fmt: skip


def record(
    seed: int, error: str | None = None, steps: tuple[int, ...] = (4000,), variant: str = "actions/flat"
) -> dict[str, Any]:
    """The policy alone succeeds in the first 20 layouts of 100; 8 candidates lose 5 of these and gain 10; 32 gain 40."""
    candidates = {
        "0": figures([k < 20 for k in range(100)], 4.25 + seed),
        "8": figures([5 <= k < 30 for k in range(100)], 13.75 + seed),
        "32": figures([k < 60 for k in range(100)], 1234.5 + seed),
    }
    found = {"checkpoints": [{"env_steps": at, "task": "DoorKey-6x6", "candidates": candidates} for at in steps]}
    return {"variant": variant, "seed": seed, "error": error, "figures": None if error else found}


def rendered(result: dict[str, Any], width: int = 80) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(planner.show(result))
    return console.export_text()


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
    assert (planned.variant, planned.seed, planned.config["env_steps"]) == ("actions/flat, given", 1, [32, 48])
    assert planned.config["measure"]["candidates"] == [0, 8, 32] and planned.config["measure"]["episodes"] == 100


def test_all_candidates_play_the_same_layouts_from_the_same_weights(run: Path):
    path = planner.checkpoints_of(run)[-1]
    found = measure_checkpoint(path, SETTINGS)
    assert found["env_steps"] == 48 and found["task"] == "DoorKey-6x6" and list(found["candidates"]) == ["0", "3"]
    for measured in found["candidates"].values():
        assert measured["episodes"] == 2 and measured["layouts"] == 2
        assert len(measured["outcomes"]) == 2 and sum(measured["outcomes"]) == measured["successes"]
        assert measured["milliseconds"] > 0 and measured["milliseconds_of_16"] > 0
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("episodes", [3, 4, 17])
def test_outcomes_are_in_the_order_in_which_layouts_were_dealt_out_whenever_their_episodes_ended(episodes: int):
    """Of number n an episode lasts 1 + n % 7 steps and succeeds if n is even; one that is cut off does not."""
    begun = {}
    for limit in (3, 7):
        inner: Any = Watcher()
        watched: Any = Watched(inner, episodes)
        (result,) = evaluate(watched, PHASES, make_task_space(PHASES), episodes, limit=StepLimit(limit)).values()
        numbers = begun[limit] = inner.begun[:episodes]
        assert watched.length == [min(1 + n % 7, limit) for n in numbers]
        assert watched.outcomes(result) == [n % 2 == 0 and 1 + n % 7 <= limit for n in numbers]
    assert begun[3] == begun[7]


def test_episodes_are_not_paired_where_one_was_given_up():
    inner: Any = Watcher()
    watched: Any = Watched(inner, 2)
    for first in ([True, True], [False, True]):
        watched.act({"n": np.zeros((2, 1))}, np.array(first), None)
    assert watched.outcomes(TaskResult(success=[True, False], length=[1, 2])) == [False, True], (
        "the second began last, ended first"
    )
    with pytest.raises(UserError, match="an environment broke down"):
        watched.outcomes(TaskResult(success=[False], length=[2]))


def test_goals_cannot_be_planned_for_a_policy_without_them_which_is_said_before_any_training(run: Path):
    with pytest.raises(UserError, match=r"hierarchy\.planner=goals needs goals, which hierarchy=flat has not"):
        measure_checkpoint(planner.checkpoints_of(run)[-1], {**SETTINGS, "planner": "goals"})
    for options in (
        Options(arguments={"planner": "goals", "runs": [str(run)]}),
        Options(arguments={"planner": "goals"}, overrides=("hierarchy=flat",)),
    ):
        with pytest.raises(UserError, match="--planner goals needs goals, which hierarchy=flat has not"):
            planner.plan(options)


def test_a_folder_without_a_checkpoint_and_a_horizon_of_nothing_are_refused(tmp_path: Path):
    with pytest.raises(UserError):
        planner.plan(Options(arguments={"runs": [str(tmp_path)]}))
    with pytest.raises(UserError, match="--horizon 0 is too short"):
        planner.plan(Options(arguments={"horizon": 0}))


def test_a_seed_is_trained_once_and_goes_on_where_it_was_and_run_py_takes_the_overrides(monkeypatch: pytest.MonkeyPatch):
    def composed(given: list[str]) -> dict[str, Any]:
        train = {"env_steps": 7, "checkpoint_every": 2}
        name = "director" if "hierarchy=director" in given else "flat"
        return {"given": list(given), "train": train, "env": {"num_envs": 1}, "hierarchy": {"name": name}}

    assert composed_config([*planner.TRAINING, *planner.QUICK])["train"]["env_steps"] == 600
    monkeypatch.setattr(planner, "composed_config", composed)
    runs = planner.plan(Options(seeds=(1, 2), overrides=("train.env_steps=7",)))
    assert [(run.variant, run.seed, run.total_steps) for run in runs] == [("actions/flat", 1, 7), ("actions/flat", 2, 7)]
    assert all(run.resumes for run in runs)
    assert runs[0].config["train"]["given"] == [*planner.TRAINING, "train.env_steps=7"]


def test_a_director_is_trained_where_goals_are_planned_unless_another_hierarchy_is_asked_for(monkeypatch: pytest.MonkeyPatch):
    def planned(*overrides: str) -> tuple[str, list[str]]:
        (run,) = planner.plan(Options(seeds=(1,), overrides=overrides, arguments={"planner": "goals"}))
        return run.variant, [word for word in run.config["train"]["given"] if word.startswith("hierarchy")]

    def composed(given: list[str]) -> dict[str, Any]:
        config = composed_config(given)
        return {**config, "given": given}

    monkeypatch.setattr(planner, "composed_config", composed)
    assert planned("hierarchy.period=6") == ("goals/director", ["hierarchy=director", "hierarchy.period=6"])
    assert planned("hierarchy=director") == ("goals/director", ["hierarchy=director"])


@pytest.mark.parametrize(
    ("steps", "every", "apart", "measured"),
    [
        ([2000, 4000, 6000], 2000, 16, [2000, 4000, 6000]),
        ([2000, 2560, 4000, 6000], 2000, 16, [2000, 4000, 6000]),
        ([0, 16, 608], 600, 16, [608]),
        ([2004, 3996, 4008, 5004], 2000, 12, [2004, 4008, 5004]),
    ],
)
def test_checkpoints_that_an_interruption_left_are_not_measured(steps: list[int], every: int, apart: int, measured: list[int]):
    assert planner.scheduled(steps, every, apart) == measured


def test_the_interval_of_a_paired_difference_is_newcombes():
    """Of responses before and after a therapy (Cavo et al. 2012), 59 and 80 alike, 6 and 16 not, the R package contingencytables
    of Fagerland, Lydersen and Laake makes -0.0621 (-0.1186 to -0.0046).

    Two worked by hand. With 10 of 20 each and all four kinds alike, phi is 0 and Wilson's half-widths 0.2007: sqrt(2) of them.
    With 6 gained and 2 lost of 20, 8 and 4 alike: 0.7 (0.4810-0.8545) and 0.5 (0.2993-0.7007); 8 * 4 - 6 * 2 = 20, less 10, by
    sqrt(14 * 6 * 10 * 10) is phi = 0.1091; the ends are sqrt(0.219^2 + 0.2007^2 - 2 * 0.1091 * 0.219 * 0.2007) = 0.2804 below
    0.2 and sqrt(0.2007^2 + 0.1545^2 - 2 * 0.1091 * 0.2007 * 0.1545) = 0.2395 above it.
    """
    assert paired_difference(59, 6, 16, 80) == pytest.approx((-0.0621, -0.1186, -0.0046), abs=1e-4)
    assert paired_difference(5, 5, 5, 5) == pytest.approx((0, -0.2838, 0.2838), abs=1e-4)
    assert paired_difference(8, 6, 2, 4) == pytest.approx((0.2, -0.0804, 0.4395), abs=1e-4)


def test_a_paired_difference_turns_with_its_sides_and_holds_at_the_ends():
    value, low, high = paired_difference(8, 6, 2, 4)
    assert paired_difference(8, 2, 6, 4) == pytest.approx((-value, -high, -low))
    assert paired_difference(0, 20, 0, 0)[::2] == (1.0, 1.0), "all gained"
    value, low, high = paired_difference(20, 0, 0, 0)
    assert value == 0 and low == pytest.approx(-high) and high == pytest.approx(1 - wilson(1.0, 20)[0])


def test_seeds_are_pooled_at_equal_env_steps_and_compared_layout_by_layout():
    result = planner.summarise(Options(), [record(1, steps=(2000, 4000)), record(2, steps=(4000,)), record(3, error="it broke")])
    assert [(row["env_steps"], row["seeds"]) for row in result["pooled"]] == [(2000, [1]), (4000, [1, 2])]
    row = result["pooled"][1]
    assert (row["variant"], row["task"], list(row["candidates"])) == ("actions/flat", "DoorKey-6x6", ["0", "8", "32"])
    alone, eight, most = row["candidates"].values()
    assert (alone["successes"], alone["episodes"], alone["success"], alone["more"]) == (40, 200, 0.2, None)
    assert (alone["low"], alone["high"]) == wilson(0.2, 200)
    assert (eight["more"]["gained"], eight["more"]["lost"]) == (20, 10) and eight["more"]["value"] == pytest.approx(0.05)
    assert (most["more"]["gained"], most["more"]["lost"]) == (80, 0)
    assert tuple(most["more"].values())[:3] == paired_difference(40, 80, 0, 80)
    assert result["costs"]["actions/flat"]["0"] == {"milliseconds": 5.25, "milliseconds_of_16": 21.0}, "medians: 5.25, 5.25, 6.25"
    assert [run["error"] for run in result["runs"]] == [None, None, "it broke"]
    assert result["runs"][0]["checkpoints"][0]["candidates"]["0"]["length"] == 90.4
    json.dumps(result, allow_nan=False)


def test_no_figure_of_the_tables_is_cut_at_80_columns():
    records = [record(1, steps=(4000, 1_000_000)), record(12), record(2, error="it broke [at once]"),
               record(3, variant="goals/director")]  # fmt: skip
    text = rendered(planner.summarise(Options(), records))
    assert "…" not in text and max(len(line.rstrip()) for line in text.splitlines()) <= 80
    lines = [" ".join(line.replace("│", " ").split()) for line in text.splitlines()]
    for line in (
        "actions/flat: held-out success on DoorKey-6x6 (95 % interval)",
        "1 4,000 0.20 (0.13-0.29) 0.25 (0.18-0.34) 0.60 (0.50-0.69)",
        "1,000,000 0.20 (0.13-0.29) 0.25 (0.18-0.34) 0.60 (0.50-0.69)",
        "12 4,000 0.20 (0.13-0.29) 0.25 (0.18-0.34) 0.60 (0.50-0.69)",
        "actions/flat: all seeds together",
        "4,000 200 0 0.20 (0.15-0.26)",
        "actions/flat: milliseconds a decision",
        "goals/director: milliseconds a decision",
        "32 1,235.5 4,942.0",
        "actions/flat seed 2 failed: it broke [at once]",
    ):
        assert any(line in shown for shown in lines), line
    (more,) = {shown for shown in lines if shown.startswith("4,000 200 32")}
    value, low, high = paired_difference(40, 80, 0, 80)
    assert more.endswith(f"{value:+.2f} ({low:+.2f} to {high:+.2f})")


def test_figures_break_into_lines_where_there_is_even_less_room():
    assert "…" not in rendered(planner.summarise(Options(), [record(1)]), 50)


def test_nothing_is_shown_of_runs_that_all_failed_but_why():
    assert rendered(planner.summarise(Options(), [record(2, error="it broke")])).strip() == "actions/flat seed 2 failed: it broke"
