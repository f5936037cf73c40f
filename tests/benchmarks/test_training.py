"""Training runs as child processes."""

from __future__ import annotations

import json
import sys
import threading
import time

import pytest

from benchmarks import training
from benchmarks.training import RunError, StoppedError, composed_config, read_metrics, run_process, train_run
from envs.errors import UserError

# Stands in for run.py: writes what it was given.
FAKE_RUN = """
import json, os, pathlib, sys
folder = next(a.partition("=")[2].strip("'") for a in sys.argv if a.startswith("hydra.run.dir="))
folder = pathlib.Path(folder.replace("\\\\'", "'"))
folder.mkdir(parents=True)
(folder / "metrics.jsonl").write_text('{"env_steps": 10}\\n{"env_steps": 20}\\n{"env_st')
(folder / "summary.json").write_text(json.dumps({"given": sys.argv[1:-1], "threads": os.environ["OMP_NUM_THREADS"]}))
"""


@pytest.fixture
def fake_repository(tmp_path, monkeypatch):
    root = tmp_path / "it's a repository"
    root.mkdir()
    (root / "run.py").write_text(FAKE_RUN)
    monkeypatch.setattr(training, "ROOT", root)
    return root


def python(code, folder, **more):
    return run_process([sys.executable, "-c", code], folder, **more)


def test_a_training_run_gets_its_overrides_folder_and_threads(fake_repository, tmp_path):
    summary = train_run(["model=xs", "seed=3"], tmp_path / "it's a run", threads=3)
    assert summary == {"given": ["model=xs", "seed=3"], "threads": "3"}


def test_a_folder_that_holds_a_run_is_gone_on_with(fake_repository, tmp_path, monkeypatch):
    folder = tmp_path / "it's a run"
    folder.mkdir()
    (folder / "config.yaml").touch()
    monkeypatch.setattr(training, "run_process", lambda command, *rest: {"command": command})
    assert train_run(["seed=3"], folder) == {
        "command": [sys.executable, str(fake_repository / "run.py"), f"resume='{tmp_path}/it\\'s a run'"]
    }


def test_metrics_are_read_without_the_line_still_being_written(fake_repository, tmp_path):
    train_run([], tmp_path / "run")
    assert read_metrics(tmp_path / "run") == [{"env_steps": 10}, {"env_steps": 20}]
    assert read_metrics(tmp_path / "elsewhere") == []


def test_a_run_that_fails_is_told_by_its_last_words_without_paths(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "ROOT", tmp_path)
    monkeypatch.setattr(training, "scrub", lambda text: text.replace(str(tmp_path), "."))
    with pytest.raises(RunError, match=r"^exit code 3: no such file: \./data$"):
        python(f"import sys; print('no such file: {tmp_path}/data', file=sys.stderr); sys.exit(3)", tmp_path / "run")


def test_a_run_without_a_summary_has_failed(tmp_path):
    with pytest.raises(RunError, match=r"without a readable summary\.json: all is well$"):
        python("print('all is well')", tmp_path / "run")


def test_a_stopped_run_is_interrupted_as_by_ctrl_c_and_waited_for(tmp_path):
    code = f"""
import pathlib, signal, time
folder = pathlib.Path({str(tmp_path)!r})
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs start with it ignored
try:
    (folder / "started").touch()
    time.sleep(60)
except KeyboardInterrupt:
    (folder / "checkpoint").touch()
"""
    stop = threading.Event()

    def stop_when_started():
        while not (tmp_path / "started").exists():
            time.sleep(0.01)
        stop.set()

    threading.Thread(target=stop_when_started).start()
    with pytest.raises(StoppedError):
        python(code, tmp_path / "run", stop=stop)
    assert (tmp_path / "checkpoint").exists()


def test_the_newest_metrics_are_reported_while_a_run_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "_POLL_SECONDS", 0.01)
    folder = tmp_path / "run"
    folder.mkdir()
    code = f"""
import pathlib, time
folder = pathlib.Path({str(folder)!r})
(folder / "metrics.jsonl").write_text('{{"env_steps": 10}}\\n')
while not (folder / "told").exists(): time.sleep(0.01)
(folder / "summary.json").write_text("{{}}")
"""
    told = []

    def report(metrics):
        told.append(metrics)
        (folder / "told").touch()

    python(code, folder, report=report)
    assert told == [{"env_steps": 10}]


def test_the_composed_config_is_plain_data_without_the_seed():
    config = composed_config(["model=debug", "train.env_steps=123"])
    assert config["model"]["name"] == "debug"
    assert config["train"]["env_steps"] == 123
    assert "seed" not in config
    json.dumps(config)


def test_overrides_that_run_py_refuses_are_refused_in_its_own_words():
    with pytest.raises(UserError, match="no_such_key"):
        composed_config(["train.no_such_key=1"])
