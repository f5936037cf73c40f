"""How fast imagination is: with its cache against without, and beside TorchRL's DreamerV3 RSSM of as many parameters.

    python -m benchmarks.imagination [--presets xs s] [--rounds 7] [--quick] [overrides...]

All are measured in turn in one run, on one thread and on two: the decoder alone, the whole rollout with heads and policy, and
the latent transition alone, which is what an RSSM's prior does. The context is computed beforehand, and timed apart. One thread
is timed by its own processor time, which other programs do not add to, two by the clock on the wall, on an idle machine.
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

BARS = {"decoder_speedup": 10.0, "rollout_speedup": 5.0, "ratio_to_rssm": 0.7}
THREADS = (1, 2)
PRESETS = ("xs", "s")
CONTEXT, HORIZON = 32, 15
# So wide a window that nothing of context and horizon falls out of it: the same steps are attended to with and without a cache.
SETTING = (
    f"model.window={CONTEXT + HORIZON + 1}",
    f"hierarchy.horizon={HORIZON}",
    "env.suite=doorkey",
    "env.tasks=[DoorKey-8x8]",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--presets", nargs="+", default=list(PRESETS), help=f"of the model; default: {' '.join(PRESETS)}")
    parser.add_argument("--rounds", type=int, default=7, help="times that each way is measured; default: 7")


def preset_run(preset: str, threads: int, overrides: list[str], seed: int, rounds: int) -> Run:
    """One measurement; it is reached where every bar is."""
    config = composed_config([*SETTING, f"model={preset}", *overrides])
    measurement = {"config": config, "threads": threads, "context": CONTEXT, "rounds": rounds}

    def execute(context: Context) -> dict[str, Any]:
        given = json.dumps({**measurement, "seed": seed, "folder": str(context.folder)})
        command = [sys.executable, "-m", "benchmarks.imagination_measure", given]
        figures = run_process(command, context.folder, threads, context.report, context.stop)
        return {**figures, "reached": all(figures[name] >= bar for name, bar in BARS.items()) or None}

    return Run(f"{preset}, {threads} thread{'s' if threads > 1 else ''}", seed, measurement, execute)


def plan(options: Options) -> list[Run]:
    rounds = 1 if options.quick else max(1, options.arguments["rounds"])
    presets = dict.fromkeys(options.arguments["presets"])
    return [
        preset_run(preset, threads, list(options.overrides), seed, rounds)
        for preset in presets
        for threads in THREADS
        for seed in options.seeds
    ]


def summarise(options: Options, records: list[Record]) -> dict[str, Any]:
    """`BARS`' own figures at the top are those of the worst case, null where one failed; `cases` has them all."""
    whole = [record["figures"] for record in records if record["figures"]]
    return {
        **{name: min(figures[name] for figures in whole) if len(whole) == len(records) > 0 else None for name in BARS},
        "bars": BARS,
        "cases": {record["variant"]: {"error": record["error"], **(record["figures"] or {})} for record in records},
    }


def show(result: dict[str, Any]) -> Table:
    table = Table("", *result["cases"], title=f"Imagined steps, context {CONTEXT}, horizon {HORIZON}", title_justify="left")
    cases = [figures for figures in result["cases"].values() if figures["error"] is None]
    for name, bar in result["bars"].items():
        table.add_row(f"{name} (bar {bar:g})", *(f"{figures[name]:.2f}" for figures in cases))
    for name in cases[0]["steps_per_second"] if cases else ():
        table.add_row(f"{name}, steps/s", *(f"{figures['steps_per_second'][name]:,.0f}" for figures in cases))
    table.add_row("prefill, ms", *(f"{1000 * figures['prefill_seconds']:.1f}" for figures in cases))
    table.add_row("parameters of the transition", *(f"{figures['parameters']['ours']:,}" for figures in cases))
    table.add_row("  of the RSSM's", *(f"{figures['parameters']['rssm']:,}" for figures in cases))
    return table


BENCHMARK = Benchmark(
    "imagination",
    "How fast imagination is: with its cache against without, and beside an RSSM.",
    plan,
    summarise,
    show,
    seeds=(1,),
    add_arguments=add_arguments,
)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main())
