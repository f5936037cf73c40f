"""What a latent state is made of: categorical groups, in blocks, one block a modality."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor


@dataclass(frozen=True)
class LatentBlock:
    """The latent groups of one modality.

    Attributes:
        key: the modality's key.
        kind: the modality's kind (grid, text, ...).
        classes: number of classes of each group (ragged).
        learned: codes come from a learned encoder; else the symbols themselves are the codes.
        ordered: classes are evenly spaced levels of a number from -1 to 1, so that neighbours are alike.
        static: constant over an episode: carried along, never predicted.
        layout: grids and images: (rows, columns) of cells, else ().
        silent: nothing is learned of the codes themselves: they only name what is looked up.
        presence: key of the block whose one code is 1 where this one is there and 0 where it is absent; "" if it always is.
        mapped: the model keeps a map of what its views show (`world_model.mapping`).
    """

    key: str
    kind: str
    classes: tuple[int, ...]
    learned: bool = False
    ordered: bool = False
    static: bool = False
    layout: tuple[int, ...] = ()
    silent: bool = False
    presence: str = ""
    mapped: bool = False

    @property
    def groups(self) -> int:
        return len(self.classes)

    @property
    def max_classes(self) -> int:
        return max(self.classes)

    @property
    def shared(self) -> bool:
        """All groups draw from one table of symbols, so that one embedding serves them all."""
        return self.kind in ("grid", "text", "image") and not self.learned


def module_name(key: str) -> str:
    """A modality's key as the name of a submodule: no dots, another for every key, and clear of what modules call their own."""
    return "on_" + key.replace("%", "%25").replace("/", "%2F").replace(".", "/")


def code_levels(codes: Tensor, classes: int) -> Tensor:
    """The numbers from -1 to 1 that the codes 0 .. classes - 1 of an ordered block stand for."""
    return codes.float() * (2 / (classes - 1)) - 1


@dataclass(frozen=True)
class LatentSpec:
    """All blocks of a latent state z, an int64 tensor (..., G) of class indices, blocks one after the other."""

    blocks: tuple[LatentBlock, ...]

    @property
    def groups(self) -> int:
        return sum(block.groups for block in self.blocks)

    @cached_property
    def slices(self) -> dict[str, slice]:
        """Where each block's groups lie in z."""
        start, slices = 0, {}
        for block in self.blocks:
            slices[block.key] = slice(start, start + block.groups)
            start += block.groups
        return slices

    @cached_property
    def presence(self) -> dict[str, int]:
        """Where in z the code lies that says whether a block is there, of the blocks that may be absent."""
        return {block.key: self.slices[block.presence].start for block in self.blocks if block.presence}

    def split(self, z: Tensor) -> dict[str, Tensor]:
        """z (..., G) -> {key: (..., groups of that block)}."""
        return dict(zip(self.slices, z.split([block.groups for block in self.blocks], -1), strict=True))

    def present(self, z: Tensor) -> dict[str, Tensor]:
        """z (..., G) -> {key: (...,) bool}, of the blocks that may be absent."""
        return {key: z[..., index] > 0 for key, index in self.presence.items()}

    def hide(self, z: Tensor, hidden: dict[str, Tensor] | None = None) -> Tensor:
        """z (..., G) with all codes of absent blocks 0. The blocks `hidden` {key: (...,) bool} become absent."""
        if not self.presence:
            return z
        z = z.clone()
        for key, gone in (hidden or {}).items():
            z[..., self.presence[key]] *= ~gone
        for key, index in self.presence.items():
            z[..., self.slices[key]] *= z[..., index, None]
        return z
