"""Does a hierarchy earn its place? Flat policy and director, with and without a curriculum, on MultiRoom and KeyCorridor.

    python -m benchmarks.hierarchy [--only multiroom/flat ...] [--seeds 1 2 3] [--quick] [--jobs N] [overrides...]

Every variant is `python run.py` with the overrides of `VARIANTS`, and those of the command line after them. A run ends at 0.9
training success on the hardest task of its family (a director's under goals), or after 300,000 env steps, with an evaluation on
100 held-out layouts of all its tasks; after 100,000 without a curriculum, after 50,000 of the director with one thing changed
(these two kinds with one seed, unless they are asked for). On the way 20 episodes of each task are played every 10,000 steps:
from these curves are the area under the share of tasks mastered, and what was forgotten. Directors are evaluated once more with
their goals shuffled between episodes and with none. Interrupted, the benchmark goes on with the runs that are missing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from agent.compare.statistics import forgetting
from benchmarks.comparison import median_reached
from benchmarks.doorkey import QUICK
from benchmarks.harness import Benchmark, Context, Options, Run
from benchmarks.mastery import Curve, mastery_curve, share_of_time
from benchmarks.store import Record
from benchmarks.training import composed_config, read_metrics, train_run

FAMILIES: dict[str, tuple[str, ...]] = {
    "multiroom": ("MultiRoom-N2", "MultiRoom-N4", "MultiRoom-N6"),
    "keycorridor": ("KeyCorridor-S3R1", "KeyCorridor-S3R2", "KeyCorridor-S3R3"),
}
STEPS, STEPS_ALONE, STEPS_REMEDY = 300_000, 100_000, 50_000
MASTERED = 0.9
COMMON = (f"train.env_steps={STEPS}", "eval.every=10000", "eval.video=false", "dream.film=false")
ALONE = ("curriculum=target_only", f"train.env_steps={STEPS_ALONE}")
GOALS = ("hierarchy=director", "eval.goals=[shuffled,zeroed]")
CHANGES: dict[str, tuple[str, ...]] = {
    "flat": (),
    "director": GOALS,
    "flat, undiscovered": ("hierarchy.discovery=0",),
    "flat, alone": ALONE,
    "director, alone": (*GOALS, *ALONE),
}
# The director with one thing changed.
REMEDIES: dict[str, tuple[str, ...]] = {
    f"director, {name}": (*GOALS, *changes, f"train.env_steps={STEPS_REMEDY}")
    for name, changes in {
        "goals without places": ("hierarchy.goals.place=0",),
        "eight steps a goal": ("hierarchy.period=8", "hierarchy.horizon=16"),
        "goals drawn": ("hierarchy.manager.sample=true",),
        "only drawn goals imagined": ("hierarchy.manager.likeliest=0",),
        "paid for its goals above all": ("hierarchy.worker.extrinsic=0.2",),
        "no explorer": ("hierarchy.worker.free=0",),
    }.items()
}
VARIANTS: dict[str, tuple[str, ...]] = {
    f"{family}/{name}": (f"env={family}", f"env.tasks=[{','.join(tasks)}]", *COMMON, *changes)
    for family, tasks in FAMILIES.items()
    for name, changes in (CHANGES | (REMEDIES if family == "multiroom" else {})).items()
}
ONCE = (*REMEDIES, "flat, alone", "director, alone")  # of the first seed alone, unless they are asked for


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", nargs="+", choices=tuple(VARIANTS), metavar="VARIANT", help=f"of {'; '.join(VARIANTS)}")


def plan(options: Options) -> list[Run]:
    """Seed by seed, so that an interrupted benchmark has all variants of the first seeds."""
    quick = (*QUICK, "hierarchy.starts=2") if options.quick else ()
    asked = options.arguments.get("only")
    chosen = [name for name in VARIANTS if name in (asked or VARIANTS)]
    return [
        _run(name, [*VARIANTS[name], *quick, *options.overrides], seed)
        for seed in options.seeds
        for name in chosen
        if asked or seed == options.seeds[0] or name.partition("/")[2] not in ONCE
    ]


def _run(name: str, overrides: list[str], seed: int) -> Run:
    config = composed_config(overrides)
    tasks = FAMILIES[name.partition("/")[0]]
    budget = int(config["train"]["env_steps"])

    def execute(context: Context) -> dict[str, Any]:
        summary = train_run([*overrides, f"seed={seed}"], context.folder, context.threads, context.report, context.stop)
        lines = read_metrics(context.folder)
        held_out = mastery_curve(lines, tasks, "eval/success")
        for task, points in held_out.items():
            points.append([float(summary["env_steps"]), summary["tasks"][task]["success"]])
        return {
            **summary,
            "mastery": judged_curve(lines, tasks),
            "held_out": held_out,
            "area": share_of_time(held_out, len(tasks), budget, MASTERED),
            "forgotten": forgotten(held_out),
            "reached": summary["steps_to_threshold"].get(tasks[-1]),
        }

    return Run(name, seed, config, execute, budget, resumes=True)


def judged_curve(lines: Sequence[Mapping[str, Any]], tasks: Sequence[str]) -> Curve:
    """Training success as it counts towards the threshold: without the episodes that were practice, where there were any."""
    practised = any(key.startswith("train/judged/") for line in lines for key in line)
    return mastery_curve(lines, tasks, "train/judged" if practised else "train/success")


def forgotten(curve: Curve) -> dict[str, float]:
    """`agent.compare.statistics.forgetting` of the tasks that were mastered once; all have been evaluated at the same steps."""
    success = np.array([[share for _, share in points] for points in curve.values()]).T  # (points, tasks)
    found = zip(curve, success.max(0), forgetting(success), strict=True)
    return {task: float(lost) for task, best, lost in found if best >= MASTERED}


def summarise(options: Options, records: list[Record]) -> dict[str, Any]:
    """`{variants: {name: {runs, steps, area, seconds}}}`: the last three are medians; `steps` of runs that never got there count
    as longer than any."""
    return {"variants": {name: _figures([r for r in records if r["variant"] == name]) for name in VARIANTS}}


def _figures(records: list[Record]) -> dict[str, Any]:
    runs = {str(r["seed"]): {"error": r["error"], "commit": r["commit"], **(r["figures"] or {"reached": None})} for r in records}
    finished = [run for run in runs.values() if run["error"] is None]
    return {
        "runs": runs,
        "steps": median_reached([run["reached"] for run in runs.values()]),
        "area": median_reached([run["area"] for run in finished]),
        "seconds": median_reached([run["wall_seconds"] for run in finished]),
    }


def show(result: dict[str, Any]) -> Group:
    table = Table(title="Env steps to 0.9 training success on the hardest task", title_justify="left")
    for name in (
        "variant",
        "seed",
        "steps",
        "area",
        "held-out, easiest to hardest",
        "forgotten",
        "lost by shuffled goals",
        "seconds",
    ):
        table.add_column(name, justify="left" if name in ("variant", "seed") else "right")
    failures: list[Text] = []
    for name, figures in result["variants"].items():
        tasks = FAMILIES[name.partition("/")[0]]
        for seed, run in figures["runs"].items():
            if run["error"] is not None:
                failures.append(Text(f"{name} seed {seed} failed: {run['error']}"))
                continue
            found = [run["tasks"][task] for task in tasks]
            held_out = " ".join(f"{row['success']:.2f}" for row in found)
            worst = max(run["forgotten"].values(), default=None)
            lost = next(
                (row["goals"]["shuffled"]["lost"] for row in reversed(found) if "goals" in row and row["success"] >= MASTERED),
                None,
            )
            seconds = f"{run['wall_seconds']:,.0f}"
            table.add_row(
                name, seed, _steps(run["reached"]), f"{run['area']:.2f}", held_out, _share(worst), _share(lost), seconds
            )
        if figures["runs"]:
            area = _share(figures["area"])
            seconds = "-" if figures["seconds"] is None else f"{figures['seconds']:,.0f}"
            table.add_row(name, "median", _steps(figures["steps"]), area, "", "", "", seconds, style="bold", end_section=True)
    return Group(table, *failures)


def _steps(value: float | None) -> str:
    return "never" if value is None else f"{value:,.0f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


BENCHMARK = Benchmark(
    "hierarchy",
    "Flat policy and director on MultiRoom N2 -> N4 -> N6 and KeyCorridor S3R1 -> S3R2 -> S3R3.",
    plan,
    summarise,
    show,
    add_arguments=add_arguments,
)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main())
