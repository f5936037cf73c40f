"""A policy that is paid in several currencies: one actor, one critic per reward, advantages scaled apart and then weighed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from envs.spaces.specs import ActionSpec
from hierarchy.actor_critic import ActorCritic
from hierarchy.base import Learning
from hierarchy.config import ActorCriticConfig
from hierarchy.returns import weighted_mean
from hierarchy.trajectory import LatentTrajectory
from hierarchy.values import ValueLearner
from world_model.latents import LatentSpec


@dataclass
class Assessment:
    """What one reward says of N trajectories of H steps: returns, and advantages in units of its own scale, (N, H) each."""

    returns: Tensor
    advantage: Tensor


@dataclass
class Replayed:
    """Real trajectories (N', T) with returns (N', T), which the critic of the first reward learns from too, so much."""

    path: LatentTrajectory
    returns: Tensor
    weight: float


class MixedPolicy(nn.Module):
    """An actor, and a critic with its scale for every reward.

    Args:
        floors: the rewards by name, each with the least scale that its advantages are divided by.
        ordered: the choices of an action know those before them (`hierarchy.ordered`).
    """

    def __init__(
        self,
        latents: LatentSpec,
        width: int,
        actions: ActionSpec,
        config: ActorCriticConfig,
        floors: Mapping[str, float],
        ordered: bool = False,
    ) -> None:
        super().__init__()
        self.rewards = tuple(floors)
        first, *others = floors
        self.policy = ActorCritic(latents, width, actions, replace(config, return_floor=floors[first]), ordered)
        self.critics = nn.ModuleDict(
            {name: ValueLearner(latents, width, replace(config, return_floor=floors[name])) for name in others}
        )

    def learner(self, reward: str) -> ValueLearner:
        """The critic of one reward."""
        if reward == self.rewards[0]:
            return self.policy
        found = self.critics[reward]
        assert isinstance(found, ValueLearner)
        return found

    def assess(self, reward: str, path: LatentTrajectory, value: Tensor | None = None) -> Assessment:
        """Returns and scaled advantages of a path that holds this reward; its scale takes them in. `value`: see `targets`."""
        learner = self.learner(reward)
        returns, advantage = learner.targets(path, value)
        learner.scale.update(returns)
        return Assessment(returns, advantage / learner.scale())

    def mix(self, assessed: Mapping[str, Assessment], weights: Mapping[str, float]) -> Tensor:
        """The advantage (N, H) that the actor learns from."""
        return torch.stack([weights[name] * found.advantage for name, found in assessed.items()]).sum(0)

    def shares(self, assessed: Mapping[str, Assessment], weights: Mapping[str, float], counts: Tensor) -> dict[str, Tensor]:
        """`return_share/REWARD` and `advantage_share/REWARD`: how much of what is learned from is each reward's, by size.

        Both are of weighed values in units of the rewards' scales; shares of advantages say what decides between actions.
        `counts` (N, H): how much each action is learned from.
        """
        found: dict[str, Tensor] = {}
        scaled = {
            "return": {n: weights[n] * a.returns / self.learner(n).scale() for n, a in assessed.items()},
            "advantage": {n: weights[n] * a.advantage for n, a in assessed.items()},
        }
        sizes = {kind: {n: weighted_mean(x.abs(), counts) for n, x in each.items()} for kind, each in scaled.items()}
        for kind, size in sizes.items():
            total = torch.stack(list(size.values())).sum().clamp(min=1e-8)
            found |= {f"{kind}_share/{name}": value / total for name, value in size.items()}
        return found

    def learn(
        self,
        path: LatentTrajectory,
        assessed: Mapping[str, Assessment],
        weights: Mapping[str, float],
        prefix: str,
        replayed: Replayed | None = None,
        own: Tensor | None = None,
    ) -> Iterator[Learning]:
        """Minibatches of the policy's loss and of every critic's, named with `prefix`.

        `own` (N, H): the actions that were drawn from the policy, which learns from these alone.
        """
        config = self.policy.config
        advantage = self.mix(assessed, weights)
        learned = path if own is None else path.only(own)
        figures = self.shares(assessed, weights, learned.weight[:, :-1])
        figures |= {f"scale/{name}": self.learner(name).scale() for name in assessed}
        if self.policy.entropy_weight is not None:
            figures["entropy_weight"] = self.policy.entropy_weight()
        for _ in range(config.epochs):
            parts = _minibatches(len(advantage), config.minibatches, advantage.device)
            again = _minibatches(len(replayed.returns), len(parts), advantage.device, len(parts)) if replayed else None
            for i, rows in enumerate(parts):
                part = path.rows(rows)
                loss, metrics = self.policy.policy_loss(learned.rows(rows), advantage[rows])
                for name, found in assessed.items():
                    critic = self.learner(name).critic_loss(part, found.returns[rows])
                    metrics[f"critic/{name}"] = critic.detach()
                    loss = loss + critic
                if replayed is not None and again is not None and replayed.weight:
                    old = self.policy.critic_loss(replayed.path.rows(again[i]), replayed.returns[again[i]])
                    loss = loss + replayed.weight * old
                yield Learning(loss, {f"{prefix}/{name}": value for name, value in (metrics | figures).items()}, self.after_step)

    def after_step(self) -> None:
        """To be called after every optimiser step."""
        for name in self.rewards:
            self.learner(name).after_step()


def _minibatches(n: int, count: int, device: torch.device, exactly: int = 0) -> list[Tensor]:
    """A shuffled split of n rows into `count` parts, fewer where there are fewer rows, unless it is to be `exactly` so many."""
    return list(torch.randperm(n, device=device).tensor_split(exactly or min(count, n)))
