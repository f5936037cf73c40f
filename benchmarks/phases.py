"""Where the time of training goes, by preset: rates, the share of each phase, and how well the model uses the processor.

    python -m benchmarks.phases [--presets xs s] [--quick] [--threads N] [overrides...]

The training loop runs in its steady state for a while. Rates are given a second of the whole loop and a second of the phase that
does the work; the model's forward and backward pass is set beside the fastest fp32 matrix product on the same threads.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from rich.console import Group
from rich.table import Table

from benchmarks.harness import Benchmark, Context, Options, Run
from benchmarks.store import Record
from benchmarks.training import composed_config, run_process

AIM = 0.25  # of the matrix product's FLOP/s, at preset s
PRESETS = ("xs", "s")

# Nothing but the loop: no end, no checkpoints, and a start that is over soon. The pace of updates stays the default one.
LOOP = (
    "logger=none",
    "train.env_steps=1000000",
    "train.stop_at_mastery=false",
    "train.checkpoint_every=1000000000",
    "train.random_steps=1024",
    "train.warmup_updates=2",
)
QUICK = ("train.random_steps=400", "train.batch=4", "train.length=16")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--presets", nargs="+", default=list(PRESETS), help=f"of the model; default: {' '.join(PRESETS)}")


def preset_run(preset: str, overrides: list[str], seed: int, warm_updates: int, seconds: float) -> Run:
    """One measurement of one preset; its goal is the aimed share of the matrix product's speed."""
    config = composed_config([*LOOP, f"model={preset}", *overrides])
    measurement = {"config": config, "warm_updates": warm_updates, "seconds": seconds}

    def execute(context: Context) -> dict[str, Any]:
        given = json.dumps({**measurement, "seed": seed, "folder": str(context.folder)})
        command = [sys.executable, "-m", "benchmarks.phases_measure", given]
        figures = run_process(command, context.folder, context.threads, context.report, context.stop)
        share = figures["model"]["share_of_matmul"]
        return {**figures, "reached": share if share >= AIM else None}

    return Run(preset, seed, measurement, execute)


def plan(options: Options) -> list[Run]:
    warm_updates, seconds = (2, 2.0) if options.quick else (20, 40.0)
    overrides = [*(QUICK if options.quick else ()), *options.overrides]
    presets = dict.fromkeys(options.arguments["presets"])
    return [preset_run(name, overrides, seed, warm_updates, seconds) for name in presets for seed in options.seeds]


def summarise(options: Options, records: list[Record]) -> dict[str, Any]:
    presets = {record["variant"]: {"error": record["error"], **(record["figures"] or {"reached": None})} for record in records}
    return {"aim_share_of_matmul": AIM, "presets": presets}


def show(result: dict[str, Any]) -> Group:
    measured = {name: figures for name, figures in result["presets"].items() if figures["error"] is None}
    table = Table("", *measured, title="Where the time goes", title_justify="left")
    for name, title in (("env_steps", "env steps/s"), ("updates", "model updates/s"), ("imagined_steps", "imagined steps/s")):
        table.add_row(title, *(f"{f['rates'][name]:,.1f}" for f in measured.values()))
        table.add_row("  of its phase alone", *(_number(f["phase_rates"][name]) for f in measured.values()))
    table.add_section()
    for phase in sorted({phase for figures in measured.values() for phase in figures["shares"]}):
        table.add_row(f"share of {phase}", *(f"{f['shares'].get(phase, 0.0):.0%}" for f in measured.values()))
    table.add_section()
    models = [figures["model"] for figures in measured.values()]
    table.add_row("model parameters", *(f"{model['parameters']:,}" for model in models))
    table.add_row("model forward + backward, GFLOP", *(f"{model['flops'] / 1e9:.2f}" for model in models))
    table.add_row("  GFLOP/s", *(f"{model['flops_per_second'] / 1e9:.1f}" for model in models))
    table.add_row("fp32 matrix product, GFLOP/s", *(f"{model['matmul_flops_per_second'] / 1e9:.1f}" for model in models))
    table.add_row(
        f"share (aim {result['aim_share_of_matmul']:.0%} at s)", *(f"{model['share_of_matmul']:.0%}" for model in models)
    )
    table.add_section()
    eaten = ["\n".join(f"{share:.0%} {name}" for name, share in model["eaten_by"].items()) for model in models]
    table.add_row("CPU time of the pass by operator", *eaten)
    failed = [f"{name}: {figures['error']}" for name, figures in result["presets"].items() if figures["error"] is not None]
    return Group(table, *failed)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f}"


BENCHMARK = Benchmark(
    "phases", "Where the time of training goes, by preset.", plan, summarise, show, seeds=(1,), add_arguments=add_arguments
)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main())
