"""What the report says of a manager and its worker: a table, and their curves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.report import write_report
from agent.report.data import load_run
from agent.report.goals import goal_rows
from tests.agent.test_report import Page, write_run


def write_goals(folder: Path, by: str | None = "explorer", config: str = "") -> Path:
    """A run of a director: `easy` was measured in every way, `hard` was never evaluated."""
    write_run(folder)
    summary = json.loads((folder / "summary.json").read_text())
    zeroed = {"success": 1.0, "lost": 0.0} | ({"by": by} if by else {})
    summary["tasks"]["easy"]["goals"] = {"shuffled": {"success": 0.39, "lost": 0.61}, "zeroed": zeroed}
    summary["goals"] = {"easy": {"reached": 81 / 263, "heard": 0.5, "pairs": 100, "perplexity": 3.0, "segments": 263}}
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "config.yaml").write_text(config)
    return folder


def test_a_table_tells_whether_the_worker_listens(tmp_path: Path):
    text = Page(write_report(write_goals(tmp_path))).rows()
    assert "Does the worker listen?" in text
    assert "easy 1.00 0.39 (-61 %) 1.00 (+0 %) 0.31 (0.26 to 0.37) 0.50 (0.40 to 0.60) 263" in text
    assert [row["task"] for row in goal_rows(load_run(tmp_path))] == ["easy"], "nothing was measured of the other"
    assert "Without goals: by the explorer alone, a policy that knows no goals, not by the worker." in text
    assert "planner" not in text


def test_a_task_that_was_evaluated_under_other_goals_alone_has_dashes_for_the_rest(tmp_path: Path):
    summary = json.loads((write_goals(tmp_path) / "summary.json").read_text())
    summary["goals"] = {}
    summary["tasks"]["easy"]["success"] = 0.0
    summary["tasks"]["easy"]["goals"] = {"shuffled": {"success": 0.25, "lost": None}}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    text = Page(write_report(tmp_path)).rows()
    assert "easy 0.00 0.25 – – – –" in text and "Wilson" not in text and "Without goals:" not in text


@pytest.mark.parametrize(("by", "config", "said"), [
    ("worker", "hierarchy: {worker: {free: 0.5}}", "Without goals: the worker is given none."),
    (None, "hierarchy: {worker: {free: 0.5}}", "Without goals: by the explorer alone"),
    (None, "hierarchy: {worker: {free: 0.0}}", "Without goals: the worker is given none."),
    ("explorer", "hierarchy: {planner: actions}", "Both without the planner, which success under its goals has."),
])  # fmt: skip
def test_who_acts_without_goals_is_told(tmp_path: Path, by: str | None, config: str, said: str):
    assert said in Page(write_report(write_goals(tmp_path, by, config))).rows()


def test_a_run_without_goals_has_no_such_table(tmp_path: Path):
    assert "Does the worker listen?" not in Page(write_report(write_run(tmp_path))).rows()


def test_curves_of_the_explorer_and_of_goals_that_came_in_replay_are_shown(tmp_path: Path):
    write_run(tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"env_steps": 500, "explorer/imagined_return": 0.25, "given/reached": 0.75}\n')
    page = Page(write_report(tmp_path))
    assert "Explorer imagined_return" in page.rows() and "Goals that came in replay reached" in page.rows()
    alts = [image["alt"] or "" for image in page.images]
    assert any(alt.startswith("given/reached over env steps: from 0.75") for alt in alts)
