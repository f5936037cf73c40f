"""A folder of shards looked through: what its shards have in common, and what they must not have."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.audit.shard import ShardAudit, audit_shard
from agent.shards import NAME, shard_names
from envs.errors import UserError

RANK = re.compile(r"rank_\d+")


@dataclass
class FolderAudit:
    """What a folder holds.

    Attributes:
        folder: which.
        shards: in their order.
        faults: what is wrong, a sentence each.
        notes: what is worth knowing and not wrong, a sentence each.
    """

    folder: Path
    shards: list[ShardAudit]
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def told(self, name: str) -> list[Any]:
        """What the shards' provenance says under a name, each answer once."""
        answers = [shard.provenance.get(name) for shard in self.shards if shard.provenance]
        return [answer for index, answer in enumerate(answers) if answer is not None and answer not in answers[:index]]


def find_folders(given: list[str]) -> list[Path]:
    """The folders with shards in or below those given.

    Raises:
        UserError: one does not exist, or holds none.
    """
    found: list[Path] = []
    for name in given:
        folder = Path(name)
        if not folder.is_dir():
            raise UserError(f"audit.data={name} does not exist: give a run folder, a folder of shards, or one that holds such")
        below = sorted({path.parent for path in folder.rglob("*shard_*.h5*") if path.is_file()})
        if not below:
            raise UserError(f"audit.data={name} holds no stored episodes: there is no shard_*.h5 in or below it")
        found += [path for path in below if path not in found]
    return found


def audit_folder(folder: Path, seen: Callable[[], None] = lambda: None) -> FolderAudit:
    """Look through a folder's shards; `seen` is called after each."""
    audit = FolderAudit(folder, [])
    for name in shard_names(folder):
        audit.shards.append(audit_shard(folder / name))
        seen()
    for shard in audit.shards:
        audit.faults += shard.faults
    _audit_files(audit)
    _audit_mixture(audit)
    _audit_doubles(audit)
    _audit_age(audit)
    return audit


def _audit_files(audit: FolderAudit) -> None:
    """Files that are no shards, and shards that are gone."""
    for path in sorted(audit.folder.iterdir()):
        if path.name.endswith(".orphan") and ".tmp" not in path.suffixes:
            audit.notes.append(f"{path.name} was written after the checkpoint that a run went on from: nothing reads it")
        elif path.name.lstrip(".").startswith("shard_") and ".tmp" in path.suffixes:
            audit.notes.append(f"{path.name} was left by a writer that was killed: nothing reads it")
        elif path.name.lstrip(".").startswith("shard_") and path.name.endswith(".h5.fetched"):
            audit.notes.append(f"{path.name} is half of a copy from a remote folder that was broken off: nothing reads it")
        elif path.is_dir() and (RANK.fullmatch(path.name) or shard_names(path)):
            continue  # of another process of the same run: looked through by itself, if there is anything in it
        elif not path.is_file() or not NAME.fullmatch(path.name):
            audit.faults.append(f"{path.name} is no shard: it does not belong here")
    names = [shard.name for shard in audit.shards]
    numbers = {int(match[1]) for name in names if (match := NAME.fullmatch(name))}
    gone = [f"shard_{number:06d}.h5" for number in range(max(numbers, default=0)) if number not in numbers]
    if gone:
        audit.faults.append(f"{gone[0]} is missing" + (f", and {len(gone) - 1} more are" if len(gone) > 1 else ""))


def _audit_mixture(audit: FolderAudit) -> None:
    """Episodes that must not be learned from together without somebody's knowing."""
    sources = Counter(shard.source for shard in audit.shards)
    if len(sources) > 1:
        names = [shard.name for shard in audit.shards if shard.source == "synthetic"]
        audit.faults.append(f"{names[0]} is synthetic among real ones" + (f", as are {len(names) - 1} more" * (len(names) > 1)))
    specs = [shard for shard in audit.shards if shard.spec is not None]
    other = next((shard for shard in specs if shard.spec.unnamed() != specs[0].spec.unnamed()), None)  # type: ignore[union-attr]
    if other is not None:
        audit.faults.append(f"{other.name} is of another environment than {specs[0].name}: it observes or does other things")
    environments = audit.told("environment")
    if len(environments) > 1:
        audit.faults.append(f"environments are mixed: {', '.join(map(str, environments))}")
    for name, what in (("licence", "licences"), ("versions", "versions of libraries"), ("seed", "seeds")):
        if len(audit.told(name)) > 1:
            audit.notes.append(f"the shards are of different {what}")


def _audit_doubles(audit: FolderAudit) -> None:
    """The same episode twice: the same in all that is said of it is a copy, the same in what happened may be chance."""
    copies: dict[str, str] = {}
    alike: Counter[str] = Counter()
    for shard in audit.shards:
        for where, (identity, content) in shard.identities.items():
            if identity in copies:
                audit.faults.append(f"{where} is a copy of {copies[identity]}")
            copies.setdefault(identity, where)
            alike[content] += 1
    chance = sum(alike.values()) - len(alike) - (sum(len(shard.identities) for shard in audit.shards) - len(copies))
    if chance:
        audit.notes.append(f"{chance} episodes went exactly as another one did, which few layouts or an exact policy may do")


def _audit_age(audit: FolderAudit) -> None:
    """Shards that an earlier version wrote."""
    sound = [shard for shard in audit.shards if not shard.faults]
    bare = [shard.name for shard in sound if shard.sums == "none"]
    if bare:
        audit.notes.append(f"{len(bare)} shards, {bare[0]} first, have no checksums: whether they were altered cannot be told")
    weak = [shard.name for shard in sound if shard.sums == "crc32"]
    if weak:
        audit.notes.append(f"{len(weak)} shards, {weak[0]} first, are of an earlier version: checksums of their arrays alone")
    silent = [shard.name for shard in sound if not shard.provenance]
    if silent:
        audit.notes.append(f"{len(silent)} shards, {silent[0]} first, do not say where they come from")
