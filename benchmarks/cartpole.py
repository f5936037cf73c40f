"""CartPole-v1 from its vector of four numbers: mean evaluation return within 20,000 env steps.

python -m benchmarks.cartpole [--seeds 1 2 3] [--quick] [--jobs N] [overrides...]
"""

from __future__ import annotations

import sys
from statistics import mean
from typing import Any

from rich.table import Table

from benchmarks.harness import Benchmark, Context, Options, Run
from benchmarks.store import Record
from benchmarks.training import composed_config, train_run

TASK = "CartPole-v1"
GOAL = 450.0  # mean evaluation return
MAX_ENV_STEPS = 20_000

QUICK = (
    "model=debug",
    "logger=none",
    "train.env_steps=1200",
    "train.random_steps=512",
    "train.warmup_updates=5",
    "train.update_every_first=64",
    "eval.episodes=4",
)


def cartpole_run(overrides: list[str], seed: int) -> Run:
    """`python run.py experiment=cartpole OVERRIDES seed=SEED`; its goal is a mean evaluation return of 450."""
    given = ["experiment=cartpole", f"train.env_steps={MAX_ENV_STEPS}", *overrides]
    config = composed_config(given)

    def execute(context: Context) -> dict[str, Any]:
        summary = train_run([*given, f"seed={seed}"], context.folder, context.threads, context.report, context.stop)
        score = summary["tasks"][TASK]["return"]
        within = summary["env_steps"] <= MAX_ENV_STEPS + config["env"]["num_envs"]  # a step is one of all environments
        return {**summary, "reached": summary["env_steps"] if score >= GOAL and within else None}

    return Run("ours", seed, config, execute, int(config["train"]["env_steps"]))


def plan(options: Options) -> list[Run]:
    overrides = [*(QUICK if options.quick else ()), *options.overrides]
    return [cartpole_run(overrides, seed) for seed in options.seeds]


def summarise(options: Options, records: list[Record]) -> dict[str, Any]:
    runs = {str(record["seed"]): {"error": record["error"], **(record["figures"] or {"reached": None})} for record in records}
    scores = [run["tasks"][TASK]["return"] for run in runs.values() if run["error"] is None]
    return {
        "goal": GOAL,
        "runs": runs,
        "return": {"mean": mean(scores) if scores else None, "worst": min(scores, default=None)},
        "reached": bool(runs) and all(run["reached"] is not None for run in runs.values()),
    }


def show(result: dict[str, Any]) -> Table:
    table = Table("seed", "env steps", "seconds", "return", "greedy", title=f"{TASK}: evaluation return", title_justify="left")
    for seed, run in result["runs"].items():
        if run["error"] is not None:
            table.add_row(seed, run["error"])
            continue
        task = run["tasks"][TASK]
        greedy = task.get("return_greedy")
        figures = [f"{run['env_steps']:,}", f"{run['wall_seconds']:.0f}", f"{task['return']:.1f}"]
        table.add_row(seed, *figures, "-" if greedy is None else f"{greedy:.1f}")
    return table


BENCHMARK = Benchmark("cartpole", f"{TASK}: mean evaluation return of at least {GOAL:.0f}.", plan, summarise, show)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main())
