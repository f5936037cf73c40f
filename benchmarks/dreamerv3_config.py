"""The settings of DreamerV3 (Hafner et al. 2025), and how sheeprl is told of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ENVIRONMENT = "benchmarks.dreamerv3_env.PeerEnv"
OBSERVATION = "symbols"  # key of the one vector that is observed


@dataclass(frozen=True)
class DreamerV3Config:
    """sheeprl's DreamerV3 with the defaults of its authors, in the size nearest ours; nothing is tuned."""

    suite: str = "doorkey"
    task: str = "DoorKey-5x5"
    success: str = "positive_reward"
    max_env_steps: int = 20_000
    threshold: float = 0.9
    window: int = 100  # episodes of the criterion
    experiment: str = "dreamer_v3_5"  # of sheeprl: dreamer_v3_5 (the paper in Nature) or dreamer_v3 (the preprint of 2023)
    size: str = "1M"  # a preset of that experiment
    num_envs: int = 4
    batch: int = 16  # sequences per update
    length: int = 32  # steps per sequence
    replay_ratio: float = 0.0625  # updates per env step
    learning_starts: int = 1024  # env steps before the first update
    sheeprl: tuple[str, ...] = ()  # further Hydra overrides of sheeprl's own
    split: str = "test"  # layouts it is evaluated on
    eval_episodes: int = 100
    log_every: int = 500  # env steps


def sheeprl_overrides(config: DreamerV3Config, seed: int, folder: Path) -> list[str]:
    """The Hydra overrides that make sheeprl train as `config` says, with its own records below `folder`."""
    quoted = str(folder).replace("\\", "\\\\").replace("'", "\\'")
    return [
        f"exp={config.experiment}",
        f"algo={config.experiment}_{config.size}",
        f"seed={seed}",
        # The environment: ours, all in one process.
        "env=default",
        f"env.id={config.task}",
        f"env.wrapper={{_target_:{ENVIRONMENT},suite:{config.suite},task:{config.task}}}",
        f"env.num_envs={config.num_envs}",
        "env.sync_env=True",
        "env.capture_video=False",
        "algo.cnn_keys.encoder=[]",
        "algo.cnn_keys.decoder=[]",
        f"algo.mlp_keys.encoder=[{OBSERVATION}]",
        # The schedule.
        f"algo.total_steps={config.max_env_steps}",
        f"algo.learning_starts={config.learning_starts}",
        f"algo.replay_ratio={config.replay_ratio}",
        f"algo.per_rank_batch_size={config.batch}",
        f"algo.per_rank_sequence_length={config.length}",
        f"buffer.size={max(2 * config.max_env_steps, 10_000)}",  # the whole run: last observations take places too
        # Nothing is kept or watched but what the benchmark measures.
        "algo.run_test=False",
        "buffer.memmap=False",
        "buffer.checkpoint=False",
        "checkpoint.every=0",
        "checkpoint.save_last=False",
        "metric.log_level=0",
        f"log_root='{quoted}'",
        *config.sheeprl,
    ]
