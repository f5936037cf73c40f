"""Stored episodes, from whatever folders hold them: of a run, of shards, of a Minari data set."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from agent.config import RunConfig
from agent.holdout import Holdout
from agent.pretrain.minari import MinariReader, minari_folder
from agent.remote import RemoteShards, is_remote
from agent.replay import Replay
from agent.sequences import Episode
from agent.shards import NAME, ShardReader, all_parts, shard_names
from envs.errors import UserError
from envs.spaces.specs import EnvSpec

STREAM = "data"  # the one task of a replay that does not tell tasks apart


def data_folders(data: Any) -> list[Path | RemoteShards]:
    """The folders that `pretrain.data` names.

    Raises:
        UserError: it names none, or one that does not exist.
    """
    names = [data] if isinstance(data, str) else data
    if not names or not isinstance(names, list | tuple) or not all(isinstance(name, str) and name for name in names):
        raise UserError(
            "job=pretrain needs pretrain.data=FOLDER: a run folder, a folder of shards or a Minari data set, or [FOLDER, FOLDER]"
        )
    folders = [RemoteShards(name) if is_remote(name) else Path(name) for name in names]
    for folder in folders:
        if isinstance(folder, Path) and not folder.is_dir():
            raise UserError(f"pretrain.data={folder} does not exist: give a folder of stored episodes")
    return folders


def read_remote(shards: RemoteShards, spec: EnvSpec, config: RunConfig) -> Iterator[Episode]:
    """As `read_folder`, of a remote folder of shards: one at a time is copied here."""
    found = False
    with TemporaryDirectory(prefix="strata-shards-") as place:
        for name in sorted(shards.names()):
            if NAME.fullmatch(name):
                found = True
                yield from ShardReader(Path(place), spec, config.replay.synthetic, shards).episodes([name])
                (Path(place) / name).unlink()
    if not found:
        raise UserError(f"pretrain.data={shards.url} holds no stored episodes: it has no shard_*.h5")


def read_folder(folder: Path | RemoteShards, spec: EnvSpec, config: RunConfig) -> Iterator[Episode]:
    """The episodes of one folder, oldest first.

    Raises:
        UserError: it holds none, or such as are damaged, imagined (unless `replay.synthetic`) or of another environment.
    """
    if isinstance(folder, RemoteShards):
        return read_remote(folder, spec, config)
    for shards in (folder, folder / "replay"):
        if shard_names(shards):
            return chain.from_iterable(ShardReader(part, spec, config.replay.synthetic).episodes() for part in all_parts(shards))
    if minari_folder(folder) is not None:
        return MinariReader(folder, spec, config.env, config.replay.synthetic).episodes()
    raise UserError(
        f"pretrain.data={folder} holds no stored episodes: it has neither shard_*.h5 (its own, or in replay/) "
        "nor a Minari data set (data/main_data.hdf5)"
    )


@dataclass
class StoredData:
    """Episodes in memory, ready to be sampled.

    Attributes:
        training: what is learned from: the newest `replay.capacity` records.
        validation: what is kept out; None where nothing is.
        episodes, steps: of all that was read; `held_out` episodes of them are not learned from.
    """

    training: Replay
    validation: Replay | None
    episodes: int
    steps: int
    held_out: int


class Split:
    """Hands on the episodes to train on and keeps the others: those that a run did keep or would, and of two or more at least
    one. Of more than `most` records of them the newest episodes."""

    def __init__(self, episodes: Iterable[Episode], share: float, most: int) -> None:
        self.kept: deque[Episode] = deque()
        self.steps = self.count = self.held_out = self.records = 0
        self._most = most
        self._episodes, self._holdout = episodes, Holdout(share)

    def __iter__(self) -> Iterator[Episode]:
        waiting: Episode | None = None
        for episode in self._episodes:
            self.count += 1
            self.steps += len(episode)
            if episode.held_out or self._holdout.takes(episode.task, episode.seed, 0):
                self._keep(episode)
                continue
            if waiting is not None:
                yield waiting
            waiting = episode
        if waiting is not None and self._holdout.share > 0 and not self.kept and self.count > 1:
            self._keep(waiting)
        elif waiting is not None:
            yield waiting

    def _keep(self, episode: Episode) -> None:
        self.kept.append(episode)
        self.held_out += 1
        self.records += len(episode) + 1
        while len(self.kept) > 1 and self.records > self._most:
            self.records -= len(self.kept.popleft()) + 1


def _in_stream(episode: Episode) -> Episode:
    """As a replay of one stream takes it: what is held out has a replay of its own."""
    return replace(episode, task=STREAM, held_out=False)


def _told(episodes: Iterable[Episode], listener: Callable[[Episode], None] | None) -> Iterator[Episode]:
    for episode in episodes:
        if listener is not None:
            listener(episode)
        yield episode


def load_data(
    config: RunConfig, spec: EnvSpec, episodes: Iterable[Episode], take_in: Callable[[Episode], None] | None = None
) -> StoredData:
    """Read episodes into memory, a share of them apart; `take_in` is called with each that is learned from.

    Raises:
        UserError: too few to learn from.
    """
    length = config.train.length
    split = Split(episodes, config.train.validation, config.replay.capacity)
    training = Replay(spec, 1, config.replay.capacity, (STREAM,))
    training.load(_in_stream(episode) for episode in _told(split, take_in))
    if len(training) < length:
        raise UserError(
            f"pretrain.data={config.pretrain.data} holds {len(training)} observations to learn from, not held out, fewer than "
            f"train.length={length}: give more episodes, or a smaller train.length or train.validation"
        )
    validation = None
    if split.kept:
        validation = Replay(spec, 1, split.records, (STREAM,))
        validation.load(_in_stream(episode) for episode in split.kept)
    return StoredData(training, validation, split.count, split.steps, split.held_out)
