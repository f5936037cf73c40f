"""What states are worth under one reward: a critic, the slower critic it learns from, and the scale of its returns."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from hierarchy.config import ActorCriticConfig
from hierarchy.networks import Actor, Critic, ema_update
from hierarchy.returns import ReturnScale, lambda_returns
from hierarchy.trajectory import LatentTrajectory
from world_model.latents import LatentSpec


class ValueLearner(nn.Module):
    """Two-hot critic, EMA critic and return scale for one reward."""

    def __init__(self, latents: LatentSpec, width: int, config: ActorCriticConfig, actor: Actor | None = None) -> None:
        super().__init__()
        self.config = config
        if actor is not None:  # first among the parameters
            self.actor = actor
        self.critic = Critic(latents, width, config)
        self.target = copy.deepcopy(self.critic).requires_grad_(False)
        self.scale = ReturnScale(config.return_decay, config.return_floor)

    @torch.no_grad()
    def targets(self, path: LatentTrajectory, value: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Lambda-returns and advantages (N, H), before scaling; `value` (N, H+1) is what `target` says of the path, if known."""
        if value is None:
            value = self.target(path.z, path.h)
        returns = lambda_returns(path.reward, path.cont, value, path.boundary, self.config.gamma, self.config.lmbda)
        return returns, returns - value[:, :-1]

    def critic_loss(self, path: LatentTrajectory, returns: Tensor) -> Tensor:
        """Two-hot cross-entropy to the returns, weighted by the trajectory's weights."""
        loss = self.critic.loss(path.z[:, :-1], path.h[:, :-1], returns)
        weight = path.weight[:, :-1]
        return (loss * weight).sum() / weight.sum().clamp(min=1.0)

    def after_step(self) -> None:
        """To be called after every optimiser step."""
        ema_update(self.target, self.critic, self.config.target_decay)
