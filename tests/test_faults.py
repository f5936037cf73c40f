"""What may befall a run: each ends in a clear message or goes on, and no more than one checkpoint interval is lost."""

from __future__ import annotations

import os
import re
import resource
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

import run
from agent.audit.folder import audit_folder
from agent.checkpoint import CheckpointStore, load_meta
from agent.jobs import run_job
from agent.metrics_file import read_metrics
from agent.shards import shard_names
from envs.errors import UserError
from tests.agent.tiny import DOORKEY, tiny_config
from tests.test_run import TINY, start, wait_for_step

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 600.0  # seconds: everything takes seconds on a machine that is free
INTERVAL = 256  # env steps between checkpoints
RUN = (
    "env=doorkey", "env.tasks=[DoorKey-5x5]", "env.num_envs=4", "model=debug", "logger=none", "logger.progress=false",
    "logger.report=false", "device=cpu", "sharding=zero3", "sharding.persistence=1000", "train.env_steps=1000000",
    "train.stop_at_mastery=false", "train.random_steps=256", "train.warmup_updates=2", "train.update_every_first=128",
    "train.update_every=128", "train.batch=4", "train.length=16", "train.log_every=64", f"train.checkpoint_every={INTERVAL}",
    "train.threads=1", "hierarchy.starts=2", "hierarchy.horizon=3", "replay.episodes_per_shard=2",
)  # fmt: skip


# The third shard is killed when it is written and not published yet.
KILLED_IN_A_SHARD = """
import os, signal, agent.shards as shards, run
sync, written = shards.sync, []
def killing(path):
    written.append(path)
    os.kill(os.getpid(), signal.SIGKILL) if len(written) == 3 else sync(path)
shards.sync = killing
run.main()
"""


class Launched:
    """`python run.py ARGUMENTS` in two processes that torchrun starts."""

    def __init__(self, log: Path, *arguments: str) -> None:
        self.log = log
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "run.py", *arguments]
        with log.open("w") as file:
            self.launcher = subprocess.Popen(
                command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, env=os.environ | {"OMP_NUM_THREADS": "1"}
            )

    def until(self, holds: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not holds():
            assert self.launcher.poll() is None, f"it ended too early: {self.words()[-3000:]}"
            assert time.monotonic() < end, f"nothing came: {self.words()[-3000:]}"
            time.sleep(0.05)

    def ended(self) -> int:
        return self.launcher.wait(PATIENCE)

    def words(self) -> str:
        return self.log.read_text(errors="replace")

    def rank(self, number: int) -> int:
        """The process id of a rank."""
        pid = self.launcher.pid
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            if f"RANK={number}" in Path(f"/proc/{child}/environ").read_text().split("\0"):
                return int(child)
        raise AssertionError(f"there is no rank {number}")


def logged(folder: Path) -> int:
    """Env steps of the last log line."""
    lines = read_metrics(folder) if (folder / "metrics.jsonl").is_file() else []
    return int(lines[-1]["env_steps"]) if lines else 0


def saved(folder: Path) -> int:
    """Env steps of the newest whole checkpoint."""
    path = CheckpointStore(folder / "checkpoints").latest()
    return 0 if path is None else int(load_meta(path)["env_steps"])


class SmallDisk:
    """A disk of four megabytes that can be filled up; where mounting is not allowed, a limit on every file's size instead."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
        self.mounted = shutil.which("mount") is not None and subprocess.run(mount, capture_output=True).returncode == 0

    @contextmanager
    def full(self) -> Iterator[None]:
        if self.mounted:
            filler = self.folder / "filler"
            with suppress(OSError), filler.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
            yield
            filler.unlink()
            return
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, ignored)

    def remove(self) -> None:
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.folder)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    small = SmallDisk(tmp_path / "disk")
    yield small
    small.remove()


def test_a_writer_killed_in_mid_shard_loses_one_checkpoint_interval_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    folder = tmp_path / "run"
    killed = start(
        *TINY,
        "env.kwargs.max_steps=5",
        "train.checkpoint_every=24",
        "replay.episodes_per_shard=3",
        f"hydra.run.dir={folder}",
        script=KILLED_IN_A_SHARD,
    )
    out, _ = killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    at = max(int(steps) for steps in re.findall(r"^(\d+) steps \|", out, re.MULTILINE))
    (half,) = folder.glob("replay/.shard_*.h5.tmp")
    before = {name: (folder / "replay" / name).read_bytes() for name in shard_names(folder / "replay")}
    assert half.name == ".shard_000002.h5.tmp" and len(before) == 2

    monkeypatch.setattr("sys.argv", ["run.py", f"resume={folder}", "eval.calibration=0"])
    run.main()
    said = capsys.readouterr().err
    found = re.search(r"going on from step_\d+, at (\d+) env steps", said)
    assert found and at - int(found[1]) <= 24 + 8, "one checkpoint interval, and what was not logged yet"
    assert "replay shard shard_000002.h5.tmp.orphan is half written, as its writer was killed: kept aside" in said
    audit = audit_folder(folder / "replay")
    assert audit.faults == [] and any("left by a writer that was killed" in note for note in audit.notes)
    kept = {name: data for name, data in before.items() if not (folder / "replay" / f"{name}.orphan").exists()}
    assert kept and all((folder / "replay" / name).read_bytes() == data for name, data in kept.items())


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="tells ranks apart by /proc, which Linux has")
def test_a_killed_rank_ends_the_others_with_a_sentence_and_sigterm_to_the_launcher_ends_all_with_a_checkpoint(tmp_path: Path):
    folder = tmp_path / "run"
    launched = Launched(tmp_path / "killed.log", *RUN, f"hydra.run.dir={folder}")
    launched.until(lambda: logged(folder) >= 2 * INTERVAL + 64)
    os.kill(launched.rank(1), signal.SIGKILL)
    assert launched.ended() != 0
    assert "another process of this run has ended" in launched.words() and f"resume={folder}" in launched.words(), (
        launched.words()[-3000:]
    )
    at = saved(folder)
    assert 0 < logged(folder) - at < INTERVAL + 64, "at most one interval is lost"

    again = Launched(tmp_path / "resumed.log", f"resume={folder}")
    again.until(lambda: logged(folder) >= at + INTERVAL)
    assert f"going on from step_{at:09d}, at {at} env steps" in again.words()
    again.launcher.send_signal(signal.SIGTERM)
    again.ended()
    assert f"Stopped at {saved(folder)} env steps; go on with: python run.py resume={folder}" in again.words(), again.words()[
        -3000:
    ]
    assert saved(folder) >= logged(folder), "nothing is lost"


def test_a_full_disk_ends_a_run_with_a_sentence_and_it_goes_on_once_there_is_room(disk: SmallDisk):
    config = tiny_config(DOORKEY, train=dict(checkpoint_every=32, env_steps=64))
    folder = disk.folder / "run"
    run_job(config, folder)
    more = replace(config, resume=str(folder), train=replace(config.train, env_steps=128))
    with disk.full(), pytest.raises(UserError, match=f"make room; python run.py resume={folder} goes on"):
        run_job(more, folder)
    assert saved(folder) == 64, "the last good checkpoint is untouched"
    run_job(more, folder)
    assert saved(folder) == 128


def actor_of(process: subprocess.Popen[str]) -> int:
    """Read what a run says until it has started its next actor; answers a descriptor that tells when that one ends."""
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(r"actor 0 \(process (\d+)\) plays environments 0 to 3", line):
            return os.pidfd_open(int(found[1]))
    raise AssertionError("no actor was started")


def test_an_actor_that_is_killed_is_replaced_and_none_outlives_its_learner(tmp_path: Path):
    options = [option for option in TINY if "env_steps" not in option]
    learner = start(*options, "acting=async", "train.env_steps=100000", f"hydra.run.dir={tmp_path / 'run'}")
    actor = actor_of(learner)
    seen = wait_for_step(learner, 24)
    signal.pidfd_send_signal(actor, signal.SIGKILL)
    another = actor_of(learner)
    wait_for_step(learner, seen + 64)
    assert not select.select([another], [], [], 0)[0], "the new one plays"
    learner.kill()
    learner.communicate()
    assert select.select([another], [], [], 30)[0], "it ends by itself"
    for descriptor in (actor, another):
        os.close(descriptor)
