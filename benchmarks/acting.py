"""Acting beside learning: DoorKey-5x5 learned with `acting=sync` and with `acting=async`, in env steps and in seconds.

python -m benchmarks.acting [--seeds 1 2 3] [--quick] [--jobs N] [--only sync|async] [overrides...]

Both have two threads: `sync` as torch threads of its one process, `async` one of the learner and one of an actor.
"""

from __future__ import annotations

import argparse
import sys
from statistics import mean
from typing import Any

from rich.table import Table

from benchmarks.harness import Benchmark, Context, Options, Run
from benchmarks.store import Record
from benchmarks.training import composed_config, read_metrics, train_run

TASK = "DoorKey-5x5"
MAX_ENV_STEPS = 25_000
VARIANTS = {"async": ("acting=async", "train.threads=1"), "sync": ("acting=sync", "train.threads=2")}
COMMON = (f"env.tasks=[{TASK}]", f"train.env_steps={MAX_ENV_STEPS}", "logger=none", "eval.video=false")
QUICK = (
    "model=debug",
    "train.env_steps=1280",
    "train.warmup_updates=5",
    "train.update_every_first=64",
    "train.log_every=128",
    "eval.episodes=2",
    "env.kwargs.max_steps=30",
)


def acting_run(variant: str, overrides: list[str], seed: int) -> Run:
    """`python run.py OVERRIDES seed=SEED`; it reaches its goal with steps to threshold on the task."""
    given = [*COMMON, *VARIANTS[variant], *overrides]
    config = composed_config(given)

    def execute(context: Context) -> dict[str, Any]:
        summary = train_run([*given, f"seed={seed}"], context.folder, 2, context.report, context.stop)
        lines = read_metrics(context.folder)
        behind = [line["acting/updates_behind"] for line in lines if "acting/updates_behind" in line]
        most = [line["acting/updates_behind_most"] for line in lines if "acting/updates_behind_most" in line]
        return {
            **summary,
            "waited_for_steps": lines[-1].get("time/acting"),
            "updates_behind": mean(behind) if behind else 0.0,
            "updates_behind_most": max(most, default=0.0),
            "actors_replaced": lines[-1].get("acting/actors_replaced", 0.0),
            "reached": summary["steps_to_threshold"].get(TASK),
        }

    return Run(variant, seed, config, execute, int(config["train"]["env_steps"]), threads=2)


def plan(options: Options) -> list[Run]:
    overrides = [*(QUICK if options.quick else ()), *options.overrides]
    chosen = options.arguments.get("only") or list(VARIANTS)
    return [acting_run(variant, overrides, seed) for seed in options.seeds for variant in chosen]


def summarise(options: Options, records: list[Record]) -> dict[str, Any]:
    runs = {
        f"{record['variant']} seed {record['seed']}": {"error": record["error"], **(record["figures"] or {"reached": None})}
        for record in records
    }
    return {"task": TASK, "runs": runs, "reached": bool(runs) and all(run["reached"] is not None for run in runs.values())}


def show(result: dict[str, Any]) -> Table:
    table = Table(title=f"{TASK}: acting between updates, and beside them", title_justify="left")
    for name in ("run", "steps to 0.9", "env steps", "updates", "seconds", "waited for steps", "updates behind", "most"):
        table.add_column(name, justify="left" if name == "run" else "right")
    for name, run in result["runs"].items():
        if run["error"] is not None:
            table.add_row(name, f"failed: {run['error']}")
            continue
        reached = "never" if run["reached"] is None else f"{run['reached']:,}"
        waited = "-" if run["waited_for_steps"] is None else f"{run['waited_for_steps']:.0f}"
        figures = [f"{run['env_steps']:,}", f"{run['updates']:,}", f"{run['wall_seconds']:.0f}", waited]
        figures += [f"{run['updates_behind']:.1f}", f"{run['updates_behind_most']:.0f}"]
        table.add_row(name, reached, *figures)
    return table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), help="of these alone")


BENCHMARK = Benchmark(
    "acting", "DoorKey-5x5 with acting=sync and acting=async.", plan, summarise, show, seeds=(1,), add_arguments=add_arguments
)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main())
