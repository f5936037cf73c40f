"""What tells stored episodes that were altered from those that were written."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from agent.sequences import Episode

HEADER = ("strata_format", "spec", "synthetic", "provenance", "total_episodes", "total_steps")  # of a shard's attributes


def crc32(episode: Episode) -> int:
    """Of an episode's arrays: all that shards of before had."""
    checksum = 0
    for _, values in _arrays(episode):
        checksum = zlib.crc32(values.tobytes(), checksum)
    return checksum


def sha256(episode: Episode) -> str:
    """Of an episode's arrays and of all that is said of it."""
    digest = hashlib.sha256()
    said = {
        name: getattr(episode, name) for name in ("terminated", "truncated", "task", "seed", "env_index", "end_step", "held_out")
    }
    digest.update(json.dumps(said, sort_keys=True).encode())
    return _updated(digest, _arrays(episode))


def content(episode: Episode) -> str:
    """Of what happened in an episode, whoever played it when: the same for a copy."""
    return _updated(hashlib.sha256(), (pair for pair in _arrays(episode) if pair[0] != "log_probs"))


def header(attributes: Mapping[str, Any], episodes: Iterable[str]) -> str:
    """Of a shard's attributes and of the checksums of its episodes, in their order."""
    said = {name: str(attributes[name]) for name in HEADER if name in attributes}
    return hashlib.sha256(json.dumps({**said, "episodes": list(episodes)}, sort_keys=True).encode()).hexdigest()


def _updated(digest: Any, arrays: Iterable[tuple[str, np.ndarray]]) -> str:
    for name, values in arrays:
        digest.update(f"{name} {values.dtype.str} {values.shape}".encode())
        digest.update(values.tobytes() if values.ndim == 0 else values.data if values.size else b"")
    return str(digest.hexdigest())


def _arrays(episode: Episode) -> Iterable[tuple[str, np.ndarray]]:
    for key in sorted(episode.obs):
        yield f"observations/{key}", np.ascontiguousarray(episode.obs[key])
    yield "actions", np.ascontiguousarray(episode.action)
    yield "log_probs", np.ascontiguousarray(episode.log_prob, np.float32)
    yield "rewards", np.ascontiguousarray(episode.reward, np.float32)
