"""A goal, and what goals speak of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from world_model.latents import LatentBlock, LatentSpec

MEMORY = "~memory"  # key of the block that holds the projected history
PLACE = "~place/"  # of the keys of blocks that hold where on a map
NO_GOAL = -1  # in every group of a code: no goal is given


@dataclass
class Goal:
    """Decoded goals of any batch shape (...).

    Attributes:
        code: (..., M) int64, what was chosen; `NO_GOAL` where there is none.
        probability: (..., G, C), of every group.
        groups: (..., G) int64, the likeliest code of every group; 0 where its modality is absent.
        there: (..., G) bool, whether the group's modality is present in the goal.
        anchor: (..., P) int64, the poses on maps that the goal's places are seen from: where it was chosen.
    """

    code: Tensor
    probability: Tensor
    groups: Tensor
    there: Tensor
    anchor: Tensor

    def map(self, change: Callable[[Tensor], Tensor]) -> Goal:
        """The same change made to every part."""
        return Goal(*(change(x) for x in (self.code, self.probability, self.groups, self.there, self.anchor)))

    @classmethod
    def stack(cls, goals: Sequence[Goal]) -> Goal:
        """Goals (N,) that follow each other -> (N, S)."""
        parts = [(goal.code, goal.probability, goal.groups, goal.there, goal.anchor) for goal in goals]
        return cls(*(torch.stack(x, 1) for x in zip(*parts, strict=True)))

    def at(self, part: slice) -> Goal:
        """Goals (N, S) -> those at `part` of S."""
        return self.map(lambda x: x[:, part])

    def rows(self) -> Goal:
        """Goals (N, S) -> (N * S,)."""
        return self.map(lambda x: x.flatten(0, 1))

    def each(self) -> Goal:
        """Goals (N,) -> (N, 1), for all steps of a segment."""
        return self.map(lambda x: x.unsqueeze(1))

    def differs(self, other: Goal) -> Tensor:
        """(...,) bool, whether both ask for different states, the likeliest ones; codes may be many for the same."""
        return (self.groups != other.groups).any(-1) | (self.there != other.there).any(-1)


def goal_blocks(latents: LatentSpec, history: int, reach: int) -> tuple[LatentBlock, ...]:
    """What a goal can speak of: blocks that change within an episode, `history` signs of the projected history, and with `reach`
    where on the maps: quarter turns, rows and columns, up to so many on either side."""
    kept = [block for block in latents.blocks if not block.static and not block.silent]
    keys = {block.key for block in kept}
    blocks = [block if block.presence in keys else replace(block, presence="") for block in kept]
    memory = [LatentBlock(MEMORY, "categorical", (2,) * history)] if history else []
    sides = (4, 2 * reach + 1, 2 * reach + 1)
    places = [LatentBlock(PLACE + block.key, "categorical", sides) for block in kept if block.mapped] if reach else []
    return (*blocks, *memory, *places)
