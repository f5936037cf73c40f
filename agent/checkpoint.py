"""Checkpoints: folders `step_000020000/`, published whole by an atomic rename. What is in them is the agent's affair.

    model.safetensors        all weights                          | enough to load, serve or compress an agent
    agent.json               specs, config, format                |
    training/tensors.pt      optimiser and other tensor state     | needed to resume
    training/state.json      counters, curriculum, random states  |
    training/arrays.npz      episodes under way                   |
    training/rank_N/...      the same three of process N, where a run has several
    manifest.json            sizes and checksums, written last

Checkpoints may come from anywhere: nothing in them is ever unpickled as an object.
"""

from __future__ import annotations

import json
import logging
import pickle
import re
import shutil
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from agent.files import publish, write_json
from agent.manifest import MANIFEST, fault, write_manifest
from envs.errors import UserError

NAME = re.compile(r"step_(\d{9,})")
REPLACED = re.compile(r"\.step_(\d{9,})\.old")
MODEL, META = "model.safetensors", "agent.json"
TRAINING = "training"
TENSORS, STATE, ARRAYS = "training/tensors.pt", "training/state.json", "training/arrays.npz"
FILES = (MODEL, META, TENSORS, STATE, ARRAYS)
PLAIN = (bool, int, float, str, type(None))
WAY_OUT = "give a run folder or one of its checkpoints (RUN/checkpoints/step_...)"

logger = logging.getLogger(__name__)


@dataclass
class TrainingState:
    """What a run needs, beyond its weights, to go on where it stopped.

    Attributes:
        tensors: nested dicts, lists and tuples of tensors and plain values: optimiser states.
        state: JSON: counters, curriculum, random states (integers of any size), the shards known; numpy values become lists.
        arrays: named arrays of any dtype but object: the episodes under way.
    """

    tensors: dict[str, Any] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)


class CheckpointStore:
    """The checkpoints of one run: the last `keep` stay, and with `best` that of the highest `score` in its meta (of equals the
    newest); others are removed as new ones are saved."""

    def __init__(self, folder: Path, keep: int = 2, best: bool = False) -> None:
        if keep < 1:
            raise UserError(f"train.keep_checkpoints={keep} would keep none: give 1 or more.")
        self.folder, self.keep, self.best = Path(folder), keep, best

    def save_part(self, rank: int, training: TrainingState) -> None:
        """Write what process `rank` (1 and up) adds to the next checkpoint, where `save` of rank 0 finds it."""
        folder = self._part(rank)
        _remove(folder)
        folder.mkdir(parents=True)
        _write_training(folder, training)

    def save(
        self,
        env_steps: int,
        weights: Mapping[str, Tensor],
        meta: Mapping[str, Any],
        training: TrainingState,
        processes: int = 1,
    ) -> Path:
        """Publish a checkpoint, on disk when this returns. With several `processes` the others have called `save_part` before."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"step_{env_steps:09d}"
        temporary = self.folder / f".{path.name}.tmp"
        _remove(temporary)
        (temporary / "training").mkdir(parents=True)
        # Clones: safetensors refuses tensors that share memory, as tied weights and views do.
        save_file({name: value.detach().cpu().contiguous().clone() for name, value in weights.items()}, temporary / MODEL)
        write_json(temporary / META, meta)
        _write_training(temporary / "training", training)
        for rank in range(1, processes):
            self._part(rank).replace(temporary / part_name(TRAINING, rank))
        write_manifest(temporary)
        self._publish(temporary, path)
        self._prune(path)
        return path

    def latest(self) -> Path | None:
        """The newest whole checkpoint; half-written and damaged ones are passed over with a warning."""
        for temporary in sorted(self.folder.glob(".step_*.tmp")):
            logger.warning("passing over %s: it was never finished", temporary)
        # One that made way for its successor counts too: the writer may have been killed between the two renames.
        for path in sorted([*self._all(), *self._all(REPLACED)], key=lambda path: (_step(path), path.name), reverse=True):
            found = fault(path, FILES, others=True)  # the parts of other processes, too
            if found is None:
                return path
            logger.warning("passing over checkpoint %s: %s", path, found)
        return None

    def _part(self, rank: int) -> Path:
        return self.folder / f".rank_{rank}.tmp"

    def _all(self, pattern: re.Pattern[str] = NAME) -> list[Path]:
        """Folders named as checkpoints, oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted((path for path in self.folder.iterdir() if pattern.fullmatch(path.name) and path.is_dir()), key=_step)

    def _publish(self, temporary: Path, path: Path) -> None:
        if path.exists():  # saved at this very step before: a folder cannot be replaced in one go, so the old one makes way first
            before = self.folder / f".{path.name}.old"
            _remove(before)
            path.replace(before)
            publish(temporary, path)
            _remove(before)
        else:
            publish(temporary, path)

    def _prune(self, newest: Path) -> None:
        """Remove what is not among the last; damaged checkpoints are left for people to look at."""
        whole = [path for path in self._all() if fault(path, FILES, checksums=False, others=True) is None]
        kept = {newest, *whole[-self.keep :]}
        if self.best and (scored := [(score, _step(path), path) for path in whole if (score := _score(path)) is not None]):
            kept.add(max(scored)[2])
        for path in whole:
            if path not in kept:
                gone = self.folder / f".{path.name}.old"
                path.replace(gone)  # renamed first, so that no half-removed checkpoint bears a checkpoint's name
                _remove(gone)
        for left in (*self.folder.glob(".step_*.tmp"), *self.folder.glob(".step_*.old")):
            _remove(left)


def resolve(path: Path | str) -> Path:
    """The checkpoint folder that `path` means: itself, or the newest whole one of a run folder or a `checkpoints` folder.

    Raises UserError where there is none.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path} does not exist: {WAY_OUT}.")
    if (path / META).is_file():
        return path
    is_run = (path / "checkpoints").is_dir()
    latest = CheckpointStore(path / "checkpoints" if is_run else path).latest()
    if latest is not None:
        return latest
    if is_run or path.name == "checkpoints":
        raise UserError(f"{path} holds no whole checkpoint: {WAY_OUT}.")
    raise UserError(f"{path} is not a Strata checkpoint, {META} is missing: {WAY_OUT}.")


def load_weights(path: Path) -> dict[str, Tensor]:
    """The weights of a checkpoint, on the CPU."""
    _check(path, MODEL)
    try:
        return load_file(path / MODEL)
    except (SafetensorError, OSError) as error:
        raise _damaged(path, MODEL, error) from error


def load_meta(path: Path) -> dict[str, Any]:
    """What was saved as `meta`."""
    _check(path, META)
    return _read_json(path, META)


def load_training(path: Path, rank: int = 0) -> TrainingState:
    """The state that process `rank` of a run resumes from; tensors on the CPU."""
    tensors_name, state_name, arrays_name = (part_name(name, rank) for name in (TENSORS, STATE, ARRAYS))
    for name in (tensors_name, state_name, arrays_name):
        _check(path, name)
    try:
        tensors = torch.load(path / tensors_name, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, OSError, RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise _damaged(path, tensors_name, "it holds more than tensors and plain values, or is no such file") from error
    try:
        with np.load(path / arrays_name, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise _damaged(path, arrays_name, error) from error
    return TrainingState(tensors, _read_json(path, state_name), arrays)


def part_name(name: str, rank: int) -> str:
    """Where process `rank` has what is `training/...` of rank 0."""
    return name.replace(TRAINING, f"{TRAINING}/rank_{rank}", 1) if rank else name


def _write_training(folder: Path, training: TrainingState) -> None:
    tensors = _storable(training.tensors, "tensors")
    for name, array in training.arrays.items():
        if array.dtype.hasobject:
            raise TypeError(f"arrays.{name} holds Python objects")
    torch.save(tensors, folder / Path(TENSORS).name)
    write_json(folder / Path(STATE).name, training.state)
    np.savez_compressed(folder / Path(ARRAYS).name, **training.arrays)  # type: ignore[arg-type]  # numpy's stub takes the names for flags


def _score(path: Path) -> float | None:
    """How good a checkpoint's agent was found to be, if it was."""
    found = _read_json(path, META).get("score")
    return None if found is None else float(found)


def _storable(value: Any, where: str) -> Any:
    """The same in plain containers; refuses now what a safe loader would refuse later, when it would be too late."""
    if isinstance(value, Mapping):
        return {key: _storable(item, f"{where}.{key}") for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_storable(item, f"{where}.{index}") for index, item in enumerate(value))
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if type(value) not in PLAIN:
        raise TypeError(f"{where} is a {type(value).__name__}: only tensors and plain values can be stored there")
    return value


def _check(path: Path, name: str) -> None:
    """Raise UserError where a file of a checkpoint is missing, or differs from the manifest where there is one."""
    if not (path / META).is_file():
        raise UserError(f"{path} is not a Strata checkpoint, {META} is missing: {WAY_OUT}.")
    if not (path / name).is_file():
        raise UserError(f"Checkpoint {path} is incomplete, {name} is missing: {WAY_OUT}.")
    # An agent may be handed on without its training state and manifest; where there is a manifest, it is held to it.
    found = fault(path, [name]) if (path / MANIFEST).is_file() else None
    if found:
        raise UserError(f"Checkpoint {path} is damaged, {found}: {WAY_OUT}.")


def _damaged(path: Path, name: str, why: object) -> UserError:
    return UserError(f"Checkpoint {path} is damaged, {name} cannot be read ({why}): {WAY_OUT}.")


def _read_json(path: Path, name: str) -> dict[str, Any]:
    try:
        data = json.loads((path / name).read_text())
    except ValueError as error:
        raise _damaged(path, name, error) from error
    if not isinstance(data, dict):
        raise _damaged(path, name, "it is no JSON object")
    return data


def _step(path: Path) -> int:
    match = NAME.search(path.name)
    return int(match[1]) if match else -1


def _remove(path: Path) -> None:
    if path.exists():
        shutil.rmtree(path)
