"""Training runs as child processes: one a run, with a chosen number of threads, watched through the run folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from benchmarks.provenance import ROOT, scrub
from envs.errors import UserError

Metrics = dict[str, Any]
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")

_POLL_SECONDS = 0.5
_GRACE_SECONDS = 30.0  # an interrupted run writes its checkpoint and report first


class RunError(Exception):
    """A run ended without its result; the message is one sentence without paths of this machine."""


class StoppedError(Exception):
    """A run was stopped from outside before it was finished."""


def train_run(
    overrides: Sequence[str],
    folder: Path,
    threads: int = 1,
    report: Callable[[Metrics], None] | None = None,
    stop: threading.Event | None = None,
) -> dict[str, Any]:
    """Run `python run.py OVERRIDES hydra.run.dir=FOLDER` to its end and answer its `summary.json`.

    Where the folder holds a run already, that one is gone on with.

    Args:
        overrides: Hydra overrides.
        folder: the run folder; what the run prints goes into a `.log` beside it.
        threads: CPU threads of the process.
        report: called with the last line of `metrics.jsonl` whenever there is a new one.
        stop: interrupts the run when set.

    Raises:
        RunError: it exited with an error or left no `summary.json`.
        StoppedError: `stop` was set.
    """
    quoted = str(folder).replace("\\", "\\\\").replace("'", "\\'")
    where = [f"resume='{quoted}'"] if (folder / "config.yaml").exists() else [*overrides, f"hydra.run.dir='{quoted}'"]
    command = [sys.executable, str(ROOT / "run.py"), *where]
    return run_process(command, folder, threads, report, stop)


def start_process(command: Sequence[str], log: Path, threads: int) -> subprocess.Popen[Any]:
    """Start a command that prints into `log`.

    In a session of its own: Ctrl-C in the terminal reaches this process alone, which then ends its runs in order.
    """
    with log.open("w", encoding="utf-8") as output:
        return subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            cwd=ROOT,
            env=environment(threads),
            start_new_session=True,
        )


def run_process(
    command: Sequence[str],
    folder: Path,
    threads: int = 1,
    report: Callable[[Metrics], None] | None = None,
    stop: threading.Event | None = None,
) -> dict[str, Any]:
    """Run any command that writes `metrics.jsonl` and `summary.json` into `folder`; else as `train_run`."""
    log = folder.parent / f"{folder.name}.log"
    run_command(command, log, threads, stop, folder, report)
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise RunError(f"it ended without a readable summary.json: {_last_words(log)}") from error
    assert isinstance(summary, dict)
    return summary


def run_command(
    command: Sequence[str],
    log: Path,
    threads: int = 1,
    stop: threading.Event | None = None,
    folder: Path | None = None,
    report: Callable[[Metrics], None] | None = None,
) -> None:
    """Run any command to its end, its output into `log`, and report the metrics it writes into `folder`; else as `train_run`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    stop = stop or threading.Event()
    process = start_process(command, log, threads)
    try:
        _watch(process, folder or log.parent, report if folder else None, stop)
    except BaseException:
        _end(process)
        raise
    if process.returncode != 0:
        raise RunError(f"exit code {process.returncode}: {_last_words(log)}")


def composed_config(overrides: Sequence[str]) -> dict[str, Any]:
    """The whole config that `run.py` composes from `overrides`, without its seed, as plain data.

    Raises:
        UserError: `run.py` refuses the overrides; its own sentence.
    """
    command = [sys.executable, str(ROOT / "run.py"), *overrides, "--cfg", "job"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment(1), check=False)
    if done.returncode != 0:
        raise UserError(_last_line(done.stderr) or _last_line(done.stdout) or "run.py refused the overrides without a word.")
    config = OmegaConf.to_container(OmegaConf.create(done.stdout), resolve=False)
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items() if key != "seed"}


def read_metrics(folder: Path) -> list[Metrics]:
    """The log lines of a run, `metrics.jsonl`; a last line that is still being written is left out."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        return []
    complete, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
    return [json.loads(line) for line in complete.splitlines() if line.strip()]


def environment(threads: int) -> Mapping[str, str]:
    """This process's environment with the number of threads that numerical libraries may start."""
    return {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads)), "PYTHONUNBUFFERED": "1"}


def _watch(process: subprocess.Popen[Any], folder: Path, report: Callable[[Metrics], None] | None, stop: threading.Event) -> None:
    told: Metrics | None = None
    while True:
        try:
            process.wait(_POLL_SECONDS)
            return
        except subprocess.TimeoutExpired:
            pass
        if stop.is_set():
            raise StoppedError
        newest = _newest_metrics(folder) if report else None
        if report and newest and newest != told:
            report(newest)
            told = newest


def _end(process: subprocess.Popen[Any]) -> None:
    """Ask a process and its children to end, ever less politely."""
    for number, patience in ((signal.SIGINT, _GRACE_SECONDS), (signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
        if process.poll() is not None:
            return
        try:
            os.killpg(process.pid, number)
            process.wait(patience)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


def _newest_metrics(folder: Path) -> Metrics | None:
    path = folder / "metrics.jsonl"
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 65_536))
            lines = file.read().decode("utf-8", errors="replace").split("\n")
        return dict(json.loads(lines[-2])) if len(lines) > 1 else None  # what follows the last line break is still being written
    except (OSError, json.JSONDecodeError):
        return None


def _last_words(log: Path) -> str:
    return scrub(_last_line(log.read_text(encoding="utf-8", errors="replace"))) or "it said nothing"


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:500] if lines else ""
