"""What the guards cost: env steps a second through our delivery beside Gymnasium's own vector environments.

    python -m benchmarks.guards [--modes sync async] [--quick]

Both step the same environments with the same adapter through the same episodes, in turn, in short rounds; the ratio of their
times is taken round by round, so that what else the machine does touches both alike.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from rich.table import Table

from benchmarks.harness import Benchmark, Context, Options, Run
from benchmarks.store import Record, Results
from benchmarks.training import run_process

AIM = 1.1  # times Gymnasium's time, one process
ENVIRONMENTS = ("MiniGrid-DoorKey-8x8-v0", "CartPole-v1", "Pendulum-v1")
NUM_ENVS = {"sync": 16, "async": 4}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--modes", nargs="+", choices=tuple(NUM_ENVS), default=["sync"], help="of env.vectorization; async needs an idle machine"
    )


def plan(options: Options) -> list[Run]:
    modes = dict.fromkeys(options.arguments["modes"])
    return [case_run(env_id, mode, seed, options.quick) for env_id in ENVIRONMENTS for mode in modes for seed in options.seeds]


def case_run(env_id: str, mode: str, seed: int, quick: bool) -> Run:
    """One environment, in this process or in one each; its goal is the aimed ratio."""
    env = {"id": env_id, "vectorization": mode, "num_envs": NUM_ENVS[mode], "holdout": False}
    measurement = {"env": env, "rounds": 4 if quick else 20, "seconds": 0.05 if quick else 0.1}

    def execute(context: Context) -> dict[str, Any]:
        given = json.dumps({**measurement, "folder": str(context.folder)})
        command = [sys.executable, "-m", "benchmarks.guards_measure", given]
        figures = run_process(command, context.folder, context.threads, context.report, context.stop)
        ratio = figures["ratio"]["median"]
        return {**figures, "reached": ratio if ratio <= AIM else None}

    return Run(f"{env_id} {mode}", seed, measurement, execute)


def summarise(options: Options, records: list[Record]) -> dict[str, Any]:
    cases = {record["variant"]: {"error": record["error"], **(record["figures"] or {})} for record in records}
    step = training_step(options)
    for figures in cases.values():
        if step is not None and figures["error"] is None:
            figures["share_of_training_step"] = figures["extra_microseconds"] / step
    return {"aim_ratio": AIM, "training_step_microseconds": step, "cases": cases}


def training_step(options: Options) -> float | None:
    """Microseconds that training (preset xs, DoorKey) takes for an env step, from the results of `benchmarks.phases`."""
    rates = [record["figures"]["rates"]["env_steps"] for record in Results(options.results, "phases").load()
             if record["variant"] == "xs" and record["error"] is None]  # fmt: skip
    return 1e6 / rates[-1] if rates else None


def show(result: dict[str, Any]) -> Table:
    table = Table("", "steps/s, ours", "Gymnasium's", "time, times theirs", "more, us a step", title_justify="left")
    table.title = "What the guards cost"
    for name, figures in result["cases"].items():
        if figures["error"] is not None:
            table.add_row(name, figures["error"])
            continue
        rates, ratio = figures["steps_per_second"], figures["ratio"]
        share = figures.get("share_of_training_step")
        more = f"{figures['extra_microseconds']:.1f}" + (f" ({share:.3%} of a training step)" if share is not None else "")
        spread = f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"
        table.add_row(name, f"{rates['ours']:,.0f}", f"{rates['gymnasium']:,.0f}", spread, more)
    return table


BENCHMARK = Benchmark(
    "guards",
    "What the guards cost beside Gymnasium's own vector environments.",
    plan,
    summarise,
    show,
    seeds=(1,),
    add_arguments=add_arguments,
)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main())
