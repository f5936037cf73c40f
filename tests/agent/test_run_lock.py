"""One training at a time in a run's folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent import jobs
from agent.run_lock import RunLock
from envs.errors import UserError
from tests.agent.tiny import DOORKEY, tiny_config

HOLD = """
import sys
from pathlib import Path
from agent.run_lock import RunLock
lock = RunLock(Path(sys.argv[1]))
lock.acquire()
print(1, flush=True)
input()
"""


def test_a_run_that_another_process_trains_is_refused_until_that_one_is_gone(tmp_path: Path):
    config = tiny_config(DOORKEY, train=dict(env_steps=64, random_steps=64))
    jobs.run_job(config, tmp_path)
    config.resume = str(tmp_path)
    before = (tmp_path / "summary.json").read_bytes()
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None and holder.stdout.readline()
    with pytest.raises(UserError, match=rf"is being trained in by another process \(process {holder.pid} of .*\): stop that one"):
        jobs.run_job(config, tmp_path)
    assert (tmp_path / "summary.json").read_bytes() == before
    holder.kill()
    holder.communicate()
    with RunLock(tmp_path) as lock:
        lock.acquire()
        assert f"process {os.getpid()} " in (tmp_path / ".lock").read_text()
