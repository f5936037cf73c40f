"""The `hierarchy` config group."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class ActorCriticConfig:
    """Actor-critic learning, shared by every policy of a hierarchy."""

    loss: str = "ppo"  # ppo | a2c, TorchRL's losses
    epochs: int = 1  # passes over one imagined batch
    minibatches: int = 4
    clip: float = 0.2
    entropy: float = 0.01
    gamma: float = 0.985
    lmbda: float = 0.95
    lr: float = 6e-4
    grad_clip: float = 10.0
    hidden: int = 256
    layers: int = 2
    symbol_width: int = 8
    unimix: float = 0.01
    min_std: float = 0.1  # Gaussian actions: bounds of the standard deviation
    max_std: float = 1.0
    target_decay: float = 0.98  # EMA critic
    return_decay: float = 0.99  # EMA of the return's 5-95 percentile range
    return_floor: float = 0.3  # smallest scale that advantages are divided by
    bins: int = 127
    bin_limit: float = 12.0


@dataclass
class HierarchyConfig:
    """How decisions are learned."""

    name: str = "flat"
    horizon: int = 12  # H, imagined steps
    starts: int = 8  # imagined rollouts started in each replayed sequence
    replay_value: float = 0.3  # weight of the value loss on replayed, real returns
    explore: float = 0.0  # weight of the ensemble's disagreement in imagined rewards (model.ensemble); 0 is off
    real: float = 0.0  # weight of the policy loss on real rollouts (Dyna); 0 is off
    planner: str = "none"  # none | actions | goals: what is planned at decision time
    candidates: int = 8  # M, candidates a decision
    plan_horizon: int = 12  # steps imagined of each
    plan_training: bool = False  # plan while training episodes are played too
    actor_critic: ActorCriticConfig = field(default_factory=ActorCriticConfig)
