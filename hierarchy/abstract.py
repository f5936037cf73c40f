"""One imagined rollout, seen by two levels: segments of K steps for the worker, one step per segment for the manager."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from hierarchy.trajectory import LatentTrajectory


def split(x: Tensor, period: int) -> Tensor:
    """Per-step values (N, H, ...) -> (N * S, K, ...), the S = H / K segments of a rollout one after the other."""
    _segments(x.shape[1], period)
    return x.unflatten(1, (-1, period)).flatten(0, 1)


def split_states(x: Tensor, period: int) -> Tensor:
    """Values of states (N, H + 1, ...) -> (N * S, K + 1, ...): the last state of a segment is the first of the next."""
    count = _segments(x.shape[1] - 1, period)
    pieces = [x[:, s * period : (s + 1) * period + 1] for s in range(count)]
    return torch.stack(pieces, 1).flatten(0, 1)


def split_trajectory(path: LatentTrajectory, period: int) -> LatentTrajectory:
    """The worker's view: N trajectories of H steps -> N * H / K of K steps, each under one goal.

    A segment's weights are those of the whole rollout: what lies behind a predicted end counts as little as before it was cut
    (Director weighs every segment from 1 on).

    Raises:
        ValueError: if H is no multiple of K.
    """
    return replace(
        path,
        z=split_states(path.z, period),
        h=split_states(path.h, period),
        action=split(path.action, period),
        log_prob=split(path.log_prob, period),
        reward=split(path.reward, period),
        cont=split(path.cont, period),
        weight=split_states(path.weight, period),
        boundary=split_states(path.boundary, period),
    )


def segment_reward(reward: Tensor, cont: Tensor, period: int, gamma: float, kind: str) -> Tensor:
    """Rewards of steps (N, H) -> rewards of segments (N, S), each step weighed by the chance to get there within its segment.

    Args:
        cont: (N, H), probability that the step does not end the episode.
        kind: `sum`: discounted, so that the manager values what a flat policy values, with a discount of gamma ** K a step;
            `mean`: undiscounted mean over the K steps, as Director has it.
    """
    r, c = split(reward, period), split(cont, period)  # (N * S, K)
    arrived = torch.cat([torch.ones_like(c[:, :1]), c[:, :-1].cumprod(1)], 1)  # the step is still taken
    if kind == "mean":
        total = (arrived * r).mean(1)
    else:
        total = (arrived * r * gamma ** torch.arange(period, device=r.device)).sum(1)
    return total.view(len(reward), -1)


def abstract_trajectory(
    path: LatentTrajectory, goal: Tensor, log_prob: Tensor, period: int, gamma: float, kind: str = "sum"
) -> LatentTrajectory:
    """The manager's view: N trajectories of H steps -> N of S = H / K steps, whose actions are goals.

    Args:
        path: one imagined rollout, states (N, H + 1).
        goal: (N, S, M) codes chosen at steps 0, K, 2K, ...; log_prob: (N, S), of choosing them.
        period, gamma, kind: see `segment_reward`.

    Returns:
        States at 0, K, .., H; a step goes on if all of its K steps do.

    Raises:
        ValueError: if H is no multiple of K.
    """
    cont = split(path.cont, period).prod(1).view(len(path.cont), -1)  # (N, S)
    return replace(
        path,
        z=path.z[:, ::period],
        h=path.h[:, ::period],
        action=goal,
        log_prob=log_prob,
        reward=segment_reward(path.reward, path.cont, period, gamma, kind),
        cont=cont,
        weight=path.weight[:, ::period],
        boundary=path.boundary[:, ::period],
    )


def _segments(steps: int, period: int) -> int:
    if steps % period:
        raise ValueError(f"{steps} steps cannot be cut into segments of {period}")
    return steps // period
