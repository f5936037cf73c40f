"""A world of two states, small enough to solve on paper, in the place of an imagination environment.

Action 1 leads from state 0 to state 1 for nothing, and from state 1 to the end of the episode for a reward of 1; action 0 stays.
So action 1 is right in both states, and with discount g state 1 is worth 1 and state 0 g.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from envs.spaces.specs import ActionSpec
from hierarchy.config import ActorCriticConfig
from hierarchy.trajectory import LatentTrajectory
from world_model.imagination import Rollout
from world_model.latents import LatentBlock, LatentSpec

LATENTS = LatentSpec((LatentBlock("state", "categorical", (2,)),))
WIDTH = 4
ACTIONS = ActionSpec("discrete", 2)


def actor_critic(**keys: Any) -> ActorCriticConfig:
    return ActorCriticConfig(**(dict(hidden=16, symbol_width=4, bins=41, bin_limit=4.0, minibatches=1, lr=1e-2) | keys))


def states(*numbers: int) -> tuple[Tensor, Tensor]:
    """z (N, 1) and an empty history (N, D)."""
    return torch.tensor(numbers).unsqueeze(-1), torch.zeros(len(numbers), WIDTH)


def nowhere(*shape: int) -> Tensor:
    """The poses (..., 0) of states that have no map."""
    return torch.zeros(*shape, 0, dtype=torch.int64)


class TwoStates:
    """`imagine` as `ImaginationEnv` has it: half of the rollouts start in each state."""

    def __init__(self, rollouts: int = 32, horizon: int = 4) -> None:
        self.rollouts, self.horizon = rollouts, horizon

    @torch.no_grad()
    def imagine(
        self, policy: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], starts: object = None, nets: object = ()
    ) -> Rollout:
        N = self.rollouts
        state, h = torch.arange(N) % 2, torch.zeros(N, WIDTH)
        zs, actions, log_probs, rewards, conts = [state], [], [], [], []
        for _ in range(self.horizon):
            action, log_prob = policy(state.unsqueeze(-1), h)
            ends = (state == 1) & (action == 1)
            rewards.append(ends.float())
            conts.append(1 - ends.float())
            state = torch.where(action == 1, 1, state)
            zs.append(state)
            actions.append(action)
            log_probs.append(log_prob)
        h = torch.zeros(N, self.horizon + 1, WIDTH)
        action, log_prob, reward, cont = (torch.stack(x, 1) for x in (actions, log_probs, rewards, conts))
        nothing = torch.zeros(N, self.horizon)
        return Rollout(torch.stack(zs, 1).unsqueeze(-1), h, action, log_prob, reward, cont, nothing, nothing)


def trajectory(
    z: list[int], action: list[int], log_prob: list[float] | None = None, reward: list[float] | None = None, **changes: Any
) -> LatentTrajectory:
    """One real trajectory of `len(action)` steps, all of them part of one episode unless `changes` say otherwise."""
    H = len(action)
    parts: dict[str, Any] = dict(
        z=torch.tensor([z]).unsqueeze(-1),
        h=torch.zeros(1, H + 1, WIDTH),
        action=torch.tensor([action]),
        log_prob=torch.tensor([log_prob or [0.0] * H]),
        reward=torch.tensor([reward or [0.0] * H]),
        cont=torch.ones(1, H),
        weight=torch.ones(1, H + 1),
        boundary=torch.zeros(1, H + 1, dtype=torch.bool),
        source="real",
    )
    return LatentTrajectory(**(parts | changes))
