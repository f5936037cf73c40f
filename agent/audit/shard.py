"""One shard looked through to its end: what it holds, and everything that is wrong with it, not the first thing alone."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from agent import checksums
from agent.sequences import Episode
from agent.shard_file import FORMAT, check_sums, read_episode
from envs.spaces.specs import EnvSpec

UNREADABLE = (OSError, RuntimeError, KeyError, TypeError, ValueError, MemoryError)


@dataclass(frozen=True)
class Start:
    """How an episode began: where it is stored, its task and seed, and its first observation."""

    where: str
    task: str
    seed: int
    obs: dict[str, np.ndarray]


@dataclass
class ShardAudit:
    """What a shard holds.

    Attributes:
        name: of its file.
        size: bytes on disk.
        sums: by what its episodes are protected: `sha256`, `crc32` or `none`.
        source: `real` or `synthetic`.
        provenance: as it says itself; empty for shards of before.
        spec: of its environment; None where it cannot be read.
        returns: of its sound episodes.
        tasks: episodes of each.
        steps, held_out: of its sound episodes.
        compression: of its observations.
        identities: episode -> checksum of all of it, and of what happened in it.
        starts: of its sound episodes that are learned from.
        faults: what is wrong with it, a sentence each.
    """

    name: str
    size: int
    sums: str = "none"
    source: str = "real"
    provenance: dict[str, Any] = field(default_factory=dict)
    spec: EnvSpec | None = None
    returns: list[float] = field(default_factory=list)
    tasks: Counter[str] = field(default_factory=Counter)
    steps: int = 0
    held_out: int = 0
    compression: str = "none"
    identities: dict[str, tuple[str, str]] = field(default_factory=dict)
    starts: list[Start] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def audit_shard(path: Path) -> ShardAudit:
    """Look through a shard; whatever is wrong with it is among its `faults`, nothing is raised."""
    audit = ShardAudit(path.name, path.stat().st_size)
    try:
        with h5py.File(path, "r") as file:
            _audit_header(file, audit)
            if audit.spec is not None:
                _audit_episodes(file, audit, audit.spec)
    except UNREADABLE as error:
        audit.faults.append(f"{path.name} is unreadable ({_said(error)})")
    return audit


def _audit_header(file: h5py.File, audit: ShardAudit) -> None:
    found = file.attrs.get("strata_format")
    if found != FORMAT:
        audit.faults.append(f"{audit.name} is of format {found}, this version reads {FORMAT}")
        return
    audit.spec = EnvSpec.from_dict(json.loads(str(file.attrs["spec"])))
    audit.source = "synthetic" if "synthetic" in file.attrs else "real"
    if "provenance" in file.attrs:
        told = json.loads(str(file.attrs["provenance"]))
        if not isinstance(told, dict):
            raise ValueError("its provenance is no JSON object")
        audit.provenance = told
        if told.get("source", audit.source) != audit.source:
            audit.faults.append(f"{audit.name} says of itself that it is {told['source']}, and is marked as {audit.source}")


def _audit_episodes(file: h5py.File, audit: ShardAudit, spec: EnvSpec) -> None:
    announced = int(file.attrs["total_episodes"])
    if len(file) != announced:
        audit.faults.append(f"{audit.name} holds {len(file)} groups and announces {announced} episodes")
    steps = 0
    for index in range(min(announced, len(file))):
        try:
            episode = read_episode(file, index, spec)
        except UNREADABLE as error:
            audit.faults.append(f"{audit.name}: {_said(error)}")
            continue
        steps += len(episode)
        _count(audit, episode, f"{audit.name}/episode_{index}")
        dataset = next(iter(file[f"episode_{index}/observations"].values()))
        audit.compression = dataset.compression or "none"
    if steps != int(file.attrs["total_steps"]) and not audit.faults:
        audit.faults.append(f"{audit.name} holds {steps} steps and announces {int(file.attrs['total_steps'])}")
    try:
        audit.sums = check_sums(file, announced)
    except UNREADABLE as error:
        audit.faults.append(f"{audit.name}: {_said(error)}")


def _count(audit: ShardAudit, episode: Episode, where: str) -> None:
    audit.returns.append(float(episode.reward.sum(dtype=np.float64)))
    audit.tasks[episode.task] += 1
    audit.steps += len(episode)
    audit.held_out += episode.held_out
    audit.identities[where] = checksums.sha256(episode), checksums.content(episode)
    if not episode.held_out:
        first = {key: values[0].copy() for key, values in episode.obs.items()}
        audit.starts.append(Start(where, episode.task, episode.seed, first))


def _said(error: Exception) -> str:
    return str(error.args[0] if isinstance(error, KeyError) and error.args else error)
