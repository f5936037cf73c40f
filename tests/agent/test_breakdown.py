"""What a run keeps whose environment breaks down after training."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent import evaluation, jobs
from envs.errors import UserError
from tests.agent.tiny import LINE, QUIET, tiny_config


def test_a_run_whose_environment_breaks_down_in_the_evaluation_keeps_its_summary_and_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def broken(*given: Any) -> Any:
        raise UserError("the environment broke down")

    monkeypatch.setattr(evaluation, "_play", broken)
    config = replace(tiny_config(LINE, train={"env_steps": 32}), logger=replace(QUIET, report=True))
    with pytest.raises(UserError, match="broke down"):
        jobs.run_job(config, tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["tasks"] == {} and summary["env_steps"] == 32 and not jobs.is_finished(tmp_path)
    assert (tmp_path / "report.html").is_file()
    assert (
        "Training ended at 32 env steps, but its evaluation broke down, as said below; "
        f"to evaluate it again: python run.py resume={tmp_path}\n" in capsys.readouterr().out
    )
