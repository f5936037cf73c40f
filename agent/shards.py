"""Finished episodes on disk: HDF5 shards in a layout close to Minari's, published whole by an atomic rename.

A shard `shard_000007.h5` holds groups `episode_0`, `episode_1`, ... with `observations/<key>` (T + 1), `actions`, `rewards`,
`terminations`, `truncations`, `log_probs` (T). A writer killed at any moment leaves at most a hidden `.shard_000007.h5.tmp`,
which no reader looks at. Shards are data from outside: nothing is unpickled, and everything is checked before it is used.

A shard of imagined episodes is marked: its attribute `synthetic` says where they come from (JSON). Readers refuse it unless told.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from agent.files import publish, sync
from agent.sequences import Episode
from envs.errors import UserError
from envs.spaces.actions import can_be_taken, describe_actions
from envs.spaces.specs import EnvSpec, ModalitySpec

FORMAT = 1
CHUNK_BYTES = 1 << 20
STEP_FIELDS = {  # and `actions`, whose shape and dtype are the spec's
    "log_probs": np.float32,
    "rewards": np.float32,
    "terminations": np.bool_,
    "truncations": np.bool_,
}
NAME = re.compile(r"shard_(\d{6,})\.h5")


def shard_names(folder: Path) -> list[str]:
    """File names of the published shards, oldest first."""
    names = [path.name for path in folder.glob("shard_*.h5") if NAME.fullmatch(path.name)]
    return sorted(names, key=_number)


def set_aside(folder: Path, known: Sequence[str]) -> list[Path]:
    """Rename shards that are not among `known` to `*.orphan`: a resumed run plays on from before they were written."""
    moved = []
    for name in shard_names(folder):
        if name not in known:
            target = folder / f"{name}.orphan"
            while target.exists():
                target = target.with_name(f"{target.name}.orphan")
            moved.append((folder / name).rename(target))
    return moved


class ShardWriter:
    """Collects finished episodes and publishes them in shards of `episodes_per_shard`; numbers follow those in the folder.

    With `synthetic`, plain data that says where they come from, the shards are marked as imagined.
    """

    def __init__(
        self, folder: Path, spec: EnvSpec, episodes_per_shard: int = 64, synthetic: Mapping[str, Any] | None = None
    ) -> None:
        self.folder, self.spec, self.episodes_per_shard = Path(folder), spec, episodes_per_shard
        self.synthetic = synthetic
        self.folder.mkdir(parents=True, exist_ok=True)
        self.names = shard_names(self.folder)
        self._waiting: list[Episode] = []

    def add(self, episode: Episode) -> None:
        """Take a finished episode; durable once its shard is full or flushed."""
        self._waiting.append(episode)
        if len(self._waiting) >= self.episodes_per_shard:
            self.flush()

    def flush(self) -> Path | None:
        """Publish what is waiting as one shard, on disk when this returns; `None` where nothing waits."""
        if not self._waiting:
            return None
        number = _number(self.names[-1]) + 1 if self.names else 0
        path = self.folder / f"shard_{number:06d}.h5"
        temporary = self.folder / f".{path.name}.tmp"
        with h5py.File(temporary, "w") as file:
            file.attrs["strata_format"] = FORMAT
            file.attrs["spec"] = json.dumps(self.spec.to_dict())
            if self.synthetic is not None:
                file.attrs["synthetic"] = json.dumps(dict(self.synthetic))
            file.attrs["total_episodes"] = len(self._waiting)
            file.attrs["total_steps"] = sum(len(episode) for episode in self._waiting)
            for index, episode in enumerate(self._waiting):
                _write_episode(file.create_group(f"episode_{index}"), index, episode)
        sync(temporary)
        publish(temporary, path)
        self.names.append(path.name)
        self._waiting = []
        return path


class ShardReader:
    """Reads a folder's shards back, oldest first, checking all that a replay relies on.

    With `synthetic`, those of imagined episodes too; their episodes say so.
    """

    def __init__(self, folder: Path, spec: EnvSpec, synthetic: bool = False) -> None:
        self.folder, self.spec, self.synthetic = Path(folder), spec, synthetic

    def episodes(self, limit_shards: Sequence[str] | None = None, newest_records: int | None = None) -> Iterator[Episode]:
        """The episodes of all shards, or of the named ones; with `newest_records`, only of the last shards that make up so many.

        Raises UserError, naming the file, for a shard that is missing, damaged, of another spec or at odds with itself, and for
        one of imagined episodes where those are not wanted. Files are never changed.
        """
        names = shard_names(self.folder) if limit_shards is None else list(limit_shards)
        for name in names:
            if not (self.folder / name).is_file():
                raise UserError(f"Replay shard {self.folder / name} is missing: restore it, or resume from another checkpoint.")
        if newest_records is not None:
            names = self._newest(names, newest_records)
        for name in names:
            yield from self._read(self.folder / name)

    def _newest(self, names: Sequence[str], records: int) -> list[str]:
        chosen: list[str] = []
        for name in reversed(names):
            if records <= 0:
                break
            with _opened(self.folder / name, self.spec) as file:
                records -= int(file.attrs["total_steps"]) + int(file.attrs["total_episodes"])
            chosen.insert(0, name)
        return chosen

    def _read(self, path: Path) -> Iterator[Episode]:
        with _opened(path, self.spec) as file:
            origin = _origin(file)
            if origin is not None and not self.synthetic:
                said = ", ".join(f"{key} {value}" for key, value in origin.items())
                raise UserError(
                    f"Replay shard {path} holds imagined episodes ({said}): move it away, or learn from them too by "
                    "replay.synthetic=true."
                )
            episodes = [_read_episode(file, index, self.spec) for index in range(int(file.attrs["total_episodes"]))]
            episodes = [replace(episode, synthetic=origin is not None) for episode in episodes]
            if len(file) != len(episodes):
                raise ValueError(f"it holds {len(file)} groups and announces {len(episodes)} episodes")
        yield from episodes


def synthetic_origin(path: Path, spec: EnvSpec) -> dict[str, Any] | None:
    """Where a shard's imagined episodes come from; None for a shard of real ones. Raises UserError as the reader does."""
    with _opened(path, spec) as file:
        return _origin(file)


def _origin(file: h5py.File) -> dict[str, Any] | None:
    if "synthetic" not in file.attrs:
        return None
    origin = json.loads(str(file.attrs["synthetic"]))
    if not isinstance(origin, dict):
        raise ValueError("its mark of imagined episodes says nothing")
    return origin


@contextmanager
def _opened(path: Path, spec: EnvSpec) -> Iterator[h5py.File]:
    """An open shard whose header fits; whatever proves wrong with it becomes a UserError that names the file."""
    try:
        with h5py.File(path, "r") as file:
            found = file.attrs.get("strata_format")
            if found != FORMAT:
                raise ValueError(f"its format is {found}, this version reads {FORMAT}")
            difference = _difference(EnvSpec.from_dict(json.loads(str(file.attrs["spec"]))), spec)
            if difference:
                raise ValueError(f"it was recorded in another environment, where {difference}")
            yield file
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
        why = str(error.args[0] if isinstance(error, KeyError) else error)
        raise UserError(f"Replay shard {path} cannot be used ({why}): move it away, or restore it from a copy.") from error


def _write_episode(group: h5py.Group, index: int, episode: Episode) -> None:
    steps = len(episode)
    group.attrs.update(id=index, total_steps=steps, task=episode.task, seed=episode.seed)
    group.attrs.update(
        env_index=episode.env_index, end_step=episode.end_step, crc32=_checksum(episode), held_out=episode.held_out
    )
    for key, values in episode.obs.items():
        rows = max(1, min(len(values), CHUNK_BYTES // max(values[0].nbytes, 1)))
        chunks = (rows, *values.shape[1:])
        group.create_dataset(f"observations/{_name(key)}", data=values, chunks=chunks, compression="gzip", compression_opts=1)
    at_end = np.arange(steps) == steps - 1
    fields = {
        "log_probs": episode.log_prob,
        "rewards": episode.reward,
        "terminations": at_end & episode.terminated,
        "truncations": at_end & episode.truncated,
    }
    group.create_dataset("actions", data=episode.action)
    for name, dtype in STEP_FIELDS.items():
        group.create_dataset(name, data=np.asarray(fields[name], dtype))


def _read_episode(file: h5py.File, index: int, spec: EnvSpec) -> Episode:
    """Episode `index` of a shard; raises ValueError or KeyError where it is not as it must be."""
    name = f"episode_{index}"
    group = file[name]
    steps = int(group.attrs["total_steps"])
    if steps < 1:
        raise ValueError(f"{name} has {steps} steps")
    obs = {
        leaf.key: _read(group, f"observations/{_name(leaf.key)}", (steps + 1, *leaf.shape), leaf.dtype)
        for leaf in spec.observations
    }
    fields = {field: _read(group, field, (steps,), dtype) for field, dtype in STEP_FIELDS.items()}
    action = _read(group, "actions", (steps, *spec.action.shape), spec.action.agent_dtype)
    if not can_be_taken(spec.action, action):
        raise ValueError(f"{name}/actions are not all actions of this environment ({describe_actions(spec.action)})")
    ends = fields["terminations"] | fields["truncations"]
    if ends[:-1].any() or not ends[-1]:
        raise ValueError(f"{name} does not end at its last step and there alone")
    episode = Episode(
        obs=obs,
        action=action,
        log_prob=fields["log_probs"],
        reward=fields["rewards"],
        terminated=bool(fields["terminations"][-1]),
        truncated=bool(fields["truncations"][-1]),
        task=str(group.attrs["task"]),
        seed=int(group.attrs["seed"]),
        env_index=int(group.attrs["env_index"]),
        end_step=int(group.attrs["end_step"]),
        held_out=bool(group.attrs.get("held_out", False)),
    )
    if _checksum(episode) != group.attrs["crc32"]:
        raise ValueError(f"{name} does not match its checksum")
    return episode


def _checksum(episode: Episode) -> int:
    """CRC-32 of an episode's arrays: HDF5 itself would notice a flipped bit only in what is compressed."""
    fields = {"log_probs": episode.log_prob, "rewards": episode.reward}
    checksum = 0
    for key in sorted(episode.obs):
        checksum = zlib.crc32(episode.obs[key].tobytes(), checksum)
    checksum = zlib.crc32(np.ascontiguousarray(episode.action).tobytes(), checksum)
    for name, values in fields.items():
        checksum = zlib.crc32(np.asarray(values, STEP_FIELDS[name]).tobytes(), checksum)
    return checksum


def _read(group: h5py.Group, name: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    dataset = group[name]
    where = f"{str(group.name).strip('/')}/{name}"
    if not isinstance(dataset, h5py.Dataset) or dataset.shape != shape or dataset.dtype != np.dtype(dtype):
        found = f"{dataset.shape} {dataset.dtype}" if isinstance(dataset, h5py.Dataset) else "no array"
        raise ValueError(f"{where} is {found} in place of {shape} {np.dtype(dtype)}")
    values = np.asarray(dataset[()])
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ValueError(f"{where} is not finite")
    return values


def _difference(found: EnvSpec, expected: EnvSpec) -> str:
    """What sets two specs apart, for people; empty where data of one fits the other (`origin` is for people only)."""

    def describe(leaf: ModalitySpec) -> str:
        return f"{leaf.kind} {leaf.shape} {leaf.dtype}" + (f" of {leaf.classes} classes" if leaf.classes else "")

    there = {leaf.key: replace(leaf, origin="") for leaf in found.observations}
    here = {leaf.key: replace(leaf, origin="") for leaf in expected.observations}
    for key in [*here, *there]:
        if there.get(key) != here.get(key):
            ours, theirs = (describe(leaves[key]) if key in leaves else "absent" for leaves in (here, there))
            return f"observation {key} is {theirs} and not {ours}" if ours != theirs else f"observation {key} is static otherwise"
    return (
        ""
        if found.action == expected.action
        else f"the actions are {describe_actions(found.action)} and not {describe_actions(expected.action)}"
    )


def _name(key: str) -> str:
    """An observation's key as the name of a dataset: HDF5 takes slashes for folders and a lone dot for the folder itself."""
    return "%2E" if key == "." else key.replace("%", "%25").replace("/", "%2F").replace("\0", "%00")


def _number(name: str) -> int:
    match = NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"{name} is no shard name")
    return int(match[1])
