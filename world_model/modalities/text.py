"""Text: one code a word, from a table of the distinct words seen."""

from __future__ import annotations

import logging
import re
from typing import Any
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from envs.spaces.specs import ModalitySpec
from world_model.config import ModelConfig
from world_model.latents import LatentBlock
from world_model.modalities.base import Modality
from world_model.symbols import SymbolTable

log = logging.getLogger(__name__)

CACHED_TEXTS = 4096
LONGEST = 128  # bytes of a word that is saved with the table
# Scripts that put no spaces between words: ideographs, kana.
UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
# Punctuation; within a word, hyphens, apostrophes and underscores belong to it.
MARKS = r"!-&(-,./:-@\[-^`{-~\u2010-\u2027\u3000-\u303f\uff00-\uff0f"
WORD = re.compile(rf"[{UNSPACED}]|[^\s\d{UNSPACED}{MARKS}'_-][^\s{UNSPACED}{MARKS}]*|\S")


def split_words(text: str) -> list[str]:
    """The words of a text, in lower case; each digit of a number, punctuation and ideographs are words of their own."""
    return WORD.findall(text.lower())


class Text(Modality):
    """(max_bytes,) zero-padded UTF-8 -> `text_words` groups; words past the last group are dropped, which is said once.

    The table keeps each word's CRC-32, so any charset works; the spelling, which `detokenize` asks for, is saved beside it.
    """

    spelling: Tensor
    has_unknown = True

    def __init__(self, spec: ModalitySpec, config: ModelConfig) -> None:
        super().__init__(spec, config)
        self.words = config.text_words
        self.table = SymbolTable(config.text_table_size, 1, f"observation `{spec.key}`", "model.text_table_size")
        self.block = LatentBlock(spec.key, spec.kind, (config.text_table_size,) * self.words, static=spec.static)
        self.register_buffer("spelling", torch.zeros(config.text_table_size, LONGEST, dtype=torch.uint8))  # as of the last saving
        self._hashes: dict[bytes, NDArray[np.int64]] = {}
        self._spelling: dict[int, str] = {}
        self._told = False

    def tokenize(self, raw: NDArray[Any], grow: bool = False) -> Tensor:
        texts = np.ascontiguousarray(raw, dtype=np.uint8)
        rows = texts.reshape(-1, texts.shape[-1])
        hashes = np.stack([self._hash(row.tobytes()) for row in rows])  # (N, words)
        codes = self.table.lookup(hashes[..., None], grow)
        return torch.from_numpy(codes.reshape(*texts.shape[:-1], self.words))

    def detokenize(self, codes: Tensor) -> NDArray[Any]:
        hashes = self.table.symbols(codes.cpu().numpy())[..., 0]  # (..., words)
        flat = hashes.reshape(-1, self.words)
        rows = np.zeros((len(flat), *self.spec.shape), np.uint8)
        for row, text in zip(rows, flat, strict=True):
            words = [self._spelling.get(int(word), "?") for word in text if word != 0]
            data = " ".join(words).encode()[: row.size]
            row[: len(data)] = np.frombuffer(data, np.uint8)
        return rows.reshape(*codes.shape[:-1], *self.spec.shape)

    def _hash(self, data: bytes) -> NDArray[np.int64]:
        """Word hashes of one padded text; 0 stands for 'no word here'."""
        known = self._hashes.get(data)
        if known is not None:
            return known
        hashes = np.zeros(self.words, np.int64)
        words = split_words(data.rstrip(b"\0").decode("utf-8", "replace"))
        if len(words) > self.words and not self._told:
            self._told = True
            log.warning(
                "texts of `%s` have %d words and more: those past model.text_words=%d are not read",
                self.spec.key,
                len(words),
                self.words,
            )
        for index, word in enumerate(words[: self.words]):
            hashes[index] = self._spell(word)
        if len(self._hashes) >= CACHED_TEXTS:
            self._hashes.clear()
        self._hashes[data] = hashes
        return hashes

    def _spell(self, word: str) -> int:
        """The hash of a word, by which its spelling is found from now on."""
        found = crc32(word.encode()) + 1
        self._spelling[found] = word
        return found

    def _save_to_state_dict(self, *args: Any, **kwargs: Any) -> None:
        words = [self._spelling.get(found, "").encode() for found in self.table.values[:, 0].tolist()]
        rows = b"".join((word if len(word) <= LONGEST else b"").ljust(LONGEST, b"\0") for word in words)
        self.spelling.copy_(torch.frombuffer(bytearray(rows), dtype=torch.uint8).view_as(self.spelling))
        super()._save_to_state_dict(*args, **kwargs)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        state_dict.setdefault(f"{prefix}spelling", self.spelling)  # checkpoints of earlier versions have none
        super()._load_from_state_dict(state_dict, prefix, *args)
        for row in self.spelling.cpu().numpy():
            word = row.tobytes().rstrip(b"\0").decode("utf-8", "ignore")
            if split_words(word) == [word]:
                self._spell(word)
