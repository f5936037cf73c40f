"""A run's folder: what says that it is one, and how its small files are written."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import yaml

from agent.checkpoint import CheckpointStore
from agent.config import RunConfig
from envs.errors import UserError

CONFIG = "config.yaml"


def holds_run(folder: Path) -> bool:
    """Whether a folder is that of a run, finished or not."""
    return (folder / CONFIG).exists() or (folder / "checkpoints").exists()


def checkpoint_to_resume(config: RunConfig, folder: Path, store: CheckpointStore) -> Path | None:
    """The newest whole checkpoint of the run to go on with; None for a new run, and for one stopped before its first.

    Raises:
        UserError: a new run in a folder that holds one, or a run whose checkpoints are all damaged; `checkpoint=`, which does
            not say whether to go on with a run or to start from its world model.
    """
    if config.checkpoint:
        raise UserError(
            f"job={config.job.name} takes no checkpoint=: give train.pretrained={config.checkpoint} to start from its world "
            "model, or resume=RUN_FOLDER to go on with its run"
        )
    resumed = store.latest() if config.resume else None
    if config.resume and resumed is None and any(store.folder.glob("step_*")):
        raise UserError(f"resume={config.resume} holds no whole checkpoint; start a new run without resume")
    if not config.resume and holds_run(folder):
        raise UserError(f"{folder} holds a run already: go on with it by resume={folder}, or choose another hydra.run.dir")
    return resumed


def write_config(config: RunConfig, folder: Path) -> None:
    """Write `config.yaml`. A resumed run keeps what was changed for the next time."""
    write_text(folder / CONFIG, yaml.safe_dump(asdict(replace(config, resume=None)), sort_keys=False))


def write_text(path: Path, text: str) -> None:
    """Write a file in one go, so that a reader never meets half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def write_json(path: Path, data: Any) -> None:
    """As `write_text`, of plain data."""
    write_text(path, json.dumps(data, indent=2) + "\n")
