"""The settings of the peer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.settings import with_overrides


@dataclass(frozen=True)
class PeerConfig:
    """PPO (Schulman et al. 2017) with settings tuned on seeds 101 and up for the fewest steps to the last task."""

    suite: str = "doorkey"
    tasks: tuple[str, ...] = ("DoorKey-5x5", "DoorKey-6x6", "DoorKey-8x8")
    success: str = "positive_reward"
    max_env_steps: int = 1_000_000
    threshold: float = 0.9
    window: int = 100  # episodes of the criterion
    advance_window: int = 100  # episodes that the curriculum moves on by
    revisit: float = 0.2  # share of episodes on passed tasks
    num_envs: int = 8
    n_steps: int = 64
    batch_size: int = 256
    n_epochs: int = 8
    learning_rate: float = 1e-3
    ent_coef: float = 0.01
    gamma: float = 0.99
    gae_lambda: float = 0.95
    clip_range: float = 0.2
    vf_coef: float = 0.5
    max_grad_norm: float = 0.5
    hidden: tuple[int, ...] = (64, 64)  # of the policy and of the value network
    activation: str = "Tanh"  # a module of torch.nn
    stop_at_mastery: bool = True  # end as soon as the last task is mastered
    split: str = "test"  # layouts it is evaluated on: `validation` while tuning
    eval_episodes: int = 100
    eval_every: int = 0  # env steps between evaluations on the way; 0: none
    eval_every_episodes: int = 20
    eval_also: tuple[str, ...] = ()  # tasks that are evaluated and never trained on
    eval_seed: int = -1  # which of the held-out layouts; -1: the run's seed decides
    eval_envs: int = 0  # environments side by side in an evaluation; 0: num_envs
    eval_max_steps: int = 30_000  # after which an episode of an evaluation is cut off

    @classmethod
    def parse(cls, overrides: Sequence[str]) -> PeerConfig:
        """The defaults with `key=value` overrides.

        Raises:
            UserError: an unknown key or a value of another type.
        """
        return with_overrides(cls(), overrides, "peer")
