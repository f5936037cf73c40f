"""Does the worker do what its manager says? `heard` is 0.5 of a worker which ignores its goals, whatever its manager asks for."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hierarchy.goal_rewards import GoalView, best, similarity
from hierarchy.hindsight import OVER, arrivals
from world_model.usage import perplexity

REACHED = 0.9  # share of the greatest similarity that a goal allows, from which it counts as reached


@dataclass
class SegmentEnds:
    """How N segments under their goals end.

    Attributes:
        index: (N,) int64, the state 1 .. K in which a segment ends: where its episode does, or the last one.
        start, end: (N,) similarity to the goal in its first state and there.
        arrived: (N,) float, 1 where it ends at least `REACHED` as like the goal as the goal's likeliest state is.
    """

    index: Tensor
    start: Tensor
    end: Tensor
    arrived: Tensor


def segment_ends(view: GoalView) -> SegmentEnds:
    """How segments end: where their episode does, which the state that they start in never does, or in their last state."""
    steps = torch.full_like(view.cont, view.cont.shape[1], dtype=torch.int64)
    index = arrivals(torch.nn.functional.pad(view.cont < OVER, (1, 0)), steps)[0][:, 0]
    like = similarity(view)
    end, likeliest = (x.gather(1, index.unsqueeze(1)).squeeze(1) for x in (like, best(view)))
    return SegmentEnds(index, like[:, 0], end, (end >= REACHED * likeliest).float())


def reach(own: SegmentEnds, weight: Tensor) -> dict[str, Tensor]:
    """How near segments come to their goals. A manager that foretells what comes anyway makes it look good: see `heard`.

    Args:
        own: N segments under their goals. weight: (N,), the chance that a segment's end is still part of the episode.

    Returns:
        `reached`, share of segments that arrive; `start`, `end`, similarity to the goal there. Means over weights; 0 where all of
        them are 0.
    """
    shown = {"reached": own.arrived, "start": own.start, "end": own.end}
    return {name: (x * weight).sum() / weight.sum().clamp(min=1e-6) for name, x in shown.items()}


def heard(own: SegmentEnds, other: SegmentEnds, weight: Tensor) -> dict[str, Tensor]:
    """Share of segments that end more like their own goal than like another that the manager might as well have chosen.

    Both goals are drawn in the same way in the same state, and the worker is told one of them. If it does not listen, the two
    could change places: where it gets to is as often more like the one as like the other, 0.5, even if all its goals come about.

    Args:
        own: N segments under their goals. other: the same segments under the goals that were drawn beside.
        weight: (N,), as for `reach`; 0 where the two goals were not drawn alike, or ask for the same.

    Returns:
        `heard`, a tie counting half, and 0.5 where all weights are 0; `told` and `untold`, the shares of the same segments that
        reach the goal that was told, and the one that was not: alike if the worker does not listen.
    """
    total = weight.sum()
    wins = (own.end > other.end).float() + 0.5 * (own.end == other.end).float()
    heard = torch.where(total > 0, (wins * weight).sum() / total.clamp(min=1e-6), 0.5)
    reached = {"told": own.arrived, "untold": other.arrived}
    return {"heard": heard} | {name: (x * weight).sum() / total.clamp(min=1e-6) for name, x in reached.items()}


def code_perplexity(codes: Tensor, classes: int, counted: Tensor | None = None) -> Tensor:
    """How many classes of each group of codes (..., M) are in use, mean over the groups: from 1 to `classes`; of all codes, or
    of those `counted` (...,) bool."""
    found = torch.nn.functional.one_hot(codes.flatten(0, -2), classes).float()  # (N, M, classes)
    counts = (found if counted is None else found * counted.flatten()[:, None, None]).sum(0)  # (M, classes)
    return perplexity(counts).mean()
