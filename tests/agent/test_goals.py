"""Manager and worker in a whole run: trained, evaluated under goals of others, drawn, stopped and resumed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from agent.build import build_agent
from agent.config import EvalConfig, RunConfig
from agent.dream.goals import draw_goals
from agent.evaluation import check_evaluation
from agent.goals import goal_figures, pursue, similarities
from agent.jobs import run_job
from agent.report.data import load_run
from agent.report.page import render
from agent.results import evaluation_summary
from agent.trainer import Trainer
from envs import make_task_space
from envs.errors import UserError
from envs.make import infer_spec
from hierarchy.config import GoalConfig, ManagerConfig, WorkerConfig
from hierarchy.director import DirectorHierarchy
from tests.agent.test_resume import everything, stop_and_resume
from tests.agent.tiny import DOORKEY, LINE, play, same_tensors, tiny_config

GOALS = GoalConfig(groups=3, classes=4, hidden=16, symbol_width=4, cell_width=4)


def director(env: dict[str, Any], **keys: Any) -> RunConfig:
    found = tiny_config(env, **keys)
    manager, worker = ManagerConfig(hindsight=1.0), WorkerConfig(free=0.5, imitation=0.5)
    hierarchy = replace(found.hierarchy, name="director", horizon=4, period=2, goals=GOALS, manager=manager, worker=worker)
    return replace(found, hierarchy=hierarchy, eval=replace(found.eval, goal_episodes=2, goals=["shuffled", "zeroed"]))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run on DoorKey-5x5: trained for 96 steps, evaluated, drawn."""
    folder = tmp_path_factory.mktemp("director") / "run"
    run_job(director(DOORKEY | {"tasks": ["DoorKey-5x5"]}), folder)
    return folder


def test_a_run_logs_both_levels_and_its_summary_tells_what_goals_are_worth(run: Path):
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    wanted = {"goal/closer", "goal/reached", "goal/kl", "manager/perplexity", "manager/return_share/novelty"}
    wanted |= {"worker/advantage_share/goal", "policy/imagined_return", "policy/entropy"}
    assert wanted <= last.keys()
    summary = json.loads((run / "summary.json").read_text())
    row = summary["tasks"]["DoorKey-5x5"]
    assert row["goals"].keys() == {"shuffled", "zeroed"}
    for means in row["goals"].values():
        assert {"success", "return", "length", "lost"} <= means.keys()
        assert (means["lost"] is None) == (row["success"] == 0)
    goals = summary["goals"]["DoorKey-5x5"]
    assert 0 <= goals["closer"] <= 1 and 1 <= goals["perplexity"] <= 4 and goals["segments"] > 2


def test_the_goal_strip_is_drawn_and_in_the_report(run: Path):
    assert (run / "media" / "goals_DoorKey-5x5.png").stat().st_size > 1000
    assert "What the manager asked for" in render(load_run(run))
    assert "on a layout never trained on" in json.loads((run / "media" / "goals_DoorKey-5x5.json").read_text())["caption"]


def test_a_goal_strip_tells_of_no_layout_where_none_is_held_out(tmp_path: Path):
    config = director(DOORKEY, holdout=False)
    agent = untrained(config)
    assert draw_goals(agent, pursue(agent, config, "DoorKey-5x5", seed=1), tmp_path / "goals.png", config.env.holdout)
    assert "layout" not in json.loads((tmp_path / "goals.json").read_text())["caption"]


def test_a_checkpoint_is_evaluated_again_with_its_goals_swapped(run: Path, tmp_path: Path):
    config = director(DOORKEY | {"tasks": ["DoorKey-5x5"]})
    config = replace(config, job=replace(config.job, name="evaluate"), checkpoint=str(run))
    run_job(config, tmp_path)
    found = json.loads((tmp_path / "evaluation.json").read_text())
    assert found["tasks"]["DoorKey-5x5"]["goals"]["shuffled"]["length"] > 0 and found["goals"]["DoorKey-5x5"]["segments"] > 2


def test_a_run_that_was_stopped_and_resumed_is_the_run_that_never_stopped(tmp_path: Path):
    config = director(DOORKEY)
    whole = Trainer(config, tmp_path / "whole")
    play(whole, 80)
    resumed = stop_and_resume(config, tmp_path / "stopped", at=56)
    assert set(resumed.collector.state.policy) == {"goal", "anchor", "clock", "explore"}
    play(resumed, 80)
    assert same_tensors(everything(resumed), everything(whole))
    for trainer in (whole, resumed):
        trainer.envs.close()


def untrained(config: RunConfig) -> Any:
    torch.manual_seed(0)
    return build_agent(config, infer_spec(config.env, make_task_space(config.env)), torch.device("cpu"))[0]


def test_goals_of_a_real_episode_follow_each_other_and_the_last_reaches_to_its_end():
    config = director(LINE)
    agent = untrained(config)
    pursued = pursue(agent, config, make_task_space(config.env).hardest.id, seed=1)
    T = len(pursued.episode)
    assert pursued.start.tolist() == list(range(0, T, 2)) and pursued.end.tolist() == [*range(2, T, 2), T]
    assert pursued.code.shape == (len(pursued.start), 3) and len(pursued.z) == len(pursued.h) == T + 1
    assert isinstance(agent.hierarchy, DirectorHierarchy)
    assert goal_figures(agent.hierarchy, [pursued])["segments"] == len(pursued.start)
    near = similarities(agent.hierarchy, pursued)
    assert near.shape == (len(pursued.start), 3) and (near[:, :2] <= near[:, 2:] + 1e-5).all(), "of what the goal allows"


def test_where_nothing_can_be_drawn_there_is_no_strip(tmp_path: Path):
    config = director(LINE)
    agent = untrained(config)
    pursued = pursue(agent, config, make_task_space(config.env).hardest.id, seed=1)
    assert not draw_goals(agent, pursued, tmp_path / "goals.png") and not list(tmp_path.iterdir())


def test_goals_are_refused_where_there_are_none():
    with pytest.raises(UserError, match=r"eval\.goals=sold is unknown; choose of shuffled, zeroed"):
        check_evaluation(EvalConfig(goals=["sold"]))
    with pytest.raises(UserError, match=r"eval\.goals=\['zeroed'\] needs goals, which hierarchy=flat has not"):
        check_evaluation(EvalConfig(goals=["zeroed"]), "flat")
    config = tiny_config(LINE)
    config = replace(config, eval=replace(config.eval, goals=["zeroed"]))
    with pytest.raises(UserError, match=r"eval\.goals=zeroed needs an agent with goals"):
        evaluation_summary(untrained(config), config)
