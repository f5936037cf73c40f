"""Evaluation during training: on a schedule, on the same held-out layouts each time, without a trace in the training."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from agent import jobs
from agent.config import RunConfig
from agent.evaluation import evaluation_env, evaluation_tasks
from agent.metrics_file import read_metrics
from agent.periodic import PeriodicEvaluation
from agent.trainer import Trainer
from envs.errors import UserError
from tests.agent.tiny import DOORKEY, LINE, same_tensors, tiny_config

SMALL = DOORKEY | {"tasks": ["DoorKey-5x5"], "kwargs": {"max_steps": 6}}
ALSO = ["DoorKey-6x6"]
BOX = dict(id="Strata-Obstacles-v0", box={"density": [0.0, 0.3], "size": [5, 12]})


def evaluating(env: dict[str, Any] = SMALL, **keys: Any) -> RunConfig:
    config = tiny_config(env, train=dict(env_steps=64, checkpoint_every=64))
    return replace(config, eval=replace(config.eval, **({"every": 32, "every_episodes": 2, "calibration": 0} | keys)))


def test_a_run_is_the_same_with_and_without_evaluation_on_the_way_and_logs_what_came_of_it(tmp_path: Path):
    plain, evaluated = tmp_path / "plain", tmp_path / "evaluated"
    jobs.run_job(evaluating(every=0), plain)
    jobs.run_job(evaluating(also=ALSO), evaluated)
    weights = [load_file(folder / "checkpoints" / "step_000000064" / "model.safetensors") for folder in (plain, evaluated)]
    assert same_tensors(*weights)
    rows = read_metrics(evaluated)
    assert [row["env_steps"] for row in rows] == [row["env_steps"] for row in read_metrics(plain)] == [16, 32, 48, 64]
    at = [row["env_steps"] for row in rows if "eval/success/DoorKey-5x5" in row]
    assert at == [32, 64]
    for task in ("DoorKey-5x5", "DoorKey-6x6"):
        assert all(0 <= row[f"eval/success/{task}"] <= 1 <= row[f"eval/length/{task}"] <= 6 for row in rows[1::2])
    summary = json.loads((evaluated / "summary.json").read_text())
    assert list(summary["tasks"]) == ["DoorKey-5x5", "DoorKey-6x6"] and list(summary["training"]) == ["DoorKey-5x5"]
    assert summary["objective"] == summary["tasks"]["DoorKey-5x5"]["success"], "of the hardest task trained on"
    assert summary["evaluation_seconds"] == rows[-1]["eval/seconds"] > 0


def test_how_likely_each_task_is_to_be_played_stands_in_every_log_line(tmp_path: Path):
    jobs.run_job(evaluating(DOORKEY, every=0), tmp_path / "run")
    rows = read_metrics(tmp_path / "run")
    assert [(row["train/probability/DoorKey-5x5"], row["train/probability/DoorKey-6x6"]) for row in rows] == [(1.0, 0.0)] * 4


def test_one_that_is_stopped_is_due_still_and_made_up_for_when_the_run_goes_on(tmp_path: Path, monkeypatch: Any):
    folder, config = tmp_path / "run", evaluating()
    whole, calls = PeriodicEvaluation.__call__, []

    def interrupted(self: PeriodicEvaluation, agent: Any, env_steps: int, stopped: Any) -> dict[str, float]:
        calls.append(env_steps)
        trainer = stopped.__closure__[0].cell_contents
        trainer.stopping = True
        return whole(self, agent, env_steps, stopped)

    with monkeypatch.context() as patch:
        patch.setattr(PeriodicEvaluation, "__call__", interrupted)
        jobs.run_job(config, folder)
    assert calls == [32] and not jobs.is_finished(folder)
    jobs.run_job(replace(config, resume=str(folder)), folder)
    assert [row["env_steps"] for row in read_metrics(folder) if "eval/success/DoorKey-5x5" in row] == [32, 64]


def test_the_next_one_keeps_to_the_multiples_of_the_schedule(tmp_path: Path):
    trainer = Trainer(evaluating(every=50, every_episodes=1), tmp_path)
    try:
        evaluation = trainer.evaluation
        assert not evaluation.due(49) and evaluation.due(50)
        first = evaluation(trainer.agent, 64)
        assert evaluation.next == 100
        again = evaluation(trainer.agent, 163)
        assert evaluation.next == 200
        assert {k: v for k, v in first.items() if k != "eval/seconds"} == {k: v for k, v in again.items() if k != "eval/seconds"}
        other = PeriodicEvaluation(evaluating(every=30), trainer.envs.spec)
        other.load_state_dict(evaluation.state_dict(), 163)
        assert (other.next, other.seconds) == (180, evaluation.seconds), "a denser schedule counts from here"
        other.load_state_dict({"next": 150, "seconds": 1}, 163)
        assert other.due(163), "the one that was interrupted"
    finally:
        trainer.envs.close()


def test_the_tasks_are_those_trained_on_and_the_harder_ones_after_them():
    assert evaluation_tasks(evaluating(also=["DoorKey-8x8", "DoorKey-16x16"])).ids == (
        "DoorKey-5x5", "DoorKey-8x8", "DoorKey-16x16",
    )  # fmt: skip
    assert evaluation_tasks(evaluating()).ids == ("DoorKey-5x5",)
    assert evaluation_env(evaluating(num_envs=5)).num_envs == 5
    assert evaluation_env(evaluating()).num_envs == evaluating().env.num_envs
    boxed = evaluation_tasks(evaluating(BOX, also=["density0.35_size14"]))
    assert len(boxed) == 10 and boxed.hardest.params["numbers"] == {"density": 0.35, "size": 14.0}


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (evaluating(also=["DoorKey-5x5"]), "eval.also: DoorKey-5x5 is trained on already"),
        (evaluating(also=["DoorKey-7x7"]), "eval.also: DoorKey-7x7 is no task of doorkey"),
        (evaluating(LINE, also=["DoorKey-5x5"]), "needs a suite"),
        (evaluating(BOX, also=["density0.35"]), "eval.also: density0.35 is no task of env.box; name all of its numbers"),
        (evaluating(BOX, also=["density0.35_size140"]), r"eval.also: .*size is beyond what .* takes"),
        (evaluating(num_envs=0), "eval.num_envs=0 is too few"),
        (evaluating(also=["DoorKey-6x6", "DoorKey-6x6"]), "eval.also: DoorKey-6x6 is given twice"),
        (evaluating(BOX, also=["density0.35_size14", "density0.350_size14"]), "eval.also: density0.35_size14 is given twice"),
        (evaluating(BOX, also=["density0.050_size6.167"]), "eval.also: density0.05_size6.167 is trained on already"),
        (evaluating(every=-1), "eval.every=-1 is too few"),
        (evaluating(every_episodes=0), "eval.every_episodes=0 is too few"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_at_the_start(config: RunConfig, said: str, tmp_path: Path):
    with pytest.raises(UserError, match=said):
        Trainer(config, tmp_path)
