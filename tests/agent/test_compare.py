"""`job=compare`: from run folders to figures, sentences, a page and tables."""

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
from agent.config import CompareConfig, JobConfig, RunConfig
from agent.jobs import run_job
from agent.loggers import LoggerConfig
from envs.errors import UserError
from tests.agent.compare_data import FAST, SLOW, STEPS, TASKS, write_run, write_sweep
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
    turned = Verdict(pair.turned(), pair.p, pair.p)
    assert (turned.pair.improvement.value, turned.pair.left, turned.apart) == (0, "uniform", True)
    few = compared(write_sweep(tmp_path / "sweep"))
    few_runs, sentence = findings_of(few)
    assert sentence.startswith("fast cannot be told apart from uniform with these runs"), "though the interval is one point"
    assert few_runs.startswith("Too few runs to tell from uniform, whatever they show: fast (0.333). In brackets is")


def with_runs(folder: Path, **counts: int) -> Comparison:
    """So many runs of each curriculum, all but `uniform` better at every evaluation."""
    for name, count in counts.items():
        for seed in range(count):
            write_run(folder / f"{name}{seed}", name, seed, SLOW if name == "uniform" else FAST)
    return compared(folder, replace(SETTINGS, resamples=100))


def test_three_runs_can_be_told_apart_from_five(tmp_path: Path):
    comparison = with_runs(tmp_path, uniform=5, a=3)
    (verdict,) = comparison.verdicts
    assert (verdict.p, verdict.smallest) == approx((1 / 56, 1 / 56)) and verdict.apart and not comparison.notes
    (sentence,) = findings_of(comparison)
    assert sentence.startswith("a is better than uniform")


def test_which_curricula_so_few_runs_cannot_tell_apart_is_worked_out_for_each(tmp_path: Path):
    """Five comparisons of 4 against 4: 5 x 2/70 by Holm. Of two, 5 runs against 5 and 1 against 5: 2 x 2/252, then 1/6."""
    five = with_runs(tmp_path / "five", uniform=4, a=4, b=4, c=4, d=4, e=4)
    assert [verdict.smallest for verdict in five.verdicts] == approx([10 / 70] * 5) and not any(v.apart for v in five.verdicts)
    assert "whatever they show: a (0.143), b (0.143), c (0.143), d (0.143), e (0.143). In brackets" in findings_of(five)[0]
    two = with_runs(tmp_path / "two", uniform=5, a=5, b=1)
    assert {verdict.pair.left: verdict.smallest for verdict in two.verdicts} == approx({"a": 4 / 252, "b": 1 / 6})
    assert "whatever they show: b (0.167). Enough to tell: a (0.0159). In brackets" in findings_of(two)[0]
    assert "b (0.167)" in render(two)


def test_pairs_too_many_for_a_figure_are_a_table(tmp_path: Path):
    comparison = with_runs(tmp_path / "runs", **{f"c{i}": 1 for i in range(10)}, uniform=1)
    page = Page(write_page(comparison, tmp_path))
    text = page.rows()
    assert "55 pairs, too many for a figure" in text and not any("Chart of the probability" in str(i["alt"]) for i in page.images)
    assert f"c0 {'0.50 0.50 to 0.50 ' * 9}1.00 1.00 to 1.00" in text, "over itself nothing, over uniform always"
    assert f"uniform {'0.00 0.00 to 0.00 ' * 10}" in text, "pairs are shown from both sides"


def test_what_a_curriculum_itself_costs_is_shown_where_it_was_measured(comparison: Comparison, tmp_path: Path):
    assert "curriculum's own" not in render(comparison)
    for name in ("robust", "uniform"):
        folder = write_run(tmp_path / "runs" / name, name)
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for i, row in enumerate(rows if name == "robust" else []):
            row |= {"time/curriculum": 12.0 * i, "curriculum/judged_steps": 70.0 * i}
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    measured = compared(tmp_path / "runs")
    text = Page(write_page(measured, tmp_path)).rows()
    assert "env steps of which judged, not learned from updates training time of which the curriculum's own" in text
    assert "robust 400 210 50 1 min 0 s 36.0 s 5.0 s 7 7" in text and "uniform 400 – 50 1 min 0 s – 5.0 s 7 7" in text
    rows = list(csv.DictReader(write_tables(measured, tmp_path)[0].open()))
    assert [(row["curriculum_seconds"], row["judged_steps"]) for row in rows] == [("36", "210"), ("", "")]


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
