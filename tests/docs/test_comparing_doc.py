"""docs/comparing.md: its commands, with a tiny budget; what is said there is what happens."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

import run
from agent.metrics_file import read_metrics
from tests.test_run import TINY

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "comparing.md").read_text(encoding="utf-8")
SCRIPTS = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
SWEEP, COMPARE = (shlex.split(line)[2:] for line in SCRIPTS[0].splitlines())
LESS = [
    "curriculum=uniform,target_only", "seed=1", "env.tasks=[DoorKey-5x5,DoorKey-6x6]", "eval.also=[DoorKey-8x8]",
    "train.update_every_first=8", "eval.every=32", "eval.every_episodes=1",
]  # fmt: skip


def tiny(arguments: list[str]) -> list[str]:
    """The same command with less to do; later arguments of the same key take the place of earlier ones."""
    less = {argument.partition("=")[0]: argument for argument in [*TINY, *LESS, "hydra.sweep.subdir=${curriculum.name}-${seed}"]}
    return [argument for argument in arguments if argument.partition("=")[0] not in less] + list(less.values())


def command(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
    run.main()


def test_a_sweep_goes_on_after_a_kill_and_its_runs_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any):
    monkeypatch.chdir(tmp_path)
    command(monkeypatch, tiny(SWEEP))
    sweep = tmp_path / "multirun" / "compare_curricula"
    done, killed = sweep / "uniform-1", sweep / "target_only-1"
    for folder in (done, killed):
        rows = read_metrics(folder)
        assert [row["env_steps"] for row in rows if "eval/success/DoorKey-8x8" in row] == [32, 64]
        assert sum(rows[-1][f"train/probability/DoorKey-{size}"] for size in ("5x5", "6x6")) == 1
    figures = [json.loads((folder / "summary.json").read_text()) for folder in (done, killed)]
    assert figures[0]["env_steps"] == figures[1]["env_steps"] == 64 and figures[0]["updates"] == figures[1]["updates"]

    (killed / "summary.json").unlink()  # as if it had been killed in its last evaluation
    capsys.readouterr()
    command(monkeypatch, tiny(SWEEP))
    assert f"{Path('multirun/compare_curricula/uniform-1')} is finished already: skipped" in capsys.readouterr().out
    again = json.loads((killed / "summary.json").read_text())
    assert again["tasks"] == figures[1]["tasks"] and read_metrics(killed)[-1]["env_steps"] == 64

    shutil.copytree(done, sweep / "broken").joinpath("summary.json").write_text("{")
    command(monkeypatch, [*COMPARE, "logger=none", "compare.resamples=100"])
    page = (tmp_path / "runs" / "comparison" / "comparison.html").read_text()
    assert "target_only cannot be told apart from uniform with these runs" in page
    assert "broken is left out: it cannot be read" in page and "DoorKey-8x8" in page
    assert "differ in more than" not in page and "unequal" not in page


def test_a_folder_of_runs_is_given_as_it_is_named():
    assert run.short_arguments(["runs=multirun/a=1,b=2", "seed=1"]) == ["compare.runs='multirun/a=1,b=2'", "seed=1"]
    assert run.short_arguments(["compare.runs=[a,b]", "runs='a'"]) == ["compare.runs=[a,b]", "compare.runs='a'"]
