"""Does the worker do what its manager says? Figures that a worker which ignores its goals cannot make look good."""

from __future__ import annotations

import torch
from torch import Tensor

from hierarchy.goal_rewards import GoalView, best, similarity
from world_model.usage import perplexity

REACHED = 0.9  # share of the greatest similarity that a goal allows, from which it counts as reached


def reach(own: GoalView, other: GoalView, weight: Tensor, comparable: Tensor | None = None) -> dict[str, Tensor]:
    """How near segments come to their goals.

    Args:
        own: N segments under their goals. other: the same segments under goals of others.
        weight: (N,), the chance that the segment's end is still part of the episode. comparable: (N,) float, 1 where the other
            goal is of the same kind, so that it may be compared with; None: everywhere.

    Returns:
        `near`: share of segments whose end is more like their own goal than like another's (a tie counts half, so that 0.5 is
        what goals unlike its start bring to a worker that does not hear them); `closer`: share that came closer to their own goal
        than to another's, which goals chosen to be like the start do not help; `reached`: share that ends at least `REACHED` as
        like the goal as its likeliest state is; `start`, `end`: similarity to the goal there.
    """
    near, far = similarity(own), similarity(other)
    both = weight if comparable is None else weight * comparable

    def mean(x: Tensor, counted: Tensor = weight) -> Tensor:
        return (x * counted).sum() / counted.sum().clamp(min=1e-6)

    def wins(a: Tensor, b: Tensor) -> Tensor:
        return mean((a > b).float() + 0.5 * (a == b).float(), both)

    return {
        "near": wins(near[:, -1], far[:, -1]),
        "closer": wins(near[:, -1] - near[:, 0], far[:, -1] - far[:, 0]),
        "reached": mean(arrived(own)),
        "start": mean(near[:, 0]),
        "end": mean(near[:, -1]),
    }


def arrived(own: GoalView) -> Tensor:
    """(N,) float, 1 where a segment ends at least `REACHED` as like its goal as the goal's likeliest state is."""
    return (similarity(own)[:, -1] >= REACHED * best(own)[:, -1]).float()


def code_perplexity(codes: Tensor, classes: int, counted: Tensor | None = None) -> Tensor:
    """How many classes of each group of codes (..., M) are in use, mean over the groups: from 1 to `classes`; of all codes, or
    of those `counted` (...,) bool."""
    found = torch.nn.functional.one_hot(codes.flatten(0, -2), classes).float()  # (N, M, classes)
    counts = (found if counted is None else found * counted.flatten()[:, None, None]).sum(0)  # (M, classes)
    return perplexity(counts).mean()
