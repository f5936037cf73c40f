"""The `hierarchy` config group."""

from __future__ import annotations

from dataclasses import dataclass, field

SWAPS = ("shuffled", "zeroed")  # what `eval.goals` may do to the goals


@dataclass
class ActorCriticConfig:
    """Actor-critic learning, shared by every policy of a hierarchy."""

    loss: str = "ppo"  # ppo | a2c, TorchRL's losses
    epochs: int = 1  # passes over one imagined batch
    minibatches: int = 4
    clip: float = 0.2
    entropy: float = 0.01
    entropy_target: float = 0.0  # share of the greatest entropy at which an adaptive weight holds it; 0: `entropy` is the weight
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
class GoalConfig:
    """The space goals are chosen from (`hierarchy=director`)."""

    groups: int = 8  # M, of a goal's code
    classes: int = 8  # of each group
    hidden: int = 256
    symbol_width: int = 8
    cell_width: int = 16  # of a cell's features in the decoder
    unimix: float = 0.01
    kl_target: float = 0.6  # share of the greatest KL to the uniform prior
    decay: float = 0.99  # a batch, of the counts of how usual a code is
    history: int = 0  # signs of random projections of the history that goals hold beside z
    place: float = 0.0  # weight of where on the model's maps, beside z; 0: goals hold no places


@dataclass
class ManagerConfig:
    """Who chooses the goals (`hierarchy=director`)."""

    reward: str = "sum"  # sum | mean, over the steps of a goal
    extrinsic: float = 1.0  # weights of its rewards
    novelty: float = 0.1  # 0 in director.yaml; flat configs carry this one, and records are found by it
    entropy: float = 0.01
    entropy_target: float = 0.5  # share of the greatest entropy; 0: `entropy` is the weight
    sample: bool = True  # draw goals in real episodes, too; else the likeliest ones are chosen there
    likeliest: float = 0.0  # share of the imagined rollouts under goals in which they are the likeliest ones, too
    hindsight: float = 0.0  # weight of learning to ask for what came K steps later, the more the better it turned out; 0 is off
    temperature: float = 0.5  # of "the better", in deviations of what the ways there brought
    novelty_floor: float = 0.05  # least scale of the returns of novelty and disagreement


@dataclass
class WorkerConfig:
    """Who pursues them (`hierarchy=director`)."""

    reward: str = "progress"  # one of GOAL_REWARDS
    goal: float = 1.0  # weight of the goal reward's advantage
    goal_floor: float = 0.05  # least scale of its returns
    extrinsic: float = 1.0  # weight of the extrinsic reward's advantage under a goal
    hindsight: float = 0.5  # share of the rollouts under goals whose first one is a state that came K steps later
    free: float = 0.0  # share of the starts in each sequence without goals: an explorer learns there; 0: there is none
    imitation: float = 0.0  # weight of doing what was done on the way to a goal; 0 is off


@dataclass
class HierarchyConfig:
    """How decisions are learned."""

    name: str = "flat"
    horizon: int = 12  # H, imagined steps
    starts: int = 8  # imagined rollouts started in each replayed sequence
    replay_value: float = 0.3  # weight of the value loss on replayed, real returns
    explore: float = 0.0  # weight of the ensemble's disagreement in imagined rewards (model.ensemble); 0 is off
    discovery: float = 0.05  # weight in rewards, of what grids' maps (model.maps) have not shown before; 0 is off
    real: float = 0.0  # weight of the policy loss on real rollouts (Dyna); 0 is off
    planner: str = "none"  # none | actions | goals: what is planned at decision time
    candidates: int = 8  # M, candidates a decision
    plan_horizon: int = 12  # steps imagined of each
    plan_training: bool = False  # plan while training episodes are played too
    actor_critic: ActorCriticConfig = field(default_factory=ActorCriticConfig)
    period: int = 8  # K, steps that a goal lasts
    goals: GoalConfig = field(default_factory=GoalConfig)
    manager: ManagerConfig = field(default_factory=ManagerConfig)
    worker: WorkerConfig = field(default_factory=WorkerConfig)
