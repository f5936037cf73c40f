"""`job=compare`: from run folders to figures, sentences, a page, tables and a W&B report."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pytest import approx

from agent.compare.comparison import Comparison, Verdict, compare
from agent.compare.figures import mean_probability
from agent.compare.page import findings_of, render, write_page
from agent.compare.runs import find_folders, load_runs
from agent.compare.tables import write_tables
from agent.compare.wandb_report import build_report, write_wandb_report
from agent.config import CompareConfig, JobConfig, RunConfig
from agent.jobs import run_job
from agent.loggers import LoggerConfig
from envs.errors import UserError
from tests.agent.compare_data import FAST, STEPS, TASKS, write_run, write_sweep
from tests.agent.test_report import Page

SETTINGS = CompareConfig(resamples=200)


def compared(folder: Path, settings: CompareConfig = SETTINGS) -> Comparison:
    return compare(load_runs(find_folders([folder])[0])[0], settings, np.random.default_rng(0))


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """`fast` and `uniform`, four seeds each: as few as can be told apart."""
    return compared(write_sweep(tmp_path_factory.mktemp("four") / "sweep", seeds=4))


def test_the_figures_are_those_worked_by_hand(comparison: Comparison):
    fast, uniform = comparison.arms
    assert [arm.name for arm in comparison.arms] == ["fast", "uniform"], "the best first"
    # Mastered at 100, 200, 300, 400 steps: fast 0, 1/3, 2/3, 1 and uniform 0, 0, 1/3, 0 of the three tasks.
    assert fast.mastered[0] == approx([0, 1 / 3, 2 / 3, 1]) and uniform.mastered[0] == approx([0, 0, 1 / 3, 0])
    assert fast.areas == approx([0.5] * 4) and uniform.areas == approx([1 / 9] * 4)
    figures = {name: {key: figure.value for key, figure in row.items()} for name, row in comparison.figures.items()}
    assert figures["fast"] == approx(dict(area=0.5, mastered=1, success=1, hardest=1, worst=1, forgotten=0))
    # uniform ends at 0.5, 0.5, 0: the middle half of four runs' twelve is 0, 0.5 x 5; it forgot 0.5 of easy.
    assert figures["uniform"] == approx(dict(area=1 / 9, mastered=0, success=5 / 12, hardest=0, worst=0, forgotten=1 / 6))
    assert fast.median_reached == 300 and uniform.median_reached is None


def test_all_runs_alike_leave_no_width_to_the_bands(comparison: Comparison):
    value, low, high = comparison.bands["fast"]["mastered"]
    assert value == approx([0, 1 / 3, 2 / 3, 1]) and low == approx(value) and high == approx(value)


def test_bands_hold_what_runs_drawn_whole_can_give(tmp_path: Path):
    write_run(tmp_path / "1", "fast", 1, FAST)
    write_run(tmp_path / "2", "fast", 2)
    comparison = compared(tmp_path)
    value, low, high = comparison.bands["fast"]["mastered"]
    assert value == approx([0, 1 / 6, 1 / 2, 1 / 2]) and low == approx([0, 0, 1 / 3, 0]) and high == approx([0, 1 / 3, 2 / 3, 1])


def test_a_pair_is_told_apart_by_four_runs_each_and_not_by_two(comparison: Comparison, tmp_path: Path):
    (pair,) = comparison.pairs
    assert (pair.left, pair.right, pair.improvement.value) == ("fast", "uniform", 1) and pair.p == approx(2 / 70)
    (sentence,) = findings_of(comparison)
    assert sentence.startswith("fast is better than uniform (probability of improvement 1.00")
    turned = Verdict(pair.turned(), pair.p)
    assert (turned.pair.improvement.value, turned.pair.left, turned.apart) == (0, "uniform", True)
    few = compared(write_sweep(tmp_path / "sweep"))
    (sentence,) = findings_of(few)
    assert sentence.startswith("fast cannot be told apart from uniform with these runs"), "though the interval is one point"
    assert any("only 2 runs: with fewer than 4 each" in note for note in few.notes)


def test_without_the_baseline_no_conclusion_is_drawn(tmp_path: Path):
    comparison = compared(write_sweep(tmp_path / "sweep"), replace(SETTINGS, baseline="random"))
    assert comparison.baseline is None and comparison.verdicts == [] and len(comparison.pairs) == 1
    assert "There is no run of random, the baseline" in render(comparison)


def test_what_is_unequal_is_said(tmp_path: Path):
    write_run(tmp_path / "a", "fast", train={"env_steps": 400})
    other = write_run(tmp_path / "b", "uniform", train={"env_steps": 500})
    summary = json.loads((other / "summary.json").read_text())
    (other / "summary.json").write_text(json.dumps(summary | {"env_steps": 500, "updates": 70}))
    notes = compared(tmp_path).notes
    assert "The runs differ in more than curriculum and seed: train.env_steps is 400 or 500." in notes
    assert "The runs had unequal numbers of env steps: from 400 to 500." in notes
    assert "The runs had unequal numbers of updates: from 50 to 70." in notes


def test_probabilities_are_means_over_runs_at_even_steps(comparison: Comparison):
    mean = mean_probability(comparison.arms[0], columns=4)
    assert mean is not None and mean.tolist() == [[0.75, 0.25]] * 4


def test_the_page_needs_nothing_else_and_every_figure_has_a_text_that_says_the_same(comparison: Comparison, tmp_path: Path):
    page = Page(write_page(comparison, tmp_path))
    assert all(address.startswith("data:") for address in page.addresses) and not {"script", "iframe"} & set(page.tags)
    alts = [image["alt"] or "" for image in page.images]
    assert len(alts) == 8, "mastered, success, reached, pairs, two of probabilities, two of success"
    assert "fast ends at 1.00 (1.00 to 1.00); uniform ends at 0.00 (0.00 to 0.00), after 400 env steps." in alts[0]
    assert "fast in 4 of 4 runs at 300, 300, 300, 300; uniform in 0 of 4 runs." in alts[2]
    assert "fast over uniform 1.00 (1.00 to 1.00)" in alts[3]
    assert "under fast: at first easy 0.75, hard 0.25; half-way easy 0.75" in alts[4]
    assert "under uniform: at 100 env steps easy 0.00, hard 0.00, harder 0.00; at 400 easy 0.50" in alts[7]
    assert "fast 4 0.50 0.50 to 0.50 1.00" in page.rows() and "300 4 of 4" in page.rows() and "> 400 0 of 4" in page.rows()
    assert "Never trained on: harder." in page.rows() and "1 min 0 s" in page.rows()


def test_names_from_elsewhere_are_text_and_nothing_else(tmp_path: Path):
    evil, odd = "<script>alert(1)</script>", "=1+1|$x"
    write_run(tmp_path / "runs" / "a", evil, 1, {evil: FAST["easy"], odd: FAST["hard"]})
    comparison = compared(tmp_path / "runs")
    page = Page(write_page(comparison, tmp_path))
    assert "script" not in page.tags and evil in page.text
    write_tables(comparison, tmp_path)
    cells = [cell for row in csv.reader((tmp_path / "curves.csv").open()) for cell in row]
    assert f"'{odd}" in cells and odd not in cells, "no formula for a spreadsheet"


def test_the_tables_hold_every_run_every_evaluation_and_every_pair(comparison: Comparison, tmp_path: Path):
    paths = write_tables(comparison, tmp_path)
    runs, curves, pairs = (list(csv.DictReader(path.open())) for path in paths)
    assert [path.name for path in paths] == ["runs.csv", "curves.csv", "pairs.csv"]
    assert len(runs) == 8 and len(curves) == 8 * len(STEPS) * len(TASKS) and len(pairs) == 1
    first = runs[0]
    assert (first["curriculum"], first["seed"], first["area"], first["steps_to_threshold"]) == ("fast", "1", "0.5", "300")
    assert runs[-1]["steps_to_threshold"] == "" and runs[-1]["success/easy"] == "0.5" and runs[-1]["episodes/hard"] == "7"
    assert curves[1] == dict(curriculum="fast", seed="1", env_steps="100", task="hard", success="0", probability="0.25")
    assert curves[2]["probability"] == "", "never trained on"


def asking(folder: Any, **logger: Any) -> RunConfig:
    config = RunConfig(job=JobConfig("compare"), logger=LoggerConfig(**({"wandb": "off"} | logger)))
    return replace(config, compare=replace(SETTINGS, runs=folder))


def test_the_job_writes_it_all_and_names_what_it_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    sweep = write_sweep(tmp_path / "sweep")
    (sweep / "curriculum=fast,seed=2" / "summary.json").unlink()
    before = sorted(sweep.rglob("*"))
    assert run_job(asking(str(sweep)), tmp_path / "out") == approx(0.5)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"comparison.html", "runs.csv", "curves.csv", "pairs.csv"}
    assert (
        "seed=2 is left out: it has no summary.json; the run is not finished"
        in (tmp_path / "out" / "comparison.html").read_text()
    )
    assert sorted(sweep.rglob("*")) == before, "run folders are only read"
    assert "W&B report: none, as logger.wandb=off" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (asking(None), "job=compare needs compare.runs="),
        (asking([]), "job=compare needs compare.runs="),
        (asking("nowhere"), "holds no finished run to compare: nowhere is not there"),
        (replace(asking("x"), compare=CompareConfig("x", threshold=0)), "compare.threshold=0"),
        (replace(asking("x"), compare=CompareConfig("x", confidence=1)), "compare.confidence=1"),
        (replace(asking("x"), compare=CompareConfig("x", resamples=1)), "compare.resamples=1"),
    ],
)
def test_what_cannot_be_compared_is_refused(config: RunConfig, said: str, tmp_path: Path):
    with pytest.raises(UserError, match=said):
        run_job(config, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_wandb_report_groups_runs_by_curriculum_over_env_steps(comparison: Comparison, tmp_path: Path):
    reports = pytest.importorskip("wandb_workspaces.reports.v2", reason="needs strata-rl[reports]")
    said = write_wandb_report(comparison, LoggerConfig(project="mine", entity="me"), tmp_path)
    spec = json.loads((tmp_path / "wandb_report.json").read_text())
    assert str(tmp_path / "wandb_report.json") in said and "logger=online saves it" in said
    assert spec["project"] == {"name": "mine", "entityName": "me"}
    text = json.dumps(spec)
    grids = [block for block in spec["spec"]["blocks"] if block["type"] == "panel-grid"]
    assert len(grids) == 3 and "fast is better than uniform" in text and "| fast | 4 | 0.50 (0.50 to 0.50)" in text
    assert grids[0]["metadata"]["runSets"][0]["grouping"] == [{"section": "config", "name": "curriculum.value.name"}]
    panels = [panel["config"] for panel in grids[0]["metadata"]["panelBankSectionConfig"]["panels"]]
    assert [panel["metrics"] for panel in panels] == [[f"eval/success/{task}"] for task in TASKS]
    assert {panel["xAxis"] for panel in panels} == {"env_steps"}
    assert build_report(reports, comparison, "mine", "me").entity == "me"


def test_where_the_package_is_missing_the_report_is_skipped_with_a_sentence(
    comparison: Comparison, tmp_path: Path, monkeypatch: Any
):
    monkeypatch.setitem(__import__("sys").modules, "wandb_workspaces.reports.v2", None)
    said = write_wandb_report(comparison, LoggerConfig(), tmp_path)
    assert "pip install 'strata-rl[reports]'" in said and list(tmp_path.iterdir()) == []
