"""A comparison as a W&B report: what stands in it, which runs its curves are of, and what becomes of it without a network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.compare import wandb_report
from agent.compare.comparison import Comparison, compare
from agent.compare.runs import find_folders, load_runs
from agent.compare.wandb_report import grouping, sections_of, write_wandb_report
from agent.config import CompareConfig
from agent.loggers import LoggerConfig, wandb_id
from curriculum.imagined_success import TALLIES
from tests.agent.compare_data import FAST, TASKS, write_run, write_sweep

MINE = LoggerConfig(project="mine", entity="me")


def compared(folder: Path) -> Comparison:
    return compare(load_runs(find_folders([folder])[0])[0], CompareConfig(resamples=200), np.random.default_rng(0))


def logged(folder: Path, name: str) -> Path:
    """The folder of a run that was logged to W&B as `name`."""
    (folder / "wandb").mkdir()
    (folder / "wandb" / "run_id").write_text(name)
    return folder


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """`fast` and `uniform`, four seeds each, all but one of them logged to W&B."""
    sweep = write_sweep(tmp_path_factory.mktemp("four") / "sweep", seeds=4)
    for i, folder in enumerate(sorted(sweep.iterdir())[:-1]):
        logged(folder, f"run{i}")
    return compared(sweep)


@pytest.fixture
def pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """The figures are in the run `pictures`: starting W&B takes seconds."""
    monkeypatch.setattr(wandb_report, "log_figures", lambda *args: "pictures")


def spec_of(comparison: Comparison, folder: Path, config: LoggerConfig = MINE) -> tuple[dict[str, Any], str]:
    """The spec that is written, and what is said of it."""
    said = write_wandb_report(comparison, config, folder)
    return json.loads((folder / "wandb_report.json").read_text()), said


def grids_of(spec: dict[str, Any], runs: str) -> list[dict[str, Any]]:
    """The panel grids over a set of runs."""
    grids = [block["metadata"] for block in spec["spec"]["blocks"] if block["type"] == "panel-grid"]
    return [grid for grid in grids if grid["runSets"][0]["name"] == runs]


def panels_of(grid: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel["config"] for panel in grid["panelBankSectionConfig"]["panels"]]


def filtered(grid: dict[str, Any]) -> tuple[Any, Any, Any]:
    (only,) = grid["runSets"][0]["filters"]["filters"]
    return only["key"], only["op"], only["value"]


@pytest.mark.usefixtures("pictures")
def test_its_curves_are_of_the_runs_compared_alone_over_env_steps(comparison: Comparison, tmp_path: Path):
    spec, said = spec_of(comparison, tmp_path)
    assert str(tmp_path / "wandb_report.json") in said and "logger=online saves it" in said
    assert spec["project"] == {"name": "mine", "entityName": "me"}
    played, learned, tables = grids_of(spec, "runs")
    for grid in (played, learned, tables):
        assert filtered(grid) == ({"section": "run", "name": "name"}, "IN", [f"run{i}" for i in range(7)])
        assert grid["runSets"][0]["grouping"] == [{"section": "config", "name": "curriculum.value.name"}]
    assert [panel["metrics"] for panel in panels_of(learned)] == [[f"eval/success/{task}"] for task in TASKS]
    assert {panel["xAxis"] for panel in panels_of(played) + panels_of(learned)} == {"env_steps"}
    assert {(panel["groupAgg"], panel["groupArea"], panel["limit"]) for panel in panels_of(learned)} == {("mean", "minmax", 2)}
    assert all(name in json.dumps(tables) for name in ("tables/evaluation", "tables/training"))
    assert "the 7 of 8 runs that were logged to it, in the project mine" in json.dumps(spec)


@pytest.mark.usefixtures("pictures")
def test_the_figures_of_the_page_are_media_of_one_run_in_it(comparison: Comparison, tmp_path: Path):
    spec, _ = spec_of(comparison, tmp_path)
    grids = grids_of(spec, "comparison")
    assert {str(filtered(grid)) for grid in grids} == {str(({"section": "run", "name": "name"}, "IN", ["pictures"]))}
    assert [[(panel["chartTitle"], *panel["mediaKeys"]) for panel in panels_of(grid)] for grid in grids] == [
        [("Tasks mastered", "curves/0"), ("Success", "curves/1"), ("Reached the threshold on hard", "curves/2")],
        [("Probability of improvement", "pairs/0")],
        [("fast", "played/0"), ("uniform", "played/1")],
        [("fast", "learned/0"), ("uniform", "learned/1")],
    ]


@pytest.mark.usefixtures("pictures")
def test_it_holds_every_computed_figure_as_a_table(comparison: Comparison, tmp_path: Path):
    spec, _ = spec_of(comparison, tmp_path)
    blocks = spec["spec"]["blocks"]
    text = "\n".join(block["content"] for block in blocks if block["type"] == "markdown-block").splitlines()
    ranges = "0.50 (0.50 to 0.50) | 1.00 (1.00 to 1.00) | 1.00 (1.00 to 1.00) | 1.00 (1.00 to 1.00) | 1.00 (1.00 to 1.00)"
    assert f"| fast | 4 | {ranges} | 0.00 (0.00 to 0.00) | 300 | 4 |" in text
    assert "| fast | 0.00 (0.00 to 0.00) | 0.33 (0.33 to 0.33) | 0.67 (0.67 to 0.67) | 1.00 (1.00 to 1.00) |" in text
    assert "| fast | uniform | 1.00 (1.00 to 1.00) | 0.029 |" in text
    assert "| uniform | hard | 0.25 | 0.25 | 0.25 | 0.25 | 0.25 |" in text, "how likely it was to be played"
    assert "| fast | harder | 0.00 | 0.00 | 0.50 | 1.00 |" in text, "success on it"
    assert "| fast | 400 | 50 | 1 min 0 s | 5.0 s | 7 | 7 |" in text, "what it cost"
    assert "fast is better than uniform" in json.dumps(blocks)


def test_calibration_is_said_beside_its_baseline(tmp_path: Path):
    for seed in (1, 2):
        folder = write_run(tmp_path / f"{seed}", "imagined_success", seed, FAST)
        # Of 10 episodes foretold 0.9 each, 8 were successes: (8 x 0.01 + 2 x 0.81) / 10 = 0.17, and 0.8 x 0.2 = 0.16.
        tally = dict(zip(TALLIES, (10, 9.0, 8, 1.7), strict=True))
        row = {"env_steps": 100} | {f"curriculum/reliability/0.9/{name}": value for name, value in tally.items()}
        with (folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
    foretold = {section.title: section for section in sections_of(compared(tmp_path))}["Did imagination foretell it?"]
    assert foretold.table.startswith(r"imagined\_success: ") and "Brier score 0.170, baseline 0.160" in foretold.table
    assert len(foretold.figures) == 1


def test_variants_of_one_curriculum_are_kept_apart_as_their_labels_do(tmp_path: Path):
    for revisit in (0.0, 0.2):
        for seed in (1, 2):
            write_run(tmp_path / f"{revisit},{seed}", "sequential", seed, revisit=revisit)
    write_run(tmp_path / "uniform", "uniform", revisit=0.2)
    runs = compared(tmp_path).runs
    assert {run.curriculum for run in runs} == {"sequential (revisit=0.0)", "sequential (revisit=0.2)", "uniform"}
    assert grouping(runs) == ["curriculum.name", "curriculum.revisit"]


def test_another_learner_is_kept_apart_from_ours_of_the_same_curriculum(tmp_path: Path):
    write_run(tmp_path / "ours", "sequential")
    write_run(tmp_path / "peer", "sequential", learner="PPO", revisit=0.5)
    assert grouping(compared(tmp_path).runs) == ["learner", "curriculum.name"]


@pytest.mark.usefixtures("pictures")
def test_runs_that_w_and_b_does_not_know_have_no_curves_and_never_those_of_others(tmp_path: Path):
    spec, _ = spec_of(compared(write_sweep(tmp_path / "sweep")), tmp_path)
    assert grids_of(spec, "runs") == [] and "None of these runs was logged to W&B" in json.dumps(spec)


def test_offline_its_figures_wait_in_a_run_that_can_be_uploaded(comparison: Comparison, tmp_path: Path):
    spec, _ = spec_of(comparison, tmp_path)
    ((_, _, shown),) = {str(filtered(grid)): filtered(grid) for grid in grids_of(spec, "comparison")}.values()
    assert shown == [wandb_id(tmp_path)]
    (run,) = (tmp_path / "wandb").glob(f"offline-run-*-{shown[0]}")
    pages = sorted((run / "files" / "media" / "html").rglob("*.html"))
    assert len(pages) == 8 and all("data:image/svg+xml;base64" in page.read_text() for page in pages)
    assert any('alt="Line chart of tasks mastered over env steps' in page.read_text() for page in pages)


def test_a_report_that_cannot_be_saved_is_kept_as_a_file_with_the_reason(
    comparison: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import wandb

    def api() -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(wandb, "Api", api)
    spec, said = spec_of(comparison, tmp_path, LoggerConfig(wandb="online"))
    assert said == f"W&B report: its spec is {tmp_path / 'wandb_report.json'}, as W&B failed (no route)"
    assert grids_of(spec, "comparison") == [] and len(grids_of(spec, "runs")) == 3


def test_where_the_package_is_missing_the_report_is_skipped_with_a_sentence(
    comparison: Comparison, tmp_path: Path, monkeypatch: Any
):
    monkeypatch.setitem(__import__("sys").modules, "wandb_workspaces.reports.v2", None)
    said = write_wandb_report(comparison, LoggerConfig(), tmp_path)
    assert "pip install -e '.[reports]'" in said and list(tmp_path.iterdir()) == []
