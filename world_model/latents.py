"""What a latent state is made of: categorical groups, in blocks, one block a modality."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

Shown = Mapping[str, Tensor]  # by the key of a static block that may be absent: its codes (..., groups) when it was last there


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

    @cached_property
    def returning(self) -> tuple[str, ...]:
        """Keys of the static blocks that may be absent: what they said they say again once they are back."""
        return tuple(block.key for block in self.blocks if block.static and block.presence)

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

    def shown(self, z: Tensor, before: Shown) -> Shown:
        """What has been shown up to z (..., G): in it, or `before`; zeros of what was never there."""
        codes, there = self.split(z), self.present(z)
        return {key: torch.where(there[key].unsqueeze(-1), codes[key], before.get(key, codes[key])) for key in self.returning}

    def shown_along(self, z: Tensor, first: Tensor) -> Shown:
        """`shown` at each step of sequences z (B, T, G), whose episodes start where `first` (B, T) is True."""
        if not self.returning:
            return {}
        codes, there = self.split(z), self.present(z)
        step = torch.arange(z.shape[1], device=z.device)
        begun = torch.where(first, step, 0).cummax(1).values  # (B, T)
        found = {}
        for key in self.returning:
            last = torch.where(there[key], step, -1).cummax(1).values.unsqueeze(-1)  # (B, T, 1)
            known = last >= begun.unsqueeze(-1)
            found[key] = codes[key].gather(1, last.clamp(min=0).expand_as(codes[key])) * known
        return found

    def put_back(self, z: Tensor, shown: Shown) -> Tensor:
        """z (..., G) with what was `shown` in the place of codes that are hidden, for `hide` to decide anew."""
        return torch.cat([*{**self.split(z), **shown}.values()], -1) if shown else z
