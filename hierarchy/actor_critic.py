"""One actor and its critic, learning from latent trajectories through TorchRL's losses."""

from __future__ import annotations

import math

import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import Tensor, nn
from torchrl.modules import ProbabilisticActor
from torchrl.objectives import A2CLoss, ClipPPOLoss

from envs.errors import UserError
from envs.spaces.specs import ActionSpec
from hierarchy.adaptive import AdaptiveScale
from hierarchy.config import ActorCriticConfig
from hierarchy.networks import Actor
from hierarchy.trajectory import LatentTrajectory
from hierarchy.values import ValueLearner
from world_model.latents import LatentSpec


class ActorCritic(ValueLearner):
    """Policy, two-hot critic, EMA critic and return scale. Owns no optimiser: `losses` answers what to minimise."""

    def __init__(
        self, latents: LatentSpec, width: int, actions: ActionSpec, config: ActorCriticConfig, ordered: bool = False
    ) -> None:
        super().__init__(latents, width, config, Actor(latents, width, actions, config, ordered))
        self.entropy_weight = None
        if config.entropy_target:
            self.entropy_weight = AdaptiveScale(config.entropy_target * greatest_entropy(actions), config.entropy, below=True)
        self._loss = [self._make_loss()]  # in a list: it holds the same actor, which must not count as a second child

    def _make_loss(self) -> nn.Module:
        policy = ProbabilisticActor(
            TensorDictModule(self.actor, in_keys=["z", "h"], out_keys=["params"]),
            in_keys=["params"],
            distribution_class=self.actor.head.distribution,
            return_log_prob=True,
        )
        common = {
            "entropy_coeff": self.config.entropy if self.entropy_weight is None else 1.0,
            "critic_coeff": None,
            "functional": False,
            "reduction": "none",
        }
        if self.config.loss == "ppo":
            return ClipPPOLoss(policy, None, clip_epsilon=self.config.clip, **common)
        if self.config.loss == "a2c":
            value = TensorDictModule(self.critic, in_keys=["z", "h"], out_keys=["state_value"])  # asked for, but not used
            return A2CLoss(policy, value, **common)
        raise UserError(f"hierarchy.actor_critic.loss must be ppo or a2c, not '{self.config.loss}'")

    @torch.no_grad()
    def act(self, z: Tensor, h: Tensor, greedy: bool = False) -> tuple[Tensor, Tensor]:
        """z (N, G), h (N, V) -> action (N, *action shape), its log-probability (N,)."""
        return self.actor.head.draw(self.actor(z, h), greedy)

    def log_prob(self, z: Tensor, h: Tensor, action: Tensor) -> Tensor:
        """Log-probability (N,) of actions (N, *action shape) in states z (N, G), h (N, V)."""
        found: Tensor = self.actor.head.distribution(self.actor(z, h)).log_prob(action)
        return found

    def imitation_loss(self, z: Tensor, h: Tensor, action: Tensor, weight: Tensor) -> Tensor:
        """Cross-entropy (in nats) to actions (N, *action shape) taken in z (N, G), h (N, V), each with its weight (N,)."""
        return -(weight * self.log_prob(z, h, action)).sum() / weight.sum().clamp(min=1e-6)

    def policy_loss(self, path: LatentTrajectory, advantage: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """TorchRL's objective with entropy bonus, weighted by the trajectory's weights."""
        n = path.log_prob.numel()
        batch = TensorDict(
            {
                "z": path.z[:, :-1].flatten(0, 1),
                "h": path.h[:, :-1].flatten(0, 1),
                "action": path.action.flatten(0, 1),
                "action_log_prob": path.log_prob.flatten(),
                "advantage": advantage.reshape(n, 1),
            },
            [n],
        )
        out = self._loss[0](batch)
        weight = path.weight[:, :-1].flatten()
        total = weight.sum().clamp(min=1.0)
        objective = (out["loss_objective"].reshape(-1) * weight).sum() / total
        bonus = out.get("loss_entropy", torch.zeros_like(weight))  # left out where its weight is zero
        entropy = (bonus.reshape(-1) * weight).sum() / total
        if self.entropy_weight is not None:
            self.entropy_weight.update(-entropy.detach())
            entropy = self.entropy_weight() * entropy
        metrics = {name: out[name] for name in ("entropy", "kl_approx", "clip_fraction") if name in out.keys()}  # noqa: SIM118
        return objective + entropy, metrics


def greatest_entropy(actions: ActionSpec) -> float:
    """Of a distribution over actions that are choices, in nats.

    Raises:
        UserError: they are numbers.
    """
    if actions.kind == "box":
        raise UserError(
            "hierarchy.actor_critic.entropy_target is for actions that are choices; set it to 0 where they are numbers"
        )
    return math.log(actions.size) if actions.kind == "discrete" else sum(map(math.log, actions.classes))
