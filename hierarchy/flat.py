"""The flat policy: one actor-critic that learns its actions in imagination. The baseline every hierarchy is measured against."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from envs.spaces.specs import ActionSpec
from hierarchy.actor_critic import ActorCritic
from hierarchy.base import Hierarchy, Learning, PolicyState
from hierarchy.config import HierarchyConfig
from hierarchy.returns import weighted_mean
from hierarchy.trajectory import LatentTrajectory
from world_model.imagination import ImaginationEnv, Rollout
from world_model.latents import LatentSpec
from world_model.starts import Starts


def imagined_trajectory(rollout: Rollout, explore: float = 0.0, discovery: float = 0.0) -> LatentTrajectory:
    """An imagined rollout, each state weighted by the probability that the episode is still going on there.

    With `explore` the disagreement of the model's ensemble counts as reward, so many times, with `discovery` what is news.
    """
    alive = torch.cat([torch.ones_like(rollout.cont[:, :1]), rollout.cont.cumprod(1)], 1)  # (N, H+1)
    nowhere = torch.zeros(alive.shape, dtype=torch.bool, device=alive.device)
    return LatentTrajectory(
        z=rollout.z,
        h=rollout.h,
        action=rollout.action,
        log_prob=rollout.log_prob,
        reward=rollout.reward + explore * rollout.disagreement + discovery * rollout.discovered,
        cont=rollout.cont,
        weight=alive,
        boundary=nowhere,
        source="imagined",
    )


class FlatPolicy(Hierarchy):
    """Actor and critic over (z_t, h_{t-1})."""

    def __init__(self, latents: LatentSpec, width: int, actions: ActionSpec, config: HierarchyConfig) -> None:
        super().__init__()
        self.config, self.explores = config, config.explore
        self.policy = ActorCritic(latents, width, actions, config.actor_critic)

    def initial_state(self, batch: int) -> PolicyState:
        return {}

    def act(
        self, z: Tensor, h: Tensor, state: PolicyState, first: Tensor, greedy: bool = False
    ) -> tuple[Tensor, Tensor, PolicyState]:
        action, log_prob = self.policy.act(z, h, greedy)
        return action, log_prob, state

    def value(self, z: Tensor, h: Tensor) -> Tensor:
        return self.policy.critic(z, h)

    def learn(self, env: ImaginationEnv, starts: Starts, real: LatentTrajectory) -> Iterator[Learning]:
        config = self.config
        rollout = env.imagine(self.policy.act, starts, [self.policy.actor])
        path = imagined_trajectory(rollout, config.explore, config.discovery)
        figures = {}
        for name, share, found in (
            ("explored", config.explore, rollout.disagreement),
            ("discovered", config.discovery, rollout.discovered),
        ):
            if share:
                figures[name] = share * weighted_mean(found, path.weight[:, :-1])
        for learning in self.teach(path, real):
            learning.metrics |= figures
            yield learning

    def teach(self, path: LatentTrajectory, real: LatentTrajectory) -> Iterator[Learning]:
        """What is to be learned from imagined rollouts of its own, and from replay."""
        config = self.config
        returns, advantage = self.policy.targets(path)
        self.policy.scale.update(returns)
        advantage = advantage / self.policy.scale()
        real_returns, real_advantage = self.policy.targets(real)
        real_advantage = real_advantage / self.policy.scale()
        metrics = {
            "imagined_return": weighted_mean(returns, path.weight[:, :-1]),
            "real_return": weighted_mean(real_returns, real.weight[:, :-1]),
            "return_scale": self.policy.scale(),
            "advantage_std": advantage.std(),
        }
        if self.policy.entropy_weight is not None:
            metrics["entropy_weight"] = self.policy.entropy_weight()
        count = config.actor_critic.minibatches
        for _ in range(config.actor_critic.epochs):
            order = torch.randperm(len(returns), device=returns.device).tensor_split(min(count, len(returns)))
            real_order = torch.randperm(len(real_returns), device=returns.device).tensor_split(len(order))
            for rows, real_rows in zip(order, real_order, strict=True):
                part, real_part = path.rows(rows), real.rows(real_rows)
                loss, policy_metrics = self.policy.policy_loss(part, advantage[rows])
                critic = self.policy.critic_loss(part, returns[rows])
                loss = loss + critic
                if config.replay_value:
                    loss = loss + config.replay_value * self.policy.critic_loss(real_part, real_returns[real_rows])
                if config.real and len(real_rows):  # fewer sequences than minibatches leave some without
                    loss = loss + config.real * self.policy.policy_loss(real_part, real_advantage[real_rows])[0]
                yield Learning(loss, {"critic": critic.detach(), **policy_metrics} | metrics, self.policy.after_step)
