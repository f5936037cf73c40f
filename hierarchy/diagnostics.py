"""Does the worker do what its manager says? `heard` is 0.5 of a worker which ignores its goals, whatever its manager asks for."""

from __future__ import annotations

import torch
from torch import Tensor

from hierarchy.goal_rewards import GoalView, best, similarity
from hierarchy.hindsight import OVER
from world_model.usage import perplexity

REACHED = 0.9  # share of the greatest similarity that a goal allows, from which it counts as reached


def reach(own: GoalView, weight: Tensor) -> dict[str, Tensor]:
    """How near segments come to their goals. A manager that foretells what comes anyway makes it look good: see `heard`.

    Args:
        own: N segments under their goals. weight: (N,), the chance that the segment's end (`ends`) is still part of the episode.

    Returns:
        `reached`: share of segments that end at least `REACHED` as like the goal as its likeliest state is; `start`, `end`:
        similarity to the goal there. Means over weights; 0 where nothing has any.
    """
    found = similarity(own)
    shown = {"reached": arrived(own), "start": found[:, 0], "end": at(found, ends(own.cont))}
    return {name: (x * weight).sum() / weight.sum().clamp(min=1e-6) for name, x in shown.items()}


def heard(own: GoalView, other: GoalView, weight: Tensor) -> dict[str, Tensor]:
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
    end, total = ends(own.cont), weight.sum()
    near, far = at(similarity(own), end), at(similarity(other), end)
    wins = (near > far).float() + 0.5 * (near == far).float()
    heard = torch.where(total > 0, (wins * weight).sum() / total.clamp(min=1e-6), 0.5)
    reached = {"told": arrived(own), "untold": arrived(other)}
    return {"heard": heard} | {name: (x * weight).sum() / total.clamp(min=1e-6) for name, x in reached.items()}


def arrived(own: GoalView) -> Tensor:
    """(N,) float, 1 where a segment ends at least `REACHED` as like its goal as the goal's likeliest state is."""
    end = ends(own.cont)
    return (at(similarity(own), end) >= REACHED * at(best(own), end)).float()


def ends(cont: Tensor) -> Tensor:
    """(N,) int64, the state 1 .. K in which a segment ends: the first one that its episode does not go on from, or the last.

    Args:
        cont: (N, K), the chance that the episode goes on from the state that each step leads to.
    """
    steps = cont.shape[1]
    over = torch.nn.functional.pad(cont < OVER, (0, 1), value=True)  # the last state ends it in any case
    return (over.int().argmax(1) + 1).clamp(max=steps)


def at(x: Tensor, index: Tensor) -> Tensor:
    """x (N, T) at `index` (N,)."""
    return x.gather(1, index.unsqueeze(1)).squeeze(1)


def code_perplexity(codes: Tensor, classes: int, counted: Tensor | None = None) -> Tensor:
    """How many classes of each group of codes (..., M) are in use, mean over the groups: from 1 to `classes`; of all codes, or
    of those `counted` (...,) bool."""
    found = torch.nn.functional.one_hot(codes.flatten(0, -2), classes).float()  # (N, M, classes)
    counts = (found if counted is None else found * counted.flatten()[:, None, None]).sum(0)  # (M, classes)
    return perplexity(counts).mean()
