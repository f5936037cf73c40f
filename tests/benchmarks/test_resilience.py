"""What the resilience benchmark concludes from what a run said and left on disk."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from benchmarks import resilience_process
from benchmarks.resilience import BENCHMARK, cut_files, kills_hold, refusals_hold, stops_hold, summarise
from benchmarks.resilience_process import half_written, resumed_at, said_steps, sentences, started, tree_hash
from benchmarks.training import RunError, StoppedError


def test_where_a_run_goes_on_and_how_far_it_got_is_read_from_its_own_words():
    words = "INFO: going on from step_000000256, at 256 env steps\n272 steps | loss 1\n1,024 steps | loss 2\n1,0"
    assert resumed_at(words) == 256 and said_steps(words) == 1024
    assert resumed_at("INFO: x was stopped before its first checkpoint: it starts from the beginning") == 0
    assert resumed_at("What the agent observes") is None and said_steps("steps | 16") == 0


@pytest.mark.parametrize("change", ["a byte", "a name", "a new file", "an empty folder", "a moved break between files"])
def test_any_change_below_a_folder_changes_its_hash(tmp_path: Path, change: str):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a").write_bytes(b"12")
    (tmp_path / "sub" / "b").write_bytes(b"34")
    before = tree_hash(tmp_path)
    assert tree_hash(tmp_path) == before
    if change == "a byte":
        (tmp_path / "sub" / "a").write_bytes(b"13")
    elif change == "a name":
        (tmp_path / "sub" / "a").rename(tmp_path / "sub" / "c")
    elif change == "a new file":
        (tmp_path / "c").touch()
    elif change == "an empty folder":
        (tmp_path / "c").mkdir()
    else:
        (tmp_path / "sub" / "a").write_bytes(b"123")
        (tmp_path / "sub" / "b").write_bytes(b"4")
    assert tree_hash(tmp_path) != before


def test_a_refusal_is_what_follows_the_word_error_and_names_no_path(tmp_path: Path):
    words = f"observation table\nerror: the checkpoint {tmp_path}/run/checkpoints is damaged; give another\n"
    assert sentences(words, tmp_path / "run") == ["the checkpoint RUN/checkpoints is damaged; give another"]
    assert sentences("error: one\ntwo\n", tmp_path) == ["one", "two"], "two lines are no sentence"
    assert sentences("Traceback (most recent call last)", tmp_path) == []


def test_files_under_way_are_told_from_finished_ones_and_cutting_shortens(tmp_path: Path):
    for name in ("checkpoints/.step_000000256.tmp/x", "checkpoints/step_000000128/x", "replay/.shard_000002.h5.tmp"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(bytes(100))
    assert half_written(tmp_path, "checkpoint") == [".step_000000256.tmp"]
    assert half_written(tmp_path, "shard") == [".shard_000002.h5.tmp"]
    cut_files(tmp_path / "replay" / ".shard_000002.h5.tmp", tmp_path / "checkpoints/step_000000128/x")
    assert (tmp_path / "replay" / ".shard_000002.h5.tmp").stat().st_size == 90


def kills(**changes: Any) -> dict[str, Any]:
    kill = {"exit_code": -signal.SIGKILL, "unreadable": [], "lost": 256} | changes
    whole = {"every_step_logged_once": True, "equals_the_run_that_was_never_killed": True, "checkpoint_every": 256}
    return {"kills": [kill], "most_lost": kill["lost"], "exit_code": 0} | whole


def test_a_kill_may_cost_a_checkpoint_interval_and_no_file():
    assert kills_hold(kills())
    assert not kills_hold(kills(lost=272)) and not kills_hold(kills(unreadable=["shard"])) and not kills_hold(kills(exit_code=1))
    for broken in ("every_step_logged_once", "equals_the_run_that_was_never_killed"):
        assert not kills_hold(kills() | {broken: False})
    assert not kills_hold(kills() | {"exit_code": 2})


def stop(**changes: Any) -> dict[str, Any]:
    counts = {"env_steps": 512, "checkpoint": 512, "resumed_at": 512}
    row = {"exit_code": 0, "in_time": True, "report": True, "traceback": False, "unreadable": []} | counts | changes
    return {"stops": [row], "exit_code": 0, "evaluated": True}


def test_ctrl_c_costs_no_step():
    assert stops_hold(stop())
    wrong: list[dict[str, Any]] = [
        {"checkpoint": 496},
        {"resumed_at": 496},
        {"report": False},
        {"in_time": False},
        {"exit_code": 130},
        {"traceback": True},
    ]
    assert not any(stops_hold(stop(**changes)) for changes in wrong)
    assert not stops_hold(stop() | {"evaluated": False})


def test_a_refusal_is_one_sentence_exit_code_two_and_nothing_changed():
    case = {"exit_code": 2, "one_sentence": True, "unchanged": True}
    assert refusals_hold({"cases": {"a": case}})
    for change in ({"exit_code": 1}, {"one_sentence": False}, {"unchanged": False}):
        assert not refusals_hold({"cases": {"a": case, "b": case | change}})


def test_a_run_that_failed_is_not_reached():
    record = {"variant": "kill", "seed": 1, "error": "it ended too early", "figures": None, "reached": None}
    summary = summarise(BENCHMARK.parse([]), [record])
    assert summary["reached"] is False and summary["runs"]["kill seed 1"]["error"] == "it ended too early"
    assert summary["steps_lost"] == []


@pytest.fixture
def sleeper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run.py that says a word and then waits to be ended."""
    (tmp_path / "run.py").write_text("import signal\nprint('16 steps | x')\nsignal.pause()\n")
    monkeypatch.setattr(resilience_process, "ROOT", tmp_path)
    return tmp_path


def test_a_process_is_waited_for_killed_and_never_left_behind(sleeper: Path):
    with started([], sleeper / "log", 1, threading.Event()) as run:
        run.until(lambda: said_steps(run.words()) == 16)
        run.send(signal.SIGKILL)
        assert run.ended() == -signal.SIGKILL
        with pytest.raises(RunError, match="it ended too early, with exit code -9: 16 steps"):
            run.until(lambda: False)
    stop = threading.Event()
    with pytest.raises(StoppedError), started([], sleeper / "log", 1, stop) as run:
        stop.set()
        run.until(lambda: False)
    assert run.process.poll() == -signal.SIGKILL
