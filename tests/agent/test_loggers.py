"""Where metrics go, and what happens to them after a kill or a failure."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from agent.jobs import result_tables
from agent.loggers import LoggerConfig, MetricLogger, wandb_id
from agent.metrics_file import MetricsFile, cut_metrics, read_metrics
from envs.errors import UserError

QUIET = LoggerConfig(console=False, wandb="off")


def lines(folder: Path) -> list[str]:
    return (folder / "metrics.jsonl").read_text().splitlines()


def test_a_log_step_is_one_json_object_whose_first_key_is_env_steps(tmp_path: Path):
    logger = MetricLogger(QUIET, tmp_path)
    logger.log(500, {"model/total": 1.5, "train/success/a": 0.25})
    logger.close()
    assert lines(tmp_path) == ['{"env_steps": 500, "model/total": 1.5, "train/success/a": 0.25}']


def test_a_log_step_is_on_disk_before_the_next(tmp_path: Path):
    logger = MetricLogger(QUIET, tmp_path)
    for step in (1, 2, 3):
        logger.log(step, {"x": 0.0})
        assert len(lines(tmp_path)) == step
    logger.close()


def test_what_json_cannot_hold_is_null_and_left_out_when_read(tmp_path: Path):
    logger = MetricLogger(QUIET, tmp_path)
    logger.log(1, {"a": float("nan"), "b": float("inf"), "c": 2})
    logger.close()
    assert json.loads(lines(tmp_path)[0]) == {"env_steps": 1, "a": None, "b": None, "c": 2.0}
    assert read_metrics(tmp_path) == [{"env_steps": 1, "c": 2.0}]


def test_a_line_torn_by_a_kill_is_passed_over_and_cut_on_resume(tmp_path: Path):
    (tmp_path / "metrics.jsonl").write_text('{"env_steps": 10, "x": 1.0}\n{"env_steps": 20, "x": 2.0}\n{"env_steps": 30, "x"')
    assert [row["env_steps"] for row in read_metrics(tmp_path)] == [10, 20]
    with MetricsFile(tmp_path, resumed_env_steps=20) as file:
        file.log(30, {"x": 3.0})
    assert lines(tmp_path) == ['{"env_steps": 10, "x": 1.0}', '{"env_steps": 20, "x": 2.0}', '{"env_steps": 30, "x": 3.0}']


def test_resuming_cuts_what_will_be_played_again(tmp_path: Path):
    with MetricsFile(tmp_path) as file:
        for step in (10, 20, 30, 40):
            file.log(step, {"x": float(step)})
    assert cut_metrics(tmp_path, 25) == 2
    assert [row["env_steps"] for row in read_metrics(tmp_path)] == [10, 20]
    assert cut_metrics(tmp_path, 25) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_new_run_does_not_write_into_the_metrics_of_another(tmp_path: Path):
    (tmp_path / "metrics.jsonl").write_text('{"env_steps": 10}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl belongs to another run: .*resume="):
        MetricLogger(QUIET, tmp_path)
    assert lines(tmp_path) == ['{"env_steps": 10}']


def test_the_console_shows_the_metrics_that_were_asked_for(tmp_path: Path):
    said: list[str] = []
    config = LoggerConfig(console_keys=["train/return/*", "model/total"], wandb="off")
    logger = MetricLogger(config, tmp_path, write=said.append)
    logger.log(12000, {"model/total": 1.23456, "model/prior": 9.0, "train/return/a": 0.5})
    logger.log(12500, {"model/prior": 9.0})
    logger.close()
    assert said == ["12,000 steps | train/return/a 0.5 | model/total 1.23"]


def test_a_wandb_mode_that_does_not_exist_is_refused_by_name(tmp_path: Path):
    with pytest.raises(UserError, match=r"logger\.wandb='onlin' is none of off, offline, online"):
        MetricLogger(LoggerConfig(wandb="onlin"), tmp_path)


def test_yaml_reads_off_as_false_and_it_still_means_off():
    assert LoggerConfig(wandb="False").wandb_mode() == "off"


class BreakingSink:
    """Fails at its second log step, as a lost connection does."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def log(self, env_steps: int, values: object) -> None:
        if self.seen:
            raise ConnectionError("no route")
        self.seen.append(env_steps)


def test_a_logger_that_fails_is_said_once_and_left_out_and_the_run_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    logger = MetricLogger(QUIET, tmp_path)
    sink = BreakingSink()
    logger._sinks.append(sink)  # type: ignore[arg-type]
    with caplog.at_level(logging.WARNING):
        for step in (1, 2, 3, 4):
            logger.log(step, {"x": 0.0})
    logger.close()
    assert sink.seen == [1]
    assert len(lines(tmp_path)) == 4
    assert [record.getMessage() for record in caplog.records] == ["BreakingSink failed and is left out from here on: no route"]


def test_tensorboard_gets_the_same_numbers_at_the_same_steps(tmp_path: Path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = MetricLogger(LoggerConfig(console=False, wandb="off", tensorboard=True), tmp_path)
    logger.log(100, {"model/total": 2.0})
    logger.log(200, {"model/total": 1.0})
    logger.table(200, "tables/evaluation", [{"task": "a", "success": 0.5, "reached": None}])
    logger.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    (text,) = events.Tensors("tables/evaluation/text_summary")[0].tensor_proto.string_val
    assert text.decode().splitlines() == ["| task | success | reached |", "| --- | --- | --- |", "| a | 0.5 |  |"]
    assert [(event.step, event.value) for event in events.Scalars("model/total")] == [(100, 2.0), (200, 1.0)]


class FakeRun:
    """What W&B's run was told."""

    def __init__(self) -> None:
        self.rows: list[dict] = []
        self.axes: dict[str, str | None] = {}
        self.summary: dict = {}
        self.finished = False

    def define_metric(self, name: str, step_metric: str | None = None, hidden: bool | None = None) -> None:
        self.axes[name] = step_metric

    def log(self, row: dict) -> None:
        self.rows.append(row)

    def finish(self) -> None:
        self.finished = True


def test_wandb_gets_env_steps_as_the_axis_of_every_metric_and_keeps_its_run_when_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import wandb

    runs: list[FakeRun] = []
    calls: list[dict] = []

    def init(**kwargs) -> FakeRun:
        calls.append(kwargs)
        runs.append(FakeRun())
        return runs[-1]

    monkeypatch.setattr(wandb, "init", init)
    config = LoggerConfig(console=False, wandb="online", project="p", group="g", tags=["t"])
    for resumed in (None, 100):
        logger = MetricLogger(config, tmp_path, {"seed": 3}, resumed_env_steps=resumed)
        logger.log(100 if resumed is None else 200, {"x": 1.0})
        logger.summary({"env_steps": 200})
        logger.close()
    assert runs[0].axes == {"env_steps": None, "*": "env_steps"}
    assert runs[0].rows == [{"env_steps": 100, "x": 1.0}]
    assert runs[1].summary == {"summary": {"env_steps": 200}}
    assert all(run.finished for run in runs)
    first, second = calls
    assert (first["mode"], first["project"], first["group"], first["tags"]) == ("online", "p", "g", ["t"])
    assert (first["config"], first["name"], first["resume"]) == ({"seed": 3}, tmp_path.name, None)
    assert (second["id"], second["resume"]) == (first["id"], "allow")


def fake_wandb(monkeypatch: pytest.MonkeyPatch) -> list[FakeRun]:
    """The runs that are begun from here on, none of them real."""
    import wandb

    runs: list[FakeRun] = []

    def init(**kwargs) -> FakeRun:
        runs.append(FakeRun())
        return runs[-1]

    monkeypatch.setattr(wandb, "init", init)
    return runs


def logged_again(folder: Path, resumed: int | None, steps: list[int]) -> None:
    """A run that is killed after these log steps."""
    logger = MetricLogger(LoggerConfig(console=False), folder, resumed_env_steps=resumed)
    for step in steps:
        logger.log(step, {"x": float(step)})


def test_wandb_is_not_told_twice_what_a_killed_run_plays_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    runs = fake_wandb(monkeypatch)
    logged_again(tmp_path, None, [100, 200, 300])  # its only checkpoint is at 100
    logged_again(tmp_path, 100, [200])  # killed again before it gets anywhere
    logged_again(tmp_path, 100, [200, 300, 400])
    assert [[row["env_steps"] for row in run.rows] for run in runs] == [[100, 200, 300], [], [400]]
    assert [row["env_steps"] for row in read_metrics(tmp_path)] == [100, 200, 300, 400], "the record has all of them"


def test_wandb_is_told_of_an_evaluation_still_owed_at_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    runs = fake_wandb(monkeypatch)
    logged_again(tmp_path, None, [100, 200])
    logged_again(tmp_path, 200, [200, 300])  # stopped while it was evaluated at 200
    assert [row["env_steps"] for row in runs[1].rows] == [200, 300]


def test_a_run_without_its_id_in_wandb_begins_anew_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    runs = fake_wandb(monkeypatch)
    logged_again(tmp_path, None, [100, 200])
    (tmp_path / "wandb" / "run_id").unlink()
    logged_again(tmp_path, 100, [200])
    assert [row["env_steps"] for row in runs[1].rows] == [200]


@pytest.mark.parametrize("text", ["", "a'] or Metric('ID') != ['", "../x", "x" * 65])
def test_an_id_that_wandb_gives_nobody_is_none(text: str, tmp_path: Path):
    assert wandb_id(tmp_path) is None
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb" / "run_id").write_text(text)
    assert wandb_id(tmp_path) is None


def test_wandb_offline_leaves_a_run_in_the_run_folder_and_touches_no_network(tmp_path: Path):
    logger = MetricLogger(LoggerConfig(console=False, wandb="offline"), tmp_path, {"seed": 1})
    logger.log(10, {"x": 1.0})
    logger.table(10, "tables/evaluation", [{"task": "a", "success": 0.5, "info": {"x": 1}}, {"task": "b", "success": None}])
    logger.close()
    assert len(list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))) == 1
    (table,) = (tmp_path / "wandb").glob("offline-run-*/files/media/table/tables/evaluation_*.table.json")
    assert json.loads(table.read_text()) == {"columns": ["task", "success"], "data": [["a", 0.5], ["b", None]]}
    assert (wandb_id(tmp_path) or "?") in table.parts[-6]


def test_the_tables_of_a_run_have_a_row_a_task_of_its_last_evaluation_and_of_its_training():
    summary = {
        "tasks": {"easy": {"success": 1.0, "episodes": 20}, "harder": {"success": 0.0, "episodes": 20}},
        "training": {"easy": {"success": 0.9, "episodes": 7}},
        "steps_to_threshold": {"easy": 150},
    }
    assert result_tables(summary) == {
        "tables/evaluation": [
            {"task": "easy", "success": 1.0, "episodes": 20},
            {"task": "harder", "success": 0.0, "episodes": 20},
        ],
        "tables/training": [{"task": "easy", "success": 0.9, "episodes": 7, "steps_to_threshold": 150}],
    }
    assert "tables/evaluation" not in result_tables(summary | {"tasks": {}}), "a run that was stopped"


def test_wandb_that_cannot_start_stops_an_online_run_with_a_way_out_and_not_an_offline_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    import wandb

    def init(**kwargs) -> None:
        raise RuntimeError("no key")

    monkeypatch.setattr(wandb, "init", init)
    with pytest.raises(UserError, match=r"logger\.wandb=online cannot start \(no key\): .*wandb login"):
        MetricLogger(LoggerConfig(console=False, wandb="online"), tmp_path / "online")
    with caplog.at_level(logging.WARNING):
        MetricLogger(LoggerConfig(console=False, wandb="offline"), tmp_path / "offline").close()
    assert "W&B cannot start and is left out: no key" in caplog.text
