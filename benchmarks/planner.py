"""What planning at decision time buys: held-out success of one trained agent with 0, 8 and 32 candidates, and what each costs.

    python -m benchmarks.planner [--runs FOLDER ...] [--task NAME] [--planner actions|goals] [--seeds 1 2 3] [--quick] [...]

The default recipe is trained for a few thousand env steps, and every checkpoint on the way is measured: once a task is mastered
there is nothing left to plan for. All candidates play the same held-out layouts with the same weights, so env steps are equal.
With `--runs` nothing is trained: all checkpoints of these run folders are measured, or the one that is named.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table

from agent.checkpoint import load_meta, resolve
from benchmarks.harness import Benchmark, Context, Options, Run
from benchmarks.store import Record
from benchmarks.training import composed_config, run_process, train_run
from envs.errors import UserError

TASK = "DoorKey-6x6"
CANDIDATES = (0, 8, 32)  # 0: the policy alone
TRAINED, GIVEN = "trained", "given"
TRAINING = (
    "train.env_steps=6000",
    "train.checkpoint_every=2000",
    "train.keep_checkpoints=3",
    "train.stop_at_mastery=false",
    "eval.episodes=1",
    "eval.video=false",
    "eval.calibration=0",
    "dream.film=false",
)
QUICK = (
    "model=debug",
    "logger=none",
    "train.env_steps=600",
    "train.checkpoint_every=600",
    "train.random_steps=512",
    "train.warmup_updates=2",
    "train.update_every_first=128",
    "train.update_every=128",
    "env.max_episode_steps=20",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--runs", nargs="+", default=[], metavar="FOLDER", help="measure these runs in place of new ones")
    parser.add_argument("--task", default=TASK, help=f"that is played; default: {TASK}")
    parser.add_argument("--planner", choices=("actions", "goals"), default="actions", help="what is planned; default: actions")
    parser.add_argument("--horizon", type=int, default=12, help="steps imagined of each candidate; default: 12")


def plan(options: Options) -> list[Run]:
    """One run a seed, or one a given folder.

    Raises:
        UserError: a folder without a whole checkpoint, or a horizon of no steps.
    """
    asked = options.arguments
    settings: dict[str, Any] = {
        "task": asked.get("task") or TASK,
        "planner": asked.get("planner") or "actions",
        "horizon": int(asked.get("horizon", 12)),
        "candidates": [0, 2, 3] if options.quick else list(CANDIDATES),
        "episodes": 2 if options.quick else 100,
        "calls": 3 if options.quick else 50,
    }
    if settings["horizon"] < 1:
        raise UserError(f"--horizon {settings['horizon']} is too short: give 1 or more.")
    folders = [Path(folder).resolve() for folder in asked.get("runs") or []]
    if folders:
        return [_given_run(folder, settings) for folder in folders]
    overrides = [*TRAINING, *(QUICK if options.quick else ()), *options.overrides]
    config = {"train": composed_config(overrides), "measure": settings}
    return [_trained_run(overrides, seed, config, settings) for seed in options.seeds]


def _trained_run(overrides: Sequence[str], seed: int, config: Mapping[str, Any], settings: Mapping[str, Any]) -> Run:
    def execute(context: Context) -> dict[str, Any]:
        train_run([*overrides, f"seed={seed}"], context.folder, context.threads, context.report, context.stop)
        return _measure(checkpoints_of(context.folder), settings, seed, context)

    return Run(TRAINED, seed, config, execute, int(config["train"]["train"]["env_steps"]))


def _given_run(folder: Path, settings: Mapping[str, Any]) -> Run:
    paths = checkpoints_of(folder)
    meta = load_meta(paths[-1])
    seed = int(meta["config"]["seed"])
    steps = [load_meta(path)["env_steps"] for path in paths]
    config = {"run": meta["config"], "env_steps": steps, "measure": settings}
    return Run(GIVEN, seed, config, lambda context: _measure(paths, settings, seed, context))


def checkpoints_of(folder: Path) -> list[Path]:
    """All checkpoints of a run folder, earliest first; the one that is named, if it is one.

    Raises:
        UserError: there is none.
    """
    found = sorted(path for path in (folder / "checkpoints").glob("step_*") if re.fullmatch(r"step_\d+", path.name))
    return [resolve(path) for path in found or [folder]]


def _measure(paths: Sequence[Path], settings: Mapping[str, Any], seed: int, context: Context) -> dict[str, Any]:
    out = context.folder.with_name(f"{context.folder.name}_measured")
    asked = {**settings, "checkpoints": [str(path) for path in paths], "folder": str(out), "seed": seed}
    command = [sys.executable, "-m", "benchmarks.planner_measure", json.dumps({**asked, "threads": context.threads})]
    figures = run_process(command, out, context.threads, None, context.stop)
    return {**figures, "reached": None}


def wilson(successes: int, episodes: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927), which is sound near 0 and 1, too."""
    share, extra = successes / episodes, z * z / episodes
    middle = (share + extra / 2) / (1 + extra)
    half = z * math.sqrt(share * (1 - share) / episodes + extra / (4 * episodes)) / (1 + extra)
    return max(0.0, middle - half), min(1.0, middle + half)


def summarise(options: Options, records: list[Record]) -> dict[str, Any]:
    """`{runs: [{variant, seed, error, checkpoints: [{env_steps, task, candidates: {M: figures}}]}]}`."""
    runs = [
        {
            "variant": record["variant"],
            "seed": record["seed"],
            "error": record["error"],
            "checkpoints": (record["figures"] or {}).get("checkpoints", []),
        }
        for record in records
    ]
    return {"runs": runs}


def show(result: dict[str, Any]) -> Group:
    table = Table(title="Held-out success with planning at decision time", title_justify="left")
    for name in ("run", "seed", "task"):
        table.add_column(name, no_wrap=True)
    for name in ("env\nsteps", "candi-\ndates", "success", "95 %", "length", "ms a step,\n1 env", "16 envs"):
        table.add_column(name, justify="right", no_wrap=True)
    failures = []
    for run in result["runs"]:
        if run["error"] is not None:
            failures.append(f"{run['variant']} seed {run['seed']} failed: {run['error']}")
        for checkpoint in run["checkpoints"]:
            for candidates, figures in checkpoint["candidates"].items():
                low, high = wilson(figures["successes"], figures["episodes"])
                table.add_row(
                    run["variant"],
                    str(run["seed"]),
                    checkpoint["task"],
                    f"{checkpoint['env_steps']:,}",
                    candidates,
                    f"{figures['successes'] / figures['episodes']:.2f}",
                    f"{low:.2f}-{high:.2f}",
                    f"{figures['length']:.0f}",
                    f"{figures['milliseconds']:.1f}",
                    f"{figures['milliseconds_of_16']:.1f}",
                )
            table.add_section()
    return Group(table, *failures)


BENCHMARK = Benchmark(
    "planner",
    "Held-out success of one trained agent with 0, 8 and 32 candidates imagined a decision, and the milliseconds each costs.",
    plan,
    summarise,
    show,
    add_arguments=add_arguments,
)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main())
