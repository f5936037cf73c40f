"""Images: a grid of cells, one code each, from a codebook of what cells look like."""

from __future__ import annotations

import logging
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from envs.spaces.specs import ModalitySpec
from world_model.codebook import Codebook
from world_model.config import ModelConfig
from world_model.latents import LatentBlock
from world_model.modalities.base import Modality

log = logging.getLogger(__name__)

CHUNK = 64  # frames encoded at once: what fits into a processor's cache is encoded twice as fast


class Image(Modality):
    """(height, width, channels) pixels -> one group a cell of `image_patch` x `image_patch` pixels.

    A cell's code is made from its own pixels alone, so that what looks alike has the same code wherever it is and whatever is
    beside it: the prior learns how things move as it does for symbols, and the codes need no gradient and come to rest at once.
    """

    def __init__(self, spec: ModalitySpec, config: ModelConfig) -> None:
        super().__init__(spec, config)
        height, width, channels = spec.shape
        self.patch = config.image_patch
        self.rows, self.columns = -(-height // self.patch), -(-width // self.patch)
        self.book = Codebook(config.image_codes, self.patch**2 * channels, config.image_radius)
        classes = (config.image_codes,) * (self.rows * self.columns)
        self.block = LatentBlock(spec.key, spec.kind, classes, static=spec.static, layout=(self.rows, self.columns))

    @property
    def classes_in_use(self) -> int:
        return self.book.in_use

    @property
    def given_out(self) -> int:
        return self.book.entries

    @torch.no_grad()
    def tokenize(self, raw: NDArray[Any], grow: bool = False) -> Tensor:
        """As for any symbols; it runs on the codebook's device."""
        parts = super().tokenize(raw).reshape(-1, *self.spec.shape).split(CHUNK)
        if grow:
            before = self.book.entries
            for part in parts:
                self.book.observe(self._numbers(part))
            if before < self.book.entries == self.book.size:
                self._warn_of_full_book()
        codes = torch.cat([self.book.nearest(self._numbers(part))[0] for part in parts])
        return codes.view(*raw.shape[:-3], self.rows * self.columns)

    def pop_metrics(self) -> dict[str, float]:
        """`codes` given out; `quantisation`: root mean square difference of pixels from their codes', in grey levels of 255."""
        error = self.book.pop_error()
        return {"codes": float(self.book.entries)} | ({} if error is None else {"quantisation": 255 * error})

    def _warn_of_full_book(self) -> None:
        key, size = self.spec.key, self.book.size
        log.warning(
            "all model.image_codes=%d codes of `%s` are given out: from here on what is new takes the place of one of the two "
            "most alike. model/quantisation/%s shows how far off codes are, in grey levels of 255: where that grows, give more "
            "codes, or a smaller model.image_patch, whose cells differ less",
            size,
            key,
            key,
        )

    @torch.no_grad()
    def detokenize(self, codes: Tensor) -> NDArray[Any]:
        cells = self.book.values[codes.reshape(-1, codes.shape[-1])]  # (N, cells, pixels of a cell)
        frames = self._frames(cells).reshape(*codes.shape[:-1], *self.spec.shape)
        return (frames * 255).round().clamp(0, 255).cpu().numpy().astype(self.spec.dtype)

    def _numbers(self, frames: Tensor) -> Tensor:
        """Bytes (N, height, width, channels) -> numbers from 0 to 1, (N * cells, pixels of a cell), on the codebook's device."""
        return self._cells(frames.to(self.book.values.device)).flatten(0, 1).float().div_(255)

    def _cells(self, frames: Tensor) -> Tensor:
        """(N, height, width, channels) -> (N, cells, pixels of a cell); sizes that no cell divides are filled up with zeros."""
        height, width, channels = self.spec.shape
        below, right = self.rows * self.patch - height, self.columns * self.patch - width
        if below or right:
            frames = nn.functional.pad(frames, (0, 0, 0, right, 0, below))
        grid = frames.view(len(frames), self.rows, self.patch, self.columns, self.patch, channels).transpose(2, 3)
        return grid.reshape(len(frames), self.rows * self.columns, -1)

    def _frames(self, cells: Tensor) -> Tensor:
        """(N, cells, pixels of a cell) -> (N, height, width, channels), what was filled up cut off."""
        height, width, channels = self.spec.shape
        grid = cells.view(len(cells), self.rows, self.columns, self.patch, self.patch, channels).transpose(2, 3)
        return grid.reshape(len(cells), self.rows * self.patch, self.columns * self.patch, channels)[:, :height, :width]
