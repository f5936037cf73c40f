"""The flat policy: one actor-critic that learns its actions in imagination. The baseline every hierarchy is measured against."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from hierarchy.actor_critic import ActorCritic
from hierarchy.base import Hierarchy, Learning, PolicyState
from hierarchy.config import HierarchyConfig
from hierarchy.trajectory import LatentTrajectory
from world_model.imagination import ImaginationEnv, Rollout, Starts
from world_model.latents import LatentSpec


def imagined_trajectory(rollout: Rollout) -> LatentTrajectory:
    """An imagined rollout, each state weighted by the probability that the episode is still going on there."""
    alive = torch.cat([torch.ones_like(rollout.cont[:, :1]), rollout.cont.cumprod(1)], 1)  # (N, H+1)
    nowhere = torch.zeros(alive.shape, dtype=torch.bool, device=alive.device)
    return LatentTrajectory(
        z=rollout.z,
        h=rollout.h,
        action=rollout.action,
        log_prob=rollout.log_prob,
        reward=rollout.reward,
        cont=rollout.cont,
        weight=alive,
        boundary=nowhere,
        source="imagined",
    )


class FlatPolicy(Hierarchy):
    """Actor and critic over (z_t, h_{t-1})."""

    def __init__(self, latents: LatentSpec, width: int, actions: int, config: HierarchyConfig) -> None:
        super().__init__()
        self.config = config
        self.policy = ActorCritic(latents, width, actions, config.actor_critic)

    def initial_state(self, batch: int) -> PolicyState:
        return {}

    def act(self, z: Tensor, h: Tensor, state: PolicyState, first: Tensor, greedy: bool = False) -> tuple[Tensor, Tensor, PolicyState]:
        action, log_prob = self.policy.act(z, h, greedy)
        return action, log_prob, state

    def learn(self, env: ImaginationEnv, starts: Starts, real: LatentTrajectory) -> Iterator[Learning]:
        config = self.config
        path = imagined_trajectory(env.imagine(self.policy.act, starts))
        returns, advantage = self.policy.targets(path)
        self.policy.scale.update(returns)
        advantage = advantage / self.policy.scale()
        real_returns, real_advantage = self.policy.targets(real)
        real_advantage = real_advantage / self.policy.scale()
        for _ in range(config.actor_critic.epochs):
            loss, entropy = self.policy.policy_loss(path, advantage)
            critic = self.policy.critic_loss(path, returns)
            loss = loss + critic
            if config.replay_value:
                loss = loss + config.replay_value * self.policy.critic_loss(real, real_returns)
            if config.real:
                loss = loss + config.real * self.policy.policy_loss(real, real_advantage)[0]
            metrics = {
                "critic": critic.item(),
                "entropy": entropy["entropy"].item(),
                "imagined_return": returns.mean().item(),
                "real_return": ((real_returns * real.weight[:, :-1]).sum() / real.weight[:, :-1].sum()).item(),
                "return_scale": self.policy.scale().item(),
                "advantage_std": advantage.std().item(),
            }
            yield Learning(loss, metrics, self.policy.after_step)
