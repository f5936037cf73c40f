"""A run that is there to be killed, stopped and fed bad input, and what is on disk afterwards."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from agent.checkpoint import FILES, CheckpointStore, load_meta
from agent.manifest import fault
from agent.shards import ShardReader, shard_names
from benchmarks.provenance import ROOT, scrub
from benchmarks.training import RunError, StoppedError, read_metrics, start_process
from envs.errors import UserError
from envs.spaces.specs import EnvSpec

PATIENCE = 900.0  # seconds that anything may take, on the slowest machine
POLL = 0.0005  # seconds: writing a shard takes milliseconds
HALF_WRITTEN = {"checkpoint": "checkpoints/.step_*.tmp", "shard": "replay/.shard_*.tmp"}


class Process:
    """`python run.py ARGUMENTS` as a process of its own, its output in `log`."""

    def __init__(self, arguments: Sequence[str], log: Path, threads: int, stop: threading.Event) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log, self.stop = log, stop
        self.process = start_process([sys.executable, str(ROOT / "run.py"), *arguments], log, threads)

    def until(self, holds: Callable[[], bool], poll: float = 0.02) -> None:
        """Wait for something to hold.

        Raises:
            RunError: the process ended before, or it took too long.
            StoppedError: the benchmark was interrupted.
        """
        end = time.monotonic() + PATIENCE
        while not holds():
            if self.process.poll() is not None:
                raise RunError(f"it ended too early, with exit code {self.process.returncode}: {self.words()[-300:]}")
            if self.stop.is_set():
                raise StoppedError
            if time.monotonic() > end:
                raise RunError(f"nothing came in {PATIENCE:.0f} s: {self.words()[-300:]}")
            time.sleep(poll)

    def ended(self) -> int:
        """Wait for its end; answer its exit code (negative: the signal that ended it)."""
        end = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            if self.stop.is_set():
                raise StoppedError
            if time.monotonic() > end:
                raise RunError(f"it did not end in {PATIENCE:.0f} s: {self.words()[-300:]}")
            time.sleep(0.02)
        return int(self.process.returncode)

    def send(self, number: signal.Signals) -> None:
        os.killpg(self.process.pid, number)

    def words(self) -> str:
        """What it has said so far, without paths of this machine."""
        return scrub(self.log.read_text(encoding="utf-8", errors="replace"))


@contextmanager
def started(arguments: Sequence[str], log: Path, threads: int, stop: threading.Event) -> Iterator[Process]:
    """A process that does not outlive the block."""
    run = Process(arguments, log, threads, stop)
    try:
        yield run
    finally:
        if run.process.poll() is None:
            run.send(signal.SIGKILL)
            run.process.wait()


def folder_override(folder: Path) -> str:
    """`hydra.run.dir=` of a folder of any name."""
    quoted = str(folder).replace("\\", "\\\\").replace("'", "\\'")
    return f"hydra.run.dir='{quoted}'"


def logged_steps(folder: Path) -> int:
    """Env steps of the last whole line of `metrics.jsonl`."""
    rows = read_metrics(folder)
    return int(rows[-1]["env_steps"]) if rows else 0


def said_steps(words: str) -> int:
    """Env steps of the last log line that a run printed: `metrics.jsonl` may still hold those of the life before."""
    found = re.findall(r"^([\d,]+) steps \|", words, re.MULTILINE)
    return int(found[-1].replace(",", "")) if found else 0


def resumed_at(words: str) -> int | None:
    """Env steps that a resumed run says it goes on from; `None` where it does not say."""
    if "it starts from the beginning" in words:
        return 0
    found = re.search(r"going on from step_\d+, at (\d+) env steps", words)
    return int(found[1]) if found else None


def half_written(folder: Path, kind: str) -> list[str]:
    """What the writer of a checkpoint or shard has not finished yet."""
    return sorted(path.name for path in folder.glob(HALF_WRITTEN[kind]))


def unreadable(folder: Path) -> list[str]:
    """Which of the checkpoints and shards that bear a name cannot be read whole."""
    store = folder / "checkpoints"
    faults = [f"{path.name}: {found}" for path in sorted(store.glob("step_*")) if (found := fault(path, FILES)) is not None]
    newest = CheckpointStore(store).latest()
    if newest is None:
        return faults  # no checkpoint yet: nothing says what the shards hold, and a resumed run puts them aside
    reader = ShardReader(folder / "replay", EnvSpec.from_dict(load_meta(newest)["spec"]))
    for name in shard_names(folder / "replay"):
        try:
            list(reader.episodes([name]))
        except UserError as error:
            faults.append(scrub(str(error)))
    return faults


def tree_hash(folder: Path) -> str:
    """A hash of every name and every byte below a folder."""
    whole = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder)).encode()
        content = path.read_bytes() if path.is_file() else b""
        whole.update(b"%d %d %d " % (path.is_file(), len(name), len(content)) + name + content)
    return whole.hexdigest()


def sentences(words: str, folder: Path) -> list[str]:
    """The lines of a refusal, what comes before `error: ` left out; the run's folder is called RUN."""
    text = words.replace(scrub(str(folder)), "RUN").replace(str(folder), "RUN")
    _, found, refusal = text.partition("error: ")
    return [line for line in refusal.splitlines() if line.strip()] if found else []
