"""`job=check`: what it reports of environments good and bad."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent import check, jobs
from agent.check import record_bytes
from agent.config import JobConfig, RunConfig
from envs.errors import UserError
from envs.spaces.specs import ActionSpec, EnvSpec, ModalitySpec
from tests.agent.tiny import CARTPOLE, Drift, tiny_config


def checked(env: dict[str, object], folder: Path, **keys: object) -> float:
    config: RunConfig = tiny_config(env, **keys)  # type: ignore[arg-type]
    config.job = JobConfig("check")
    return jobs.run_job(config, folder)


def bad(fault: str, **keys: object) -> dict[str, object]:
    return {"id": "tests.envs.bad:Bad-v0", "kwargs": {"fault": fault, **keys}, "holdout": False}


def test_a_good_environment_is_reported_and_leaves_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert checked(CARTPOLE, tmp_path) == 0.0
    lines = capsys.readouterr().out.splitlines()
    beginnings = ["Gymnasium's checker on CartPole-v1: passed", "Replay memory:", "Random play:", "Speed:",
                  "Training time:", "Verdict: it can be trained on."]  # fmt: skip
    found = [next((i for i, line in enumerate(lines) if line.startswith(start)), -1) for start in beginnings]
    assert -1 not in found and found == sorted(found), lines
    assert any("vector" in line for line in lines), "the table of modalities"
    assert list(tmp_path.iterdir()) == []


def test_a_rule_by_which_random_play_succeeds_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert checked(bad(""), tmp_path) == 1.0  # every episode ends with a reward
    assert "choose another env.success" in capsys.readouterr().out


def test_the_verdict_on_one_that_never_ends_names_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(Drift, "limit", 10**9)
    monkeypatch.setattr(check, "PLAY_SECONDS", 0.1)
    assert checked({"id": "tests.agent.tiny:Drift-v0", "holdout": False}, tmp_path) == 0.0
    said = "Verdict: it can be trained on, though no episode ended in the time it had: if none ever does, give env.max_episode_"
    assert said in capsys.readouterr().out


def test_one_that_breaks_down_at_times_can_be_trained_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    checked(bad("nan", odds=3), tmp_path, max_faults=10_000)
    out = capsys.readouterr().out
    assert "Faults: not_finite" in out and "though it breaks down at times" in out


def test_one_that_always_does_is_refused_in_a_sentence(tmp_path: Path):
    with pytest.raises(UserError, match=r"ZeroDivisionError in step: physics broke down.*env\.max_faults=10"):
        checked(bad("raise", odds=1), tmp_path)


def test_a_replay_that_the_machine_cannot_hold_is_refused(tmp_path: Path):
    config = tiny_config(CARTPOLE)
    config.job = JobConfig("check")
    config.replay.capacity = 10**14
    with pytest.raises(UserError, match=r"replay\.capacity=100000000000000"):
        jobs.run_job(config, tmp_path)


def test_the_bytes_of_a_step_are_those_of_its_arrays():
    spec = EnvSpec((ModalitySpec("image", "grid", (7, 7, 3), "uint8"),), ActionSpec("discrete", 7))
    assert record_bytes(spec) == 147 + 8 + 4 + 4 + 3 + 8 + 8  # action, log_prob, reward, three flags, task, queue
