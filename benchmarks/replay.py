"""Whether a replay ten times larger than what memory holds of it keeps the trainer fed, and whether it is sampled evenly.

    python -m benchmarks.replay [--preset s] [--quick] [overrides...]

Random play is stored until there is ten times as much as `replay.capacity` and `replay.cache` hold together. Then all is measured
in turn, in one process: sampling from memory, half from history, and from history alone; and updates, with and without history.
The bar: sampling from history alone, with nothing else to do, gives at least the sequences that the trainer consumes.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from rich.table import Table

from benchmarks.harness import Benchmark, Context, Options, Run
from benchmarks.store import Record
from benchmarks.training import composed_config, run_process

LARGER = 10  # times what memory holds
SETTING = (
    "logger=none",
    "env.suite=doorkey",
    "env.tasks=[DoorKey-8x8]",
    "train.warmup_updates=0",
    "train.validation=0",
    "replay.capacity=4000",
    "replay.cache=1000",
    "replay.episodes_per_shard=20",
    "replay.history=0.5",
)
QUICK = ("env.kwargs.max_steps=60", "replay.capacity=800", "replay.cache=200", "train.batch=8", "env.num_envs=8")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", default="s", help="of the model that consumes; default: s")


def plan(options: Options) -> list[Run]:
    preset = options.arguments["preset"]
    config = composed_config([*SETTING, f"model={preset}", *(QUICK if options.quick else ()), *options.overrides])
    rounds, seconds, draws = (1, 1.0, 4_000) if options.quick else (3, 5.0, 10_000)
    measurement = {"config": config, "larger": LARGER, "rounds": rounds, "seconds": seconds, "draws": draws}

    def run(seed: int) -> Run:
        def execute(context: Context) -> dict[str, Any]:
            given = json.dumps({**measurement, "seed": seed, "folder": str(context.folder)})
            command = [sys.executable, "-m", "benchmarks.replay_measure", given]
            figures = run_process(command, context.folder, context.threads, context.report, context.stop)
            fed = figures["fed"]
            return {**figures, "reached": fed if fed >= 1 and figures["chi_square"]["p"] >= 0.001 else None}

        return Run(preset, seed, measurement, execute)

    return [run(seed) for seed in options.seeds]


def summarise(options: Options, records: list[Record]) -> dict[str, Any]:
    runs = {
        f"{record['variant']} seed {record['seed']}": {"error": record["error"], **(record["figures"] or {"reached": None})}
        for record in records
    }
    return {"larger": LARGER, "runs": runs, "reached": bool(runs) and all(run["reached"] for run in runs.values())}


def show(result: dict[str, Any]) -> Table:
    runs = {name: run for name, run in result["runs"].items() if run["error"] is None}
    table = Table("", *runs, title=f"A replay {result['larger']} times larger than memory", title_justify="left")
    for name, title in (("stored", "records stored"), ("memory", "  held in memory"), ("episodes", "episodes")):
        table.add_row(title, *(f"{run[name]:,}" for run in runs.values()))
    table.add_section()
    for name, title in (("memory", "memory"), ("mixed", "half history"), ("history", "history alone")):
        table.add_row(
            f"sampled from {title}, sequences/s", *(f"{run['sequences_per_second'][name]:,.0f}" for run in runs.values())
        )
    table.add_row("consumed by the trainer, sequences/s", *(f"{run['consumed_per_second']:,.1f}" for run in runs.values()))
    table.add_row("history alone / consumed (bar: 1)", *(f"{run['fed']:,.1f}" for run in runs.values()))
    table.add_row("updates with half history / without", *(f"{run['updates_ratio']:.2f}" for run in runs.values()))
    table.add_row("share of an update spent in sampling", *(f"{run['sampling_share']:.1%}" for run in runs.values()))
    table.add_section()
    table.add_row("share of history (declared 0.5)", *(f"{run['history_share']:.3f}" for run in runs.values()))
    for run in runs.values():
        square = run["chi_square"]
        table.add_row(f"chi-square, {square['freedom']} degrees of freedom", f"{square['statistic']:.1f} (p {square['p']:.2f})")
    table.add_row("checksums, share of writing a shard", *(f"{run['checksum_share']:.1%}" for run in runs.values()))
    table.add_row("writing, share of the trainer's time", *(f"{run['writing_share']:.2%}" for run in runs.values()))
    return table


BENCHMARK = Benchmark(
    "replay",
    "Whether a replay ten times larger than memory keeps the trainer fed.",
    plan,
    summarise,
    show,
    seeds=(1,),
    add_arguments=add_arguments,
)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main())
