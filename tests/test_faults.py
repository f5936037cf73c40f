"""What may befall a run: each ends in a clear message or goes on, and no more than one checkpoint interval is lost."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

import run
from agent.audit.folder import audit_folder
from agent.shards import shard_names
from tests.test_run import TINY, start

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
