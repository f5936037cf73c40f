"""Finished episodes on disk: HDF5 shards in a layout close to Minari's, published whole by an atomic rename.

A shard `shard_000007.h5` holds groups `episode_0`, `episode_1`, ... with `observations/<key>` (T + 1), `actions`, `rewards`,
`terminations`, `truncations`, `log_probs` (T). A writer killed at any moment leaves at most a hidden `.shard_000007.h5.tmp`,
which no reader looks at. Shards are data from outside: nothing is unpickled, and everything is checked before it is used.

Its attribute `provenance` (JSON) says where its episodes come from, `sha256` covers that and the checksums of all episodes.
A shard of imagined episodes is marked: its attribute `synthetic` says where they come from (JSON). Readers refuse it unless told.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py

from agent import checksums
from agent.files import publish, sync
from agent.remote import RemoteShards, local_file
from agent.sequences import Episode
from agent.shard_file import FORMAT, check_sums, opened, read_episode, write_episode
from envs.errors import UserError
from envs.spaces.specs import EnvSpec

NAME = re.compile(r"shard_(\d{6,})\.h5")


def shard_names(folder: Path, remote: RemoteShards | None = None) -> list[str]:
    """File names of the published shards, oldest first, of those in a `remote` folder too."""
    names = {path.name for path in folder.glob("shard_*.h5")} | set(remote.names() if remote is not None else ())
    return sorted((name for name in names if NAME.fullmatch(name)), key=_number)


def all_parts(folder: Path) -> list[Path]:
    """A run's folder of shards, and those of its other processes below it."""
    return [folder, *sorted(part for part in folder.glob("rank_*") if shard_names(part))]


def set_aside(folder: Path, known: Sequence[str], remote: RemoteShards | None = None) -> list[Path]:
    """Rename shards that are not among `known` to `*.orphan`: a resumed run plays on from before they were written.

    So are half-written ones, to `*.tmp.orphan`.
    """
    if remote is not None:
        remote.set_aside([name for name in remote.names() if NAME.fullmatch(name) and name not in known])
    late = [folder / name for name in shard_names(folder) if name not in known]
    moved = []
    for path in (*late, *sorted(folder.glob(".shard_*.h5.tmp"))):
        target = folder / f"{path.name.lstrip('.')}.orphan"
        while target.exists():
            target = target.with_name(f"{target.name}.orphan")
        moved.append(path.rename(target))
    return moved


class ShardWriter:
    """Collects finished episodes and publishes them in shards of `episodes_per_shard`; numbers follow those in the folder.

    With `synthetic`, plain data that says where they come from, the shards are marked as imagined. `provenance`, plain data too,
    is written into each; `compression` is one of `COMPRESSIONS`. Every shard is copied to `remote`, where that is given.
    """

    def __init__(
        self,
        folder: Path,
        spec: EnvSpec,
        episodes_per_shard: int = 64,
        synthetic: Mapping[str, Any] | None = None,
        compression: str = "gzip",
        provenance: Mapping[str, Any] | None = None,
        remote: RemoteShards | None = None,
    ) -> None:
        self.folder, self.spec, self.episodes_per_shard = Path(folder), spec, episodes_per_shard
        self.synthetic, self.compression, self.provenance = synthetic, compression, provenance
        self.folder.mkdir(parents=True, exist_ok=True)
        self.remote = remote
        self.names = shard_names(self.folder, remote)
        if remote is not None:
            remote.owe([self.folder / name for name in shard_names(self.folder)])
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
        # Made in memory: where a disk fills up HDF5 may crash, and a plain file says so.
        with h5py.File(temporary, "w", driver="core", backing_store=False) as file:
            file.attrs["strata_format"] = FORMAT
            file.attrs["spec"] = json.dumps(self.spec.to_dict())
            if self.synthetic is not None:
                file.attrs["synthetic"] = json.dumps(dict(self.synthetic))
            if self.provenance:
                file.attrs["provenance"] = json.dumps(dict(self.provenance))
            file.attrs["total_episodes"] = len(self._waiting)
            file.attrs["total_steps"] = sum(len(episode) for episode in self._waiting)
            for index, episode in enumerate(self._waiting):
                write_episode(file.create_group(f"episode_{index}"), index, episode, self.compression)
            stated = [str(file[f"episode_{index}"].attrs["sha256"]) for index in range(len(self._waiting))]
            file.attrs["sha256"] = checksums.header(file.attrs, stated)
            file.flush()
            temporary.write_bytes(file.id.get_file_image())
        sync(temporary)
        publish(temporary, path)
        if self.remote is not None:
            self.remote.send(path)
        self.names.append(path.name)
        self._waiting = []
        return path


class ShardReader:
    """Reads a folder's shards back, oldest first, checking all that a replay relies on.

    With `synthetic`, those of imagined episodes too; their episodes say so. What is in the `remote` folder
    alone is fetched from it.
    """

    def __init__(self, folder: Path, spec: EnvSpec, synthetic: bool = False, remote: RemoteShards | None = None) -> None:
        self.folder, self.spec, self.synthetic, self.remote = Path(folder), spec, synthetic, remote

    def episodes(self, limit_shards: Sequence[str] | None = None, newest_records: int | None = None) -> Iterator[Episode]:
        """The episodes of all shards, or of the named ones; with `newest_records`, only of the last shards that make up so many.

        Raises UserError, naming the file, for a shard that is missing, damaged, of another spec or at odds with itself, and for
        one of imagined episodes where those are not wanted. Files are never changed.
        """
        names = shard_names(self.folder, self.remote) if limit_shards is None else list(limit_shards)
        if self.remote is None:
            for name in names:
                local_file(self.folder, name)
        if newest_records is not None:
            names = self._newest(names, newest_records)
        for name in names:
            yield from self._read(local_file(self.folder, name, self.remote))

    def _newest(self, names: Sequence[str], records: int) -> list[str]:
        chosen: list[str] = []
        for name in reversed(names):
            if records <= 0:
                break
            with opened(local_file(self.folder, name, self.remote), self.spec) as file:
                records -= int(file.attrs["total_steps"]) + int(file.attrs["total_episodes"])
            chosen.insert(0, name)
        return chosen

    def _read(self, path: Path) -> Iterator[Episode]:
        with opened(path, self.spec) as file:
            origin = checked_origin(file, path, self.synthetic)
            episodes = [read_episode(file, index, self.spec) for index in range(int(file.attrs["total_episodes"]))]
            episodes = [replace(episode, synthetic=origin is not None) for episode in episodes]
            if len(file) != len(episodes):
                raise ValueError(f"it holds {len(file)} groups and announces {len(episodes)} episodes")
            check_sums(file, len(episodes))
        yield from episodes


def checked_origin(file: h5py.File, path: Path, synthetic: bool) -> dict[str, Any] | None:
    """Where an open shard's imagined episodes come from; None for real ones. Raises UserError where they are not wanted."""
    origin = _origin(file)
    if origin is not None and not synthetic:
        said = ", ".join(f"{key} {value}" for key, value in origin.items())
        raise UserError(
            f"Replay shard {path} holds imagined episodes ({said}): move it away, or learn from them too by "
            "replay.synthetic=true."
        )
    return origin


def synthetic_origin(path: Path, spec: EnvSpec) -> dict[str, Any] | None:
    """Where a shard's imagined episodes come from; None for a shard of real ones. Raises UserError as the reader does."""
    with opened(path, spec) as file:
        return _origin(file)


def _origin(file: h5py.File) -> dict[str, Any] | None:
    if "synthetic" not in file.attrs:
        return None
    origin = json.loads(str(file.attrs["synthetic"]))
    if not isinstance(origin, dict):
        raise ValueError("its mark of imagined episodes says nothing")
    return origin


def _number(name: str) -> int:
    match = NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"{name} is no shard name")
    return int(match[1])
