"""Curricula under one protocol, `experiment=compare_curricula`, in three parts, with its report in docs/results/curricula.

    python -m benchmarks.curricula [--only doorkey director box] [--curricula uniform ...] [--seeds 1 2] [--report] [overrides...]

- `doorkey`: schedulers on DoorKey 5x5, 6x6 and 8x8, evaluated on 16x16 too, with the default agent; and PPO under the sequential
  curriculum, model-free, for scale. Five seeds.
- `director`: `reachability` needs goals, so it is compared with `uniform` under `hierarchy=director`. Five seeds.
- `box`: schedulers on a continuous box of tasks, rooms by density of obstacles and size (`env=obstacles`). Three seeds.

Runs go seed by seed, so that whatever has finished is a comparison over that many seeds. The report is made from the records
alone; `--report` makes it anew from what is among them, without a run. Words that start with `peer.` are PPO's.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.curricula_records import figures_of
from benchmarks.curricula_report import QUICK_REPORT, REPORT, show, write_reports
from benchmarks.harness import Benchmark, Context, Options, Run
from benchmarks.peer_config import PeerConfig
from benchmarks.peer_ppo import peer_config
from benchmarks.settings import with_overrides
from benchmarks.store import Record, Results
from benchmarks.training import composed_config, run_process, train_run
from envs.errors import UserError

NAME = "curricula"
# Without the burn-in that came later: all curricula of a part are to be of the same agent.
PROTOCOL = ("experiment=compare_curricula", "train.burn_in=0", "logger=none", "dream.film=false")
# Of the director the settings that it had in commit 30b20f3: both of its curricula are to be run from one commit, that one.
DIRECTOR = (
    "env=doorkey",
    "hierarchy=director",
    "hierarchy.horizon=12",
    "hierarchy.manager.novelty=0.1",
    "hierarchy.starts=10",
    "hierarchy.worker.extrinsic=1.0",
    "hierarchy.worker.free=0.5",
    "hierarchy.worker.imitation=0.1",
)
PPO = "ppo"
SEEDS = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class Part:
    """A comparison of its own.

    Attributes:
        overrides: of every run, after those of the protocol.
        curricula: the schedulers; `ppo` is the model-free row.
        seeds: how many, where the command line names none.
        quick: which of the schedulers a quick run takes.
    """

    overrides: tuple[str, ...]
    curricula: tuple[str, ...]
    seeds: int
    quick: tuple[str, ...]


PARTS: dict[str, Part] = {
    "doorkey": Part(
        ("env=doorkey",),
        ("uniform", "target_only", "sequential", "learning_progress", "model_progress", "imagined_success", PPO),
        5,
        ("uniform", "imagined_success", PPO),
    ),
    "director": Part(DIRECTOR, ("uniform", "reachability"), 5, ("reachability",)),
    "box": Part(
        ("env=obstacles", "eval.also=[density0.35_size14]", "train.env_steps=30000"),
        ("uniform", "expanding_range", "adr", "alp_gmm"),
        3,
        ("uniform", "alp_gmm"),
    ),
}
QUICK = (
    "model=debug",
    "train.env_steps=768",
    "train.random_steps=496",
    "train.warmup_updates=2",
    "train.update_every_first=64",
    "train.update_every=64",
    "train.log_every=64",
    "curriculum.imagined_success.every=1",
    "curriculum.imagined_success.horizon=8",
    "env.max_episode_steps=24",
    "eval.every=384",
    "eval.every_episodes=2",
    "eval.episodes=2",
    "eval.max_episode_steps=24",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    known = dict.fromkeys(name for part in PARTS.values() for name in part.curricula)
    parser.add_argument("--only", nargs="+", choices=tuple(PARTS), help="these parts alone")
    parser.add_argument("--curricula", nargs="+", choices=tuple(known), help="these schedulers alone")
    parser.add_argument("--report", action="store_true", help="no run: the report from what is among the results")
    parser.add_argument("--out", type=Path, help="folder of the report; default: docs/results/curricula")


def plan(options: Options) -> list[Run]:
    """Seed by seed, so that after each there is a whole comparison."""
    ours = [word for word in options.overrides if not word.startswith("peer.")]
    peers = [word.removeprefix("peer.") for word in options.overrides if word.startswith("peer.")]
    makers: dict[tuple[str, str], Callable[[int], Run]] = {}
    for name in options.arguments.get("only") or PARTS:
        part = PARTS[name]
        wanted = options.arguments.get("curricula") or (part.quick if options.quick else part.curricula)
        common = [*PROTOCOL, *part.overrides, *(QUICK if options.quick else ()), *ours]
        for curriculum in part.curricula:
            if curriculum == PPO and curriculum in wanted:
                makers[name, PPO] = _ppo(name, common, peers, needed=not options.arguments.get("report"))
            elif curriculum in wanted:
                makers[name, curriculum] = _ours(name, curriculum, common)
    if not makers:
        raise UserError("no part that --only leaves has a curriculum of --curricula.")
    runs = [make(seed) for seed in options.seeds for (name, _), make in makers.items() if seed in _seeds(PARTS[name], options)]
    return _on_record(runs, options) if options.arguments.get("report") else runs


def _seeds(part: Part, options: Options) -> Sequence[int]:
    """Those of the command line; the default ones are more than a part may need."""
    return options.seeds[: part.seeds] if options.seeds == SEEDS else options.seeds


def _ours(part: str, curriculum: str, common: Sequence[str]) -> Callable[[int], Run]:
    overrides = [*common, f"curriculum={curriculum}"]
    config = composed_config(overrides)

    def execute(seed: int, context: Context) -> dict[str, Any]:
        train_run([*overrides, f"seed={seed}"], context.folder, context.threads, context.report, context.stop)
        return {"part": part, **figures_of(context.folder)}

    steps = int(config["train"]["env_steps"])
    return lambda seed: Run(f"{part}_{curriculum}", seed, config, partial(execute, seed), steps, resumes=True)


def _ppo(part: str, common: Sequence[str], peers: Sequence[str], needed: bool) -> Callable[[int], Run]:
    """PPO under the sequential curriculum: as many env steps, evaluated when and where ours is.

    Raises:
        UserError: a bad override, or Stable-Baselines3 is not installed.
    """
    if needed:
        peer_config((), False)  # refuses where it is not installed
    config = with_overrides(under_protocol(composed_config(common)), peers, "peer")

    def execute(seed: int, context: Context) -> dict[str, Any]:
        given = json.dumps({"config": asdict(config), "seed": seed, "folder": str(context.folder)})
        command = [sys.executable, "-m", "benchmarks.peer_training", given]
        run_process(command, context.folder, context.threads, context.report, context.stop)
        return {"part": part, **figures_of(context.folder)}

    return lambda seed: Run(f"{part}_{PPO}", seed, asdict(config), partial(execute, seed), config.max_env_steps, threads=1)


def under_protocol(config: Mapping[str, Any]) -> PeerConfig:
    """PPO's settings for the tasks, budget and evaluations of a composed config of ours."""
    env, train, evaluation = config["env"], config["train"], config["eval"]
    return replace(
        PeerConfig(),
        suite=env["suite"],
        tasks=tuple(env["tasks"]),
        success=env["success"],
        max_env_steps=train["env_steps"],
        threshold=train["mastery"],
        advance_window=config["curriculum"]["window"],
        revisit=config["curriculum"]["revisit"],
        stop_at_mastery=train["stop_at_mastery"],
        split=evaluation["split"],
        eval_episodes=evaluation["episodes"],
        eval_every=evaluation["every"],
        eval_every_episodes=evaluation["every_episodes"],
        eval_also=tuple(evaluation["also"]),
        eval_seed=evaluation["seed"],
        eval_envs=evaluation["num_envs"] or env["num_envs"],
        eval_max_steps=evaluation["max_episode_steps"],
    )


def _on_record(runs: Sequence[Run], options: Options) -> list[Run]:
    results = Results(options.results, NAME)
    found = [run for run in runs if results.find(run.variant, run.seed, run.config, options.overrides) is not None]
    if lacking := [f"{run.variant} {run.seed}" for run in runs if run not in found]:
        print(f"Not on record with the present settings, so not in the report: {', '.join(lacking)}.", file=sys.stderr)
    return found


def summarise(options: Options, records: list[Record]) -> dict[str, Any]:
    """Writes the report, too."""
    folder = options.arguments.get("out") or (QUICK_REPORT if options.quick else REPORT)
    failed = {f"{record['variant']} seed {record['seed']}": record["error"] for record in records if record["error"] is not None}
    return {"failed": failed, "parts": write_reports([r for r in records if r["error"] is None], tuple(PARTS), folder)}


BENCHMARK = Benchmark(
    NAME,
    "Curricula under one protocol, on DoorKey and on a box of tasks, as a finished report.",
    plan,
    summarise,
    show,
    seeds=SEEDS,
    add_arguments=add_arguments,
)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main())
