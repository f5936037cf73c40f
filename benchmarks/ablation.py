"""Does each part of the world model earn its place? The default recipe on DoorKey with one part changed at a time.

    python -m benchmarks.ablation [--only default learned ...] [--seeds 1 2 3] [--quick] [--jobs N] [overrides...]

Every variant is `python run.py` with the overrides of `VARIANTS`, and those of the command line after them.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from benchmarks.comparison import median_reached
from benchmarks.doorkey import QUICK, TARGET, TASKS
from benchmarks.figures import learner_figures
from benchmarks.harness import Benchmark, Options, Run
from benchmarks.ours import our_run
from benchmarks.store import Record

DEFAULT, UNREWARDED, UNMAPPED, PLAIN = "default", "without_discovery", "without_maps", "without_maps_and_attention"
NO_MAPS = "model.maps=false"
VARIANTS: dict[str, tuple[str, ...]] = {
    DEFAULT: (),
    "without_attention": ("model.attention_heads=0",),
    UNREWARDED: ("hierarchy.discovery=0",),
    UNMAPPED: (NO_MAPS,),  # and nothing that is news to them
    PLAIN: (NO_MAPS, "model.attention_heads=0"),
    "learned": ("model.learned=[image]", "train.env_steps=25000"),  # it is slow, and 25,000 is twice what the default takes
    "ensemble": ("model.ensemble=5", "hierarchy.explore=0.1"),
}
BASE = {UNMAPPED: UNREWARDED, PLAIN: UNMAPPED}  # what these are compared with; all others with the default


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", nargs="+", choices=tuple(VARIANTS), metavar="VARIANT", help=f"of {', '.join(VARIANTS)}")


def plan(options: Options) -> list[Run]:
    """Seed by seed, so that an interrupted benchmark has all variants of the first seeds."""
    quick = QUICK if options.quick else ()
    chosen = [name for name in VARIANTS if name in (options.arguments.get("only") or VARIANTS)]
    return [
        our_run([*quick, *VARIANTS[name], *options.overrides], seed, TARGET, name) for seed in options.seeds for name in chosen
    ]


def summarise(options: Options, records: list[Record]) -> dict[str, Any]:
    """`{variants: {name: figures}}`: those of `learner_figures`, medians, and `share_of_base_steps` (see `BASE`)."""
    found = {name: _figures([r for r in records if r["variant"] == name]) for name in VARIANTS}
    for name, figures in found.items():
        base = found[BASE.get(name, DEFAULT)]["steps_to_threshold"]["median"]
        steps = figures["steps_to_threshold"]["median"]
        figures["share_of_base_steps"] = None if steps is None or base is None else steps / base
    return {"target": TARGET, "tasks": list(TASKS), "variants": found}


def show(result: dict[str, Any]) -> Group:
    table = Table(title=f"Env steps on all tasks to 0.9 training success on {result['target']}", title_justify="left")
    for name in ("variant", "seed"):
        table.add_column(name)
    for name in ("steps", "of base", "held-out", "updates", "seconds"):
        table.add_column(name, justify="right")
    failures: list[Text] = []
    for name, figures in result["variants"].items():
        for seed, run in figures["runs"].items():
            if run["error"] is not None:
                failures.append(Text(f"{name} seed {seed} failed: {run['error']}"))
            of_run = _of_run(run, result["target"])
            table.add_row(name, seed, _number(run["reached"]), "", *_row(of_run))
        if figures["runs"]:
            share = figures["share_of_base_steps"]
            steps = _number(figures["steps_to_threshold"]["median"])
            shown = "-" if share is None else f"{share:.2f}"
            table.add_row(name, "median", steps, shown, *_row(figures), style="bold", end_section=True)
    return Group(table, *failures)


def _figures(records: list[Record]) -> dict[str, Any]:
    figures = learner_figures(records, TARGET)
    runs = [_of_run(run, TARGET) for run in figures["runs"].values()]
    # Whatever a variant reaches, these are over its finished runs: a run that failed has none.
    middle = {
        key: median_reached([run[key] for run in runs if run[key] is not None]) for key in ("held_out", "updates", "seconds")
    }
    return {**figures, **middle}


def _of_run(run: dict[str, Any], task: str) -> dict[str, float | None]:
    held_out = ((run.get("tasks") or {}).get(task) or {}).get("success")
    return {"held_out": held_out, "updates": run.get("updates"), "seconds": run.get("wall_seconds")}


def _row(figures: dict[str, Any]) -> tuple[str, str, str]:
    held_out = figures["held_out"]
    numbers = (figures[key] for key in ("updates", "seconds"))
    return "-" if held_out is None else f"{held_out:.2f}", *("-" if x is None else f"{x:,.0f}" for x in numbers)  # type: ignore[return-value]


def _number(value: float | None) -> str:
    return "never" if value is None else f"{value:,.0f}"


BENCHMARK = Benchmark(
    "ablation",
    "The default recipe on DoorKey 5x5 -> 6x6 -> 8x8 with one part of the world model changed at a time.",
    plan,
    summarise,
    show,
    add_arguments=add_arguments,
)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main())
