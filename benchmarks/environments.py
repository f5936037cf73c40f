"""One recipe for every kind of environment, each against its goal: continuous actions, instructions, images.

    python -m benchmarks.environments [--only pendulum gotolocal ...] [--seeds 1 2 3] [--quick] [--jobs N] [overrides...]

A case is one command line of `run.py`; the summary of its run says how it did.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import mean
from typing import Any

from rich.table import Table

from benchmarks.harness import Benchmark, Context, Options, Run
from benchmarks.store import Record
from benchmarks.training import composed_config, train_run

Summary = Mapping[str, Any]

QUICK = (
    "model=debug",
    "logger=none",
    "train.env_steps=1000",
    "train.random_steps=512",
    "train.warmup_updates=2",
    "train.update_every_first=128",
    "train.update_every=128",
    "eval.episodes=2",
    "env.max_episode_steps=40",
)


@dataclass(frozen=True)
class Case:
    """One recipe and what it is for.

    Attributes:
        overrides: of `run.py`.
        goal: what is asked of it, in words; empty where it is only reported.
        met: whether a summary meets it; None where it is only reported.
        figures: what is shown of a summary.
        seeds: only these of the command line's.
    """

    overrides: tuple[str, ...]
    goal: str
    met: Callable[[Summary], bool] | None
    figures: Callable[[Summary], dict[str, float | None]]
    seeds: tuple[int, ...] | None = None


def hardest(summary: Summary) -> Mapping[str, Any]:
    """The evaluation of a run's last task."""
    task: Mapping[str, Any] = list(summary["tasks"].values())[-1]
    return task


def returns(summary: Summary) -> dict[str, float | None]:
    task = hardest(summary)
    return {"return": task["return"], "return, greedy": task.get("return_greedy")}


def missions(summary: Summary) -> dict[str, float | None]:
    task = hardest(summary)
    other = task.get("shuffled", {})
    return {
        "success": task["success"],
        "steps": task["length"],
        "success, missions of others": other.get("success"),
        "steps, missions of others": other.get("length"),
    }


def successes(summary: Summary) -> dict[str, float | None]:
    reached = list(summary["steps_to_threshold"].values())[-1]
    return {"steps to 0.9": reached, "success": hardest(summary)["success"]}


def achievements(summary: Summary) -> dict[str, float | None]:
    """Return, achievements unlocked an episode and Crafter's score, the agent's beside those of random actions."""
    task = hardest(summary)
    figures: dict[str, float | None] = {}
    for suffix, means in {"": task, ", random": task["random"]}.items():
        unlocked = [rate for name, rate in means["info"].items() if name.startswith("unlocked.")]
        figures |= {
            f"return{suffix}": means["return"],
            f"achievements an episode{suffix}": sum(unlocked),
            f"score{suffix}": means["score"],
        }
    return figures


def reads_its_mission(summary: Summary) -> bool:
    """0.95 success with the right mission, and episodes longer by more than a tenth with another's."""
    task = hardest(summary)
    return bool(task["success"] >= 0.95 and task["shuffled"]["length"] > 1.1 * task["length"])


CASES: dict[str, Case] = {
    "pendulum": Case(
        ("experiment=pendulum",), "return above -250 within 25,000 steps", lambda s: hardest(s)["return"] > -250, returns
    ),
    "gotolocal": Case(
        ("experiment=gotolocal",),
        "success of 0.95, and longer episodes with the missions of others",
        reads_its_mission,
        missions,
    ),
    "gotoobject": Case(("experiment=gotoobject",), "", None, missions),
    "doorkey_pixels": Case(("experiment=doorkey_pixels",), "", None, successes),
    # What pixels are measured against.
    "doorkey_symbols": Case(
        ("env.tasks=[DoorKey-5x5,DoorKey-6x6]", "model.attention_heads=0", "model.maps=false"), "", None, successes
    ),
    "crafter": Case(("experiment=crafter",), "", None, achievements, seeds=(1,)),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", nargs="+", choices=tuple(CASES), help="these cases alone")


def case_run(name: str, seed: int, overrides: tuple[str, ...]) -> Run:
    """`python run.py CASE OVERRIDES seed=SEED`."""
    case = CASES[name]
    given = [*case.overrides, *overrides]
    config = composed_config(given)

    def execute(context: Context) -> dict[str, Any]:
        summary = train_run([*given, f"seed={seed}"], context.folder, context.threads, context.report, context.stop)
        met = None if case.met is None else case.met(summary)
        return {**summary, "met": met, "reached": summary["env_steps"] if met else None}

    return Run(name, seed, config, execute, int(config["train"]["env_steps"]))


def plan(options: Options) -> list[Run]:
    overrides = (*(QUICK if options.quick else ()), *options.overrides)
    chosen = options.arguments.get("only") or tuple(CASES)
    return [
        case_run(name, seed, overrides)
        for name in chosen
        for seed in options.seeds
        if seed in (CASES[name].seeds or options.seeds)
    ]


def summarise(options: Options, records: list[Record]) -> dict[str, Any]:
    cases: dict[str, Any] = {}
    for name, case in CASES.items():
        runs = {}
        for record in records:
            if record["variant"] == name:
                done = record["error"] is None
                figures = {"met": record["figures"]["met"], **case.figures(record["figures"])} if done else {}
                runs[str(record["seed"])] = {"error": record["error"], **figures}
        if runs:
            cases[name] = {"goal": case.goal or None, "runs": runs, "mean": _means(runs)}
    return {"cases": cases}


def _means(runs: Mapping[str, Mapping[str, Any]]) -> dict[str, float | None]:
    """Of every figure over the seeds; None where one of them has none."""
    finished = [run for run in runs.values() if run["error"] is None]
    names = [name for name in finished[0] if name not in ("error", "met")] if finished else []
    columns = {name: [run[name] for run in finished] for name in names}
    return {name: None if any(value is None for value in column) else mean(column) for name, column in columns.items()}


def show(result: dict[str, Any]) -> Table:
    table = Table("case", "seed", "goal", "figures", title="Environments of every kind", title_justify="left")
    for name, case in result["cases"].items():
        for seed, run in case["runs"].items():
            if run["error"] is not None:
                table.add_row(name, seed, "", run["error"])
                continue
            met = {True: "met", False: "not met", None: "-"}[run["met"]]
            table.add_row(name, seed, met, _said({key: run[key] for key in case["mean"]}))
        table.add_row(name, "mean", case["goal"] or "", _said(case["mean"]), style="bold", end_section=True)
    return table


def _said(figures: Mapping[str, float | None]) -> str:
    return ", ".join(f"{key} {'never' if value is None else f'{value:,.2f}'}" for key, value in figures.items())


BENCHMARK = Benchmark(
    "environments",
    "A recipe for every kind of environment, each against its goal.",
    plan,
    summarise,
    show,
    add_arguments=add_arguments,
)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main())
