"""Observations as one flat vector, as the peers get them: without loss on grids, with words hashed."""

from __future__ import annotations

import zlib

import numpy as np

from envs.spaces.specs import EnvSpec, ModalitySpec

GRID_CLASSES = (11, 6, 4)  # MiniGrid's objects, colours and states, one more state than its doors use
WORD_BUCKETS = 64


class Encoder:
    """Observations as one float32 vector: symbols one-hot, vectors as they are, text as a hashed bag of words."""

    def __init__(self, spec: EnvSpec) -> None:
        self._leaves = spec.observations
        self.size = sum(_width(leaf) for leaf in self._leaves)

    def __call__(self, obs: dict[str, np.ndarray]) -> np.ndarray:
        """`{modality key: (N, *shape)}` -> (N, size)."""
        parts = [_encode(leaf, obs[leaf.key]) for leaf in self._leaves]
        return np.concatenate(parts, axis=1, dtype=np.float32)


def _width(leaf: ModalitySpec) -> int:
    if leaf.kind == "grid":
        return leaf.shape[0] * leaf.shape[1] * sum(GRID_CLASSES)
    if leaf.kind == "categorical":
        return sum(leaf.classes)
    if leaf.kind == "text":
        return WORD_BUCKETS
    return int(np.prod(leaf.shape))


def _encode(leaf: ModalitySpec, values: np.ndarray) -> np.ndarray:
    N = len(values)
    if leaf.kind == "grid":  # (N, rows, columns, channels)
        hot = [np.eye(n, dtype=np.float32)[values[..., channel]] for channel, n in enumerate(GRID_CLASSES)]
        return np.concatenate(hot, axis=-1).reshape(N, -1)
    if leaf.kind == "categorical":  # (N, elements)
        return np.concatenate([np.eye(n, dtype=np.float32)[values[:, i]] for i, n in enumerate(leaf.classes)], axis=1)
    if leaf.kind == "text":  # (N, max_bytes)
        return np.stack([bag_of_words(row.tobytes()) for row in values])
    return values.reshape(N, -1)


def bag_of_words(text: bytes) -> np.ndarray:
    """Which words a zero-padded text holds: (WORD_BUCKETS,), each word hashed to an entry."""
    bag = np.zeros(WORD_BUCKETS, np.float32)
    for word in text.rstrip(b"\0").split():
        bag[zlib.crc32(word) % WORD_BUCKETS] = 1.0
    return bag
