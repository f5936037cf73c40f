"""DreamerV3 as sheeprl has it, as a run of a benchmark, in a virtual environment of its own.

The folder `.venv-dreamerv3` is made at first use, from `dreamerv3_requirements.txt` (about 1.5 GB, most of it PyTorch), and again
when that file changes. There our environments are played as they are: the same layouts kept apart by the same hashes, the same
observations (one one-hot vector, the one that PPO gets), success rule and criterion. Delete the folder to be rid of it.
"""

from __future__ import annotations

import json
import shutil
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.dreamerv3_config import DreamerV3Config
from benchmarks.harness import Context, Run
from benchmarks.provenance import ROOT
from benchmarks.settings import with_overrides
from benchmarks.store import locked
from benchmarks.training import RunError, run_command, run_process
from envs.errors import UserError

FOLDER = ROOT / ".venv-dreamerv3"
REQUIREMENTS = Path(__file__).with_name("dreamerv3_requirements.txt")


def dreamerv3_config(overrides: Sequence[str], quick: bool) -> DreamerV3Config:
    """DreamerV3's settings as a command line asks for them.

    Raises:
        UserError: a bad override.
    """
    config = with_overrides(DreamerV3Config(), overrides, "dreamerv3")
    if not quick:
        return config
    steps = min(config.max_env_steps, 200)
    return replace(config, max_env_steps=steps, learning_starts=min(config.learning_starts, steps - 40), eval_episodes=4)


def dreamerv3_run(config: DreamerV3Config, seed: int, variant: str) -> Run:
    """DreamerV3 as a run of a benchmark; it reaches its goal with steps to threshold on its task."""

    def execute(context: Context) -> dict[str, Any]:
        python = installed(context.stop)
        given = json.dumps({"config": asdict(config), "seed": seed, "folder": str(context.folder)})
        command = [str(python), "-m", "benchmarks.dreamerv3_training", given]
        summary = run_process(command, context.folder, context.threads, context.report, context.stop)
        return {**summary, "reached": summary["steps_to_threshold"][config.task]}

    return Run(variant, seed, asdict(config), execute, config.max_env_steps)


def is_installed(folder: Path = FOLDER) -> bool:
    """Whether the virtual environment is there, and of the requirements as they are now."""
    ready = folder / ".ready"
    return ready.exists() and ready.read_text(encoding="utf-8") == REQUIREMENTS.read_text(encoding="utf-8")


def installed(stop: threading.Event | None = None, folder: Path = FOLDER) -> Path:
    """The Python of the virtual environment, which is made first if need be; one process makes it while others wait.

    Raises:
        UserError: it cannot be made.
        StoppedError: `stop` was set.
    """
    python, log = folder / "bin" / "python", folder.with_name(f"{folder.name}.log")
    with locked(folder.parent):
        if is_installed(folder):
            return python
        shutil.rmtree(folder, ignore_errors=True)
        print(f"installing DreamerV3 into {folder.name} (once; about 1.5 GB) ...", file=sys.stderr)
        try:
            run_command([sys.executable, "-m", "venv", str(folder)], log, stop=stop)
            run_command([str(python), "-m", "pip", "install", "--requirement", str(REQUIREMENTS)], log, stop=stop)
        except RunError as error:
            raise UserError(
                f"DreamerV3 could not be installed into {folder.name} ({error}); see {log.name}, "
                "or leave it out by --only ours, --only ours-5x5 or --only peer."
            ) from error
        (folder / ".ready").write_text(REQUIREMENTS.read_text(encoding="utf-8"), encoding="utf-8")
    return python
