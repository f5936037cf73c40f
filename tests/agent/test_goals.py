"""Manager and worker in a whole run: trained, evaluated under goals of others, drawn, stopped and resumed."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from agent.build import build_agent
from agent.config import EvalConfig, RunConfig
from agent.dream.goals import draw_goals, in_words, worded
from agent.evaluation import check_evaluation
from agent.goals import Listener, goal_figures, goal_space, goal_summary, pursue, similarities
from agent.jobs import run_job
from agent.loading import trained_config
from agent.report.data import load_run
from agent.report.page import render
from agent.results import evaluation_summary, swaps
from agent.trainer import Trainer
from envs import make_task_space
from envs.errors import UserError
from envs.make import infer_spec
from envs.spaces.specs import ActionSpec, EnvSpec, ModalitySpec
from hierarchy.base import Hierarchy, PolicyState
from hierarchy.config import GoalConfig, HierarchyConfig, ManagerConfig, WorkerConfig
from hierarchy.goal import NO_GOAL
from hierarchy.goals import GoalSpace
from tests.agent.test_resume import everything, stop_and_resume
from tests.agent.tiny import DOORKEY, LINE, play, same_tensors, tiny_config
from world_model.latents import LatentSpec

GOALS = GoalConfig(groups=3, classes=4, hidden=16, symbol_width=4, cell_width=4)


def director(env: dict[str, Any], **keys: Any) -> RunConfig:
    found = tiny_config(env, **keys)
    manager, worker = ManagerConfig(hindsight=1.0, novelty=0.1), WorkerConfig(free=0.5, imitation=0.5)
    hierarchy = replace(found.hierarchy, name="director", horizon=4, period=2, goals=GOALS, manager=manager, worker=worker)
    return replace(found, hierarchy=hierarchy, eval=replace(found.eval, goal_episodes=2))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run on DoorKey-5x5: trained for 96 steps, evaluated, drawn."""
    folder = tmp_path_factory.mktemp("director") / "run"
    run_job(director(DOORKEY | {"tasks": ["DoorKey-5x5"]}), folder)
    return folder


def test_a_run_logs_both_levels_and_its_summary_tells_what_goals_are_worth(run: Path):
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    wanted = {"goal/heard", "goal/reached", "goal/kl", "manager/perplexity", "manager/return_share/novelty"}
    wanted |= {"worker/advantage_share/goal", "policy/imagined_return", "policy/entropy"}
    assert wanted <= last.keys()
    summary = json.loads((run / "summary.json").read_text())
    row = summary["tasks"]["DoorKey-5x5"]
    assert row["goals"].keys() == {"shuffled", "zeroed"}
    for means in row["goals"].values():
        assert {"success", "return", "length", "lost"} <= means.keys()
        assert (means["lost"] is None) == (row["success"] == 0)
    assert row["goals"]["zeroed"]["by"] == "explorer" and "by" not in row["goals"]["shuffled"]
    goals = summary["goals"]["DoorKey-5x5"]
    assert 0 <= goals["heard"] <= 1 and goals["pairs"] > 0 and 1 <= goals["perplexity"] <= 4 and goals["segments"] > 2


def test_the_goal_strip_is_drawn_and_in_the_report_beside_a_table(run: Path):
    assert (run / "media" / "goals_DoorKey-5x5.png").stat().st_size > 1000
    page, goals = render(load_run(run)), json.loads((run / "summary.json").read_text())["goals"]["DoorKey-5x5"]
    assert "What the manager asked for" in page
    assert "Does the worker listen?" in page and f"<td>{goals['segments']}</td>" in page and "by the explorer alone" in page
    assert "Told in words: direction." in json.loads((run / "media" / "goals_DoorKey-5x5.json").read_text())["alt"]
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
    goals = goal_space(agent.hierarchy)
    assert goals is not None and goal_figures(goals, [pursued], [])["segments"] == len(pursued.start)
    near = similarities(goals, pursued)
    assert near.shape == (len(pursued.start), 3) and (near[:, :2] <= near[:, 2:] + 1e-5).all(), "of what the goal allows"


def written(monkeypatch: pytest.MonkeyPatch, config: RunConfig, path: Path) -> tuple[list[str], list[int]]:
    """A goal strip: what stands in and below its cells, column by column, and in which of them there is a picture."""
    from matplotlib.figure import Figure

    agent = untrained(config)
    cells: list[str] = []
    pictures: list[int] = []

    def record(figure: Figure, *args: Any, **keys: Any) -> None:
        save(figure, *args, **keys)
        for axes in figure.axes:
            cells.append("\n".join([*(text.get_text() for text in axes.texts), axes.get_xlabel()]))
            pictures.append(len(axes.images))

    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", record)
    assert draw_goals(agent, pursue(agent, config, make_task_space(config.env).hardest.id, seed=1), path)
    return cells, pictures


def test_what_is_no_picture_stands_in_words_below_the_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = director(DOORKEY | {"tasks": ["DoorKey-5x5"], "kwargs": {"max_steps": 4}})
    cells, pictures = written(monkeypatch, config, tmp_path / "goals.png")
    assert len(cells) == 6 and all(pictures), "start, goal and what was reached, of two goals"
    assert all(cell.startswith("direction ") for cell in cells)
    agent = untrained(config)
    obs = pursue(agent, config, "DoorKey-5x5", seed=1).episode.obs["direction"]
    assert cells[0] == f"direction {obs[0][0]}" and cells[5].split("\n")[0] == f"direction {obs[4][0]}"


def test_where_to_be_stands_in_words_below_what_was_seen_when_a_goal_was_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = director(DOORKEY | {"tasks": ["DoorKey-5x5"], "kwargs": {"max_steps": 4}})
    config = replace(config, hierarchy=replace(config.hierarchy, goals=replace(GOALS, place=2.0)))
    cells, _ = written(monkeypatch, config, tmp_path / "goals.png")
    for start in (cells[0], cells[3]):  # the goals of a code lie at most a period away
        assert re.fullmatch(r"direction \d\n(here|([12] (left|right|up|down)(, )?){1,2})(, turn (left|right|round))?", start)
    assert not any(word in cell for cell in cells[1:3] + cells[4:] for word in ("left", "right", "up", "down", "here"))
    assert "cyan arrow" in json.loads((tmp_path / "goals.json").read_text())["caption"]


def test_where_nothing_is_a_picture_the_strip_is_of_words_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    cells, pictures = written(monkeypatch, director(LINE), tmp_path / "goals.png")
    assert not any(pictures) and all(cell.startswith("observation ") for cell in cells)
    assert cells[0].split() == ["observation", "0", "0"] and " of " in cells[-1], "the first state is known, likeness is told"
    assert (tmp_path / "goals.png").stat().st_size > 1000


def test_words_are_short_and_tell_what_is_absent():
    leaves = (
        ModalitySpec("pose", "vector", (7,), "float32"),
        ModalitySpec("order", "text", (8,), "uint8", static=True),
        ModalitySpec("say", "text", (60,), "uint8", optional=True),
        ModalitySpec("say?", "categorical", (1,), "int64", (2,)),
        ModalitySpec("cells", "grid", (2, 2, 1), "uint8"),
    )
    told = worded(EnvSpec(leaves, ActionSpec("discrete", 2)))
    assert [leaf.key for leaf in told] == ["pose", "say"], "what stays the same is no part of goals"
    text = np.zeros(60, np.uint8)
    text[:4] = list(b"a $b")
    obs: dict[str, Any] = {"pose": np.array([0.125, -0.3, 1, 0, 0, 0, 9], np.float32), "say": text, "say?": np.array([1])}
    assert in_words(told, obs) == ["pose 0.125 -0.3 1 0 0", "0 …", 'say "a \\$b"']
    assert in_words(told[1:], obs | {"say?": np.array([0])}) == ["say absent"]
    many = in_words(told[:1] * 8, obs)
    assert len(many) == 10 and many[-1] == "(7 lines more)"
    assert "".join(in_words(told[1:], obs | {"say": np.full(60, ord("x"), np.uint8)})) == f'say "{"x" * 39}…"'


class Wanderer(Hierarchy):
    """A third hierarchy: every other step a goal that is drawn, none after `given` of them, and actions that know of neither."""

    given = 2

    def __init__(self, latents: LatentSpec, width: int, actions: ActionSpec, config: HierarchyConfig) -> None:
        super().__init__()
        self.goals, self.actions = GoalSpace(latents, width, config.goals, config.period), actions
        self.nothing = nn.Parameter(torch.zeros(1))

    def initial_state(self, batch: int) -> PolicyState:
        goal, anchor = (torch.zeros(batch, n, dtype=torch.int64) for n in (self.goals.config.groups, self.goals.places))
        return {"goal": goal, "anchor": anchor, "step": torch.zeros(batch, dtype=torch.int64)}

    def decides(self, state: PolicyState, first: Tensor) -> Tensor:
        return first | (state["step"] % 2 == 0)

    def plan(self, z: Tensor, h: Tensor, state: PolicyState, first: Tensor, greedy: bool = False) -> PolicyState:
        step = state["step"] * ~first
        drawn = self.goals.prior(len(z)).masked_fill((step >= 2 * self.given)[:, None], NO_GOAL)
        goal = torch.where(self.decides(state, first)[:, None], drawn, state["goal"])
        return state | {"goal": goal, "step": step + 1}

    def follow(self, z: Tensor, h: Tensor, state: PolicyState, greedy: bool = False) -> tuple[Tensor, Tensor]:
        return torch.zeros(len(z), dtype=torch.int64), torch.zeros(len(z))


def third(env: dict[str, Any], given: int) -> tuple[RunConfig, Any]:
    config = director(env)
    config = replace(config, hierarchy=replace(config.hierarchy, name=f"{__name__}.Wanderer"))
    agent = untrained(config)
    agent.hierarchy.given = given
    return config, agent


def test_a_third_hierarchy_has_figures_and_a_strip_of_its_goals(tmp_path: Path):
    config, agent = third(LINE, given=2)
    figures, pursued = goal_summary(agent, config)
    ((task, found),) = pursued.items()
    assert found.start.tolist() == [0, 2] and found.end.tolist() == [2, 4], "the last step of the five was without a goal"
    assert figures[task]["segments"] == 4 and 0 <= figures[task]["heard"] <= 1
    assert draw_goals(agent, found, tmp_path / "goals.png")
    assert evaluation_summary(agent, config)[task]["goals"]["zeroed"]["by"] == "worker"
    assert goal_space(untrained(tiny_config(LINE)).hierarchy) is None, "the flat one has no goals"


def test_episodes_without_any_goal_have_no_figures():
    config, agent = third(LINE, given=0)
    assert goal_summary(agent, config) == ({}, {})


def test_a_listener_hears_of_the_last_episode_alone():
    _, agent = third(LINE, given=9)
    listener = Listener(agent.hierarchy)
    state, model = listener.initial_state(1), agent.model
    z, h = torch.zeros(1, model.latents.groups, dtype=torch.int64), torch.zeros(1, model.view_width)
    for first in (True, False, False, True, False):
        state = listener.plan(z, h, state, torch.tensor([first]))
    assert [step for step, _, _ in listener.chosen] == [0]


def test_goals_are_swapped_by_default_where_there_are_any():
    flat, boss = (untrained(config).hierarchy for config in (tiny_config(LINE), director(LINE)))
    assert swaps(EvalConfig(), boss) == ["shuffled", "zeroed"] and swaps(EvalConfig(), flat) == []
    for asked in ([], ["zeroed"]):
        assert swaps(EvalConfig(goals=asked), boss) == asked
    check_evaluation(EvalConfig(), "flat")


@pytest.mark.parametrize(("goals", "read"), [(None, None), ([], []), (["zeroed"], ["zeroed"]), ("not saved", None)])
def test_configs_of_checkpoints_from_before_and_after_are_read(goals: Any, read: Any):
    saved = {"episodes": 7} if goals == "not saved" else {"episodes": 7, "goals": goals}
    config = trained_config({"config": {"eval": saved}}, Path("run"), ("eval",))
    assert config.eval.goals == read and config.eval.episodes == 7


def test_goals_that_could_not_be_swapped_are_told(caplog: pytest.LogCaptureFixture):
    for episodes, told in ((1, True), (4, False)):
        config = director(LINE)
        config = replace(config, eval=replace(config.eval, episodes=episodes, goals=["shuffled"]))
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            evaluation_summary(untrained(config), config)
        assert any("goals stayed their episode's own" in line for line in caplog.messages) == told


@pytest.mark.parametrize(("free", "said"), [(0.5, "no goals: explorer alone"), (0.0, "no goals")])
def test_the_console_tells_who_acts_without_goals(monkeypatch: pytest.MonkeyPatch, free: float, said: str):
    shown: list[Any] = []
    monkeypatch.setattr("agent.results.console.print", shown.append)
    config = director(LINE)
    config = replace(config, hierarchy=replace(config.hierarchy, worker=WorkerConfig(free=free)))
    evaluation_summary(untrained(config), config)
    assert [cell.strip() for cell in shown[-1].columns[0].cells][1:] == ["goals of others", said]


def test_goals_are_refused_where_there_are_none():
    with pytest.raises(UserError, match=r"eval\.goals=sold is unknown; choose of shuffled, zeroed"):
        check_evaluation(EvalConfig(goals=["sold"]))
    with pytest.raises(UserError, match=r"eval\.goals=\['zeroed'\] needs goals, which hierarchy=flat has not"):
        check_evaluation(EvalConfig(goals=["zeroed"]), "flat")
    config = tiny_config(LINE)
    config = replace(config, eval=replace(config.eval, goals=["zeroed"]))
    with pytest.raises(UserError, match=r"eval\.goals=\['zeroed'\] needs an agent with goals"):
        evaluation_summary(untrained(config), config)
