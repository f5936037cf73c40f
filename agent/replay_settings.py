"""The `replay` keys of the config: what makes sense, and the writer that they ask for."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.config import ReplayConfig, RunConfig
from agent.processes import Processes
from agent.provenance import provenance
from agent.remote import RemoteShards
from agent.shard_file import COMPRESSIONS
from agent.shards import ShardWriter
from envs.errors import UserError
from envs.spaces.specs import EnvSpec

log = logging.getLogger(__name__)


def check_replay(replay: ReplayConfig) -> None:
    """Refuse what would end a run in the middle.

    Raises:
        UserError: numbers out of range, shares of more than all, a compression that HDF5 does not have of its own.
    """
    shares = {name: getattr(replay, name) for name in ("recent", "rewarded", "history")}
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise UserError(f"replay.{name}={share} is a share: give 0 to 1")
    if replay.history and sum(shares.values()) > 1:
        given = ", ".join(f"replay.{name}={share}" for name, share in shares.items())
        raise UserError(f"{given} are shares of the same sequences and more than all of them: lower one")
    for name, lowest in (("cache", 0), ("prefetch", 0), ("episodes_per_shard", 1)):
        if getattr(replay, name) < lowest:
            raise UserError(f"replay.{name}={getattr(replay, name)} is too few: give {lowest} or more")
    if replay.compression not in COMPRESSIONS:
        raise UserError(f"replay.compression={replay.compression} is unknown; choose one of {', '.join(COMPRESSIONS)}")


def remote_shards(config: RunConfig, part: str = ".") -> RemoteShards | None:
    """The remote folder that a run's shards are copied to, or the `part` of it that is one process's; None where `replay.remote`
    names none.

    Raises:
        UserError: it cannot be reached.
    """
    remote = config.replay.remote
    if not remote:
        return None
    return RemoteShards(remote if part == "." else f"{remote.rstrip('/')}/{part}")


def check_new(config: RunConfig, writer: ShardWriter) -> None:
    """Refuse a new run that would write among the shards of another.

    Raises:
        UserError: the remote folder holds shards.
    """
    if config.replay.remote and writer.names:
        raise UserError(f"replay.remote={config.replay.remote} holds shards already: give a new folder, or resume their run")


def send_left(config: RunConfig, writer: ShardWriter, processes: Processes) -> None:
    """Try once more, when a run ends, to send what waits for that, and warn of what still does. All processes do so together."""
    why, left = "", 0
    if writer.remote is not None:
        try:
            writer.remote.send_rest()
        except UserError as error:
            why, left = str(error), writer.remote.unsent
    reasons = processes.gather((why, left))
    number = sum(count for _, count in reasons)
    if number:
        log.warning(
            "replay.remote=%s: %d shards could not be sent and are in the run folder alone, as %s; resume= sends them",
            config.replay.remote, number, next(reason for reason, count in reasons if count),
        )  # fmt: skip


def make_writer(
    config: RunConfig, folder: Path, spec: EnvSpec, synthetic: Mapping[str, Any] | None = None, part: str = "."
) -> ShardWriter:
    """What writes a run's finished episodes, or with `synthetic`, which says where they come from, imagined ones."""
    source = "real" if synthetic is None else "synthetic"
    replay = config.replay
    return ShardWriter(
        folder, spec, replay.episodes_per_shard, synthetic, replay.compression, provenance(config, source),
        None if synthetic is not None else remote_shards(config, part),
    )  # fmt: skip
