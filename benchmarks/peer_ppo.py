"""The honest model-free peer: Stable-Baselines3's PPO under the same sequential curriculum.

    python -m benchmarks.peer_ppo [--seeds 1 2 3] [--quick] [--jobs N] [key=value of PeerConfig...]

Same tasks, layouts, observations and criterion as ours, and every environment step on every task is charged. It stops when the
last task's training success reaches the threshold and is then evaluated on held-out layouts.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.util import find_spec
from typing import Any

from rich.console import Group

from benchmarks.figures import learner_figures, learners_table
from benchmarks.harness import Benchmark, Context, Options, Run
from benchmarks.peer_config import PeerConfig
from benchmarks.store import Record
from benchmarks.training import run_process
from envs.errors import UserError


def peer_config(overrides: Sequence[str], quick: bool) -> PeerConfig:
    """The peer's settings as a command line asks for them.

    Raises:
        UserError: a bad override, or Stable-Baselines3 is not installed.
    """
    if find_spec("stable_baselines3") is None:
        raise UserError("the peer needs stable-baselines3; install the bench extra: pip install -e '.[bench]'")
    config = PeerConfig.parse(overrides)
    return replace(config, max_env_steps=min(config.max_env_steps, 6_000), eval_episodes=10) if quick else config


def peer_run(config: PeerConfig, seed: int, variant: str = "peer") -> Run:
    """The peer as a run of a benchmark, in a process of its own."""

    def execute(context: Context) -> dict[str, Any]:
        given = json.dumps({"config": asdict(config), "seed": seed, "folder": str(context.folder)})
        command = [sys.executable, "-m", "benchmarks.peer_training", given]
        summary = run_process(command, context.folder, context.threads, context.report, context.stop)
        return {**summary, "reached": summary["steps_to_threshold"][config.tasks[-1]]}

    return Run(variant, seed, asdict(config), execute, config.max_env_steps, threads=1)


def plan(options: Options) -> list[Run]:
    config = peer_config(options.overrides, options.quick)
    return [peer_run(config, seed) for seed in options.seeds]


def summarise(options: Options, records: list[Record]) -> dict[str, Any]:
    tasks = peer_config(options.overrides, options.quick).tasks
    return {"tasks": list(tasks), "peer": learner_figures(records, tasks[-1])}


def show(result: dict[str, Any]) -> Group:
    return learners_table("PPO under the sequential curriculum", {"peer": result["peer"]}, result["tasks"])


BENCHMARK = Benchmark("peer_ppo", "PPO under the sequential curriculum, the model-free peer.", plan, summarise, show)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main())
