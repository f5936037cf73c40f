"""Texts that stay the same over an episode, read by a pretrained encoder, and looked up in imagination."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from envs.spaces.specs import ModalitySpec
from world_model.config import ModelConfig
from world_model.latents import LatentBlock
from world_model.modalities.base import Modality
from world_model.pretrained.cache import FeatureCache
from world_model.pretrained.encoder import PretrainedEncoder
from world_model.pretrained.settings import PretrainedConfig

TEXTS = 4096  # whose features are kept
SPELLINGS = 65_536  # that are kept, to be read again when weights have changed
SHIFTS = (0, 16, 32, 48)
CLASSES = 1 << 16


class TextFeatures(Modality):
    """(max_bytes,) zero-padded UTF-8 -> four codes, the 64 bits of a hash, from which `rows` finds the encoder's features.

    The hash is of the whole text, so that texts are told apart whose words the model's table does not know. Nothing is learned
    of the codes themselves, and they are carried along unchanged: features exist wherever the state does, imagined or real.

    Frozen features are read once for every text; of an encoder that is trained once for every text of a training batch, and
    again where they are first asked for after that.
    """

    def __init__(self, spec: ModalitySpec, config: ModelConfig, key: str, settings: PretrainedConfig) -> None:
        super().__init__(spec, config)
        self.block = LatentBlock(key, "identity", (CLASSES,) * len(SHIFTS), static=True, silent=True)
        self.encoder = PretrainedEncoder(spec.key, settings, "text")
        self.cache = FeatureCache(min(TEXTS, settings.cache_mb * 2**20 // (4 * self.encoder.width)))
        self._spelling: OrderedDict[int, str] = OrderedDict()
        self._table: tuple[int, Tensor, Tensor] | None = None

    def tokenize(self, raw: NDArray[Any], grow: bool = False) -> Tensor:
        texts = np.ascontiguousarray(raw, dtype=np.uint8)
        keys = np.array([self._key(row.tobytes()) for row in texts.reshape(-1, texts.shape[-1])], np.int64)
        while len(self._spelling) > max(SPELLINGS, len(keys)):
            self._spelling.popitem(last=False)
        if not self.encoder.trained:
            self._take_in(keys.tolist())
        codes = (keys[:, None] >> np.array(SHIFTS)) & (CLASSES - 1)
        return torch.from_numpy(codes.reshape(*texts.shape[:-1], len(SHIFTS)))

    def rows(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Codes (..., 4) -> features (R, width) of some texts, and which of them is that of every code, (...,) int64.

        An absent or unknown text has zeros. With gradients, where the encoder is trained and gradients are asked for.
        """
        keys = sum((codes[..., i] << shift for i, shift in enumerate(SHIFTS)), torch.zeros_like(codes[..., 0]))
        if self.encoder.trained:
            found = keys.unique()
            if torch.is_grad_enabled():
                self.cache.clear()  # the weights are about to change
                return self._read(found.tolist()), torch.searchsorted(found, keys)
            self._take_in(found.tolist())
        known, features = self._sorted(keys.device)
        place = torch.searchsorted(known, keys).clamp(max=len(known) - 1)
        return features, torch.where(known[place] == keys, place, len(known))

    def _take_in(self, keys: list[int]) -> None:
        self.cache.take_in(keys, lambda places: self._read([keys[place] for place in places]))

    def _read(self, keys: list[int]) -> Tensor:
        """(N, width), zeros for keys of no text."""
        features = self.encoder([self._spelling.get(key, "") for key in keys])
        there = torch.tensor([key in self._spelling for key in keys], device=features.device)
        return features * there.unsqueeze(-1)

    def _sorted(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """All keys there are, ascending (K,), at least one, and their features (K + 1, width), the last ones zeros."""
        if self._table is None or self._table[0] != self.cache.changes or self._table[1].device != device:
            keys = self.cache.sorted_keys()
            nothing = torch.zeros(1 if keys else 2, self.encoder.width, device=device)
            features = torch.cat([self.cache.rows(keys).to(device), nothing]) if keys else nothing
            self._table = (self.cache.changes, torch.tensor(keys or [0], device=device), features)
        return self._table[1:]

    def _key(self, data: bytes) -> int:
        text = data.rstrip(b"\0")
        key = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little", signed=True)
        if key in self._spelling:
            self._spelling.move_to_end(key)
        else:
            self._spelling[key] = text.decode("utf-8", "replace")
        return key

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        if self.encoder.trained:
            self.cache.clear()
