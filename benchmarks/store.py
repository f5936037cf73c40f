"""The results of a benchmark on disk: one JSON list of finished runs, replaced atomically."""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent.config import BEFORE
from curriculum.registry import CURRICULA
from envs.errors import UserError

Record = dict[str, Any]

GONE: dict[str, Any] = {
    "model.shared_groups": 0,
    "model.shared_classes": 16,
    "model.shared_rep": 0.1,
    "model.shared_free": 1.0,
    "model.losses.shared": 1.0,
    "hierarchy.worker.extrinsic_floor": 0.1,
    "hierarchy.worker.anneal": 2000,
    "hierarchy.manager.choice": 0.0,
    "curriculum.model_progress.fast": 0.02,
    "curriculum.model_progress.slow": 0.005,
    "eval.goals": [],
}
"""Keys that are no more, with the values under which they changed nothing (a scheduler that uses them is of another config);
and `eval.goals`, whose default `[]` is None today: what is measured besides changes no run."""


class Results:
    """The finished runs of one benchmark, `FOLDER/NAME.json`.

    A run is known by its variant, seed and config. Config keys that are newer than a record do not matter, as their defaults
    change nothing (but see `agent.config.BEFORE`), unless an override sets them; neither do those that are `GONE`. A later
    record of the same run takes the place of the earlier one, except that an error never takes the place of a finished run.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.path = folder / f"{name}.json"

    def load(self) -> list[Record]:
        """All records, oldest first.

        Raises:
            UserError: the file is not a JSON list of objects.
        """
        if not self.path.exists():
            return []
        try:
            records = json.loads(self.path.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError):
            records = None
        if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
            raise UserError(f"{self.path.name} among the results is no JSON list of runs; mend it or move it aside.")
        return records

    def find(self, variant: str, seed: int, config: Mapping[str, Any], overrides: Sequence[str] = ()) -> Record | None:
        """The record of a run that finished; a run that ended in an error is not finished, so that it is tried again."""
        asked = {"variant": variant, "seed": seed, "config": config, "overrides": list(overrides)}
        for record in reversed(self.load()):
            if _is_of(record, asked) and record.get("error") is None:
                return record
        return None

    def add(self, record: Record) -> None:
        """Append `record`, in the place of an earlier one of the same run; killed midway, nothing that was there is lost."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        failed = record.get("error") is not None
        with locked(self.path.parent):
            kept = [known for known in self.load() if not _is_of(known, record) or (failed and known.get("error") is None)]
            write_json(self.path, [*kept, record])


def holds_for(known: Any, config: Any) -> bool:
    """Whether every key of `known`, at any depth, has the same value in `config`, which may have others besides."""
    if isinstance(known, Mapping) and isinstance(config, Mapping):
        return all(key in config and holds_for(value, config[key]) for key, value in known.items())
    return bool(json.dumps(known, sort_keys=True, default=str) == json.dumps(config, sort_keys=True, default=str))


def brought_up(config: Any) -> Any:
    """The config of a record as it would be written today: with the keys of `BEFORE`, without those that are `GONE`, and without
    the settings of curricula other than its own, which may have changed since.

    Whole configs alone, at any depth; a list of overrides stays as it is.
    """
    if not isinstance(config, Mapping):
        return config
    found = {key: brought_up(value) for key, value in config.items()}
    if isinstance(found.get("model"), Mapping) and "width" in found["model"]:
        for path, value in BEFORE.items():
            part, _, key = path.rpartition(".")
            _part(found, part).setdefault(key, value)
        for path, value in GONE.items():
            part, _, key = path.rpartition(".")
            held = _part(found, part)
            if key in held and held[key] == value:
                del held[key]
        curriculum = _part(found, "curriculum")
        for name in CURRICULA.keys() & curriculum.keys() - {curriculum.get("name")}:
            del curriculum[name]
    return found


def _part(config: dict[str, Any], path: str) -> dict[str, Any]:
    """The mapping at a path of keys, an empty one where there is none."""
    for key in path.split("."):
        inner = config.get(key)
        if not isinstance(inner, dict):
            return {}
        config = inner
    return config


def _is_of(known: Record, asked: Record) -> bool:
    """Whether a record is of the run that is asked for."""
    if any(known.get(key) != asked.get(key) for key in ("variant", "seed")):
        return False
    set_here = {f".{word.partition('=')[0].lstrip('+~')}" for word in asked.get("overrides") or ()}
    config = brought_up(known.get("config"))
    newer = _paths(asked.get("config")) - _paths(config)
    return not any(path.endswith(key) for path in newer for key in set_here) and holds_for(config, asked.get("config"))


def _paths(config: Any, to: str = "") -> set[str]:
    """The paths of all keys, at any depth, each with a dot before it: `.train`, `.train.batch`."""
    if not isinstance(config, Mapping):
        return set()
    return {f"{to}.{key}" for key in config}.union(*(_paths(value, f"{to}.{key}") for key, value in config.items()))


def write_json(path: Path, data: Any) -> None:
    """Write `data` beside `path` and move it there in one step: a reader sees the old file or the new one, never half of one."""
    # `allow_nan=False`: JSON knows no NaN, and a file that other readers refuse is no result.
    text = json.dumps(data, indent=1, allow_nan=False) + "\n"
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)  # mkstemp's files are for their owner alone
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder against other benchmark processes: adding is reading, changing and writing."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
