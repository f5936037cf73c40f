"""`env.report`: what an environment's infos say at an episode's end, in the log and in evaluation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.evaluation import TaskResult, evaluate
from agent.results import evaluation_summary
from agent.trainer import Trainer
from envs import make_envs, make_task_space
from envs.errors import UserError
from envs.infos import achievement_score, lookup, reported
from tests.agent.tiny import LINE, play, tiny_config

INFO: dict[str, Any] = {
    "a": {"b": 2, "c": {"d": True}, "word": "x"},
    "a.e": np.array([3.5]),
    "map": np.zeros((2, 2)),
    "word": "x",
}


def test_an_entry_is_found_by_its_name_or_by_its_parts():
    assert lookup(INFO, "a.b") == 2 and lookup(INFO, "a.c.d") is True and lookup(INFO, "a.e") == 3.5
    for missing in ("b", "a.c.x", "word.x"):
        with pytest.raises(KeyError):
            lookup(INFO, missing)


def test_an_entry_that_holds_several_numbers_gives_them_all():
    assert reported(INFO, ["a", "a.e"]) == {"a.b": 2.0, "a.c.d": 1.0, "a.e": 3.5}
    assert reported(INFO, []) == {}


def test_what_some_episode_had_may_be_missing_from_another():
    known: set[str] = set()
    assert [reported(info, ["n"], known) for info in ({"n": 1}, {}, {"n": 3})] == [{"n": 1.0}, {}, {"n": 3.0}]
    with pytest.raises(UserError, match="has no number n"):
        reported({}, ["n"], set())


@pytest.mark.parametrize("key", ["score", "word", "map"])
def test_an_entry_without_a_number_is_refused_by_name(key: str):
    with pytest.raises(UserError, match=rf"env\.report: an episode's last info has no number {key}; it holds a, a\.e, map, word"):
        reported(INFO, [key])


def test_a_mean_is_over_the_episodes_that_had_the_entry():
    result = TaskResult([True, False], [1.0, 2.0], [3, 4], infos=[{"x": 1.0}, {"x": 2.0, "y": 5.0}])
    assert result.means() == {"success": 0.5, "return": 1.5, "length": 3.5, "info": {"x": 1.5, "y": 5.0}}
    assert "info" not in TaskResult([True], [1.0], [3]).means()


def test_the_score_of_achievements_is_the_geometric_mean_of_their_success_rates():
    assert achievement_score([0.0] * 22) == pytest.approx(0)
    assert achievement_score([1.0] * 22) == pytest.approx(100)
    assert achievement_score([0.03, 0.0]) == pytest.approx(4**0.5 - 1)


def test_an_achievement_is_unlocked_in_an_episode_that_did_it_once_or_more_often():
    infos = [{"done.cow": 3.0, "done.iron": 0.0, "doner": 9.0}, {"done.cow": 1.0, "done.iron": 1.0, "doner": 9.0}, {}, {}]
    result = TaskResult([False] * 4, [0.0] * 4, [1] * 4, infos=infos)
    assert result.means("done")["score"] == pytest.approx((51 * 26) ** 0.5 - 1), "success rates of 50 % and 25 %"
    assert "score" not in result.means() and "score" not in result.means("nothing")


def test_achievements_that_are_not_reported_cannot_be_scored():
    config = tiny_config(LINE | {"report": ["steps"], "score": "places"})
    with pytest.raises(UserError, match=r"env\.score=places is none of env\.report=\['steps'\]: add it there"):
        make_envs(config.env, make_task_space(config.env))


def test_the_score_stands_in_the_summary_and_the_table_beside_that_of_random_actions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    config = tiny_config(LINE | {"report": ["steps"], "score": "steps"})  # every episode takes some steps: unlocked
    config = replace(config, eval=replace(config.eval, random=True))
    row = evaluation_summary(Trainer(config, tmp_path).agent, config)["Line-v0"]
    scores = [row["score"], row["score_sample"], row["score_greedy"], row["random"]["score"]]
    assert scores == [pytest.approx(100)] * 4
    shown = capsys.readouterr().out
    assert shown.count("100.00 %") == 2 and "Line-v0, when episodes end" in shown


def test_means_over_episodes_are_logged_and_evaluated(tmp_path: Path):
    config = tiny_config(LINE | {"report": ["steps"]})
    trainer = Trainer(config, tmp_path)
    play(trainer, 64)
    assert 3 <= trainer.metrics()["train/info/steps/Line-v0"] <= 5
    (result,) = evaluate(trainer.agent, config.env, make_task_space(config.env), 4).values()
    assert result.means()["info"] == {"steps": np.mean(result.length)}


def test_random_actions_are_reported_beside_the_agents_own(tmp_path: Path):
    config = tiny_config(LINE | {"report": ["steps"]})
    config = replace(config, eval=replace(config.eval, episodes=8, random=True))
    agent = Trainer(config, tmp_path).agent
    row = evaluation_summary(agent, config)["Line-v0"]
    assert (
        set(row["random"]) == {"success", "return", "length", "info"}
        and row["random"]["info"]["steps"] == row["random"]["length"]
    )
    plain = evaluation_summary(agent, replace(config, eval=replace(config.eval, random=False)))["Line-v0"]
    assert "random" not in plain and plain == {name: value for name, value in row.items() if name != "random"}
