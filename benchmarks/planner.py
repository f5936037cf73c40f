"""What planning at decision time buys: held-out success of one trained agent with 0, 8 and 32 candidates, and what each costs.

    python -m benchmarks.planner [--runs FOLDER ...] [--task NAME] [--planner actions|goals] [--seeds 1 2 3] [--quick] [...]

The default recipe, with `--planner goals` that of a director, is trained for a few thousand env steps, and every checkpoint on
the way is measured: once a task is mastered there is nothing left to plan for. All candidates play the same held-out layouts with
the same weights, so env steps are equal, and what is gained is compared layout by layout. Milliseconds are of decisions that the
planner makes: of goals, one every `hierarchy.period` steps. Interrupted, a training goes on where it was.
With `--runs` nothing is trained: all checkpoints of these run folders are measured, or the one that is named.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.checkpoint import load_meta, resolve
from benchmarks.harness import Benchmark, Context, Options, Run
from benchmarks.measuring import measured
from benchmarks.planner_table import costs, pooled, show
from benchmarks.store import Record
from benchmarks.training import composed_config, train_run
from envs.errors import UserError

TASK = "DoorKey-6x6"
CANDIDATES = (0, 8, 32)  # 0: the policy alone
TRAINING = (
    "train.env_steps=6000",
    "train.checkpoint_every=2000",
    "train.keep_checkpoints=1000",  # all: one that an interruption leaves is not to push out another
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
        UserError: a folder without a whole checkpoint, a horizon of no steps, or goals of a hierarchy that has none.
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
    if settings["planner"] == "goals" and not any(word.startswith("hierarchy=") for word in overrides):
        overrides.insert(0, "hierarchy=director")
    config = {"train": composed_config(overrides), "measure": settings}
    return [_trained_run(overrides, seed, config, settings) for seed in options.seeds]


def _trained_run(overrides: Sequence[str], seed: int, config: Mapping[str, Any], settings: Mapping[str, Any]) -> Run:
    trained = config["train"]
    every, apart = int(trained["train"]["checkpoint_every"]), int(trained["env"]["num_envs"])

    def execute(context: Context) -> dict[str, Any]:
        train_run([*overrides, f"seed={seed}"], context.folder, context.threads, context.report, context.stop)
        paths = {int(path.name.removeprefix("step_")): path for path in checkpoints_of(context.folder)}
        return _measure([paths[steps] for steps in scheduled(list(paths), every, apart)], settings, seed, context)

    return Run(_label(settings, trained), seed, config, execute, int(trained["train"]["env_steps"]), resumes=True)


def _given_run(folder: Path, settings: Mapping[str, Any]) -> Run:
    paths = checkpoints_of(folder)
    meta = load_meta(paths[-1])
    seed = int(meta["config"]["seed"])
    steps = [load_meta(path)["env_steps"] for path in paths]
    config = {"run": meta["config"], "env_steps": steps, "measure": settings}
    label = f"{_label(settings, meta['config'])}, given"
    return Run(label, seed, config, lambda context: _measure(paths, settings, seed, context))


def _label(settings: Mapping[str, Any], trained: Mapping[str, Any]) -> str:
    """`planner/hierarchy`.

    Raises:
        UserError: goals of a hierarchy that has none; said before anything is trained.
    """
    planner, hierarchy = settings["planner"], trained["hierarchy"]["name"]
    if planner == "goals" and hierarchy == "flat":
        raise UserError("--planner goals needs goals, which hierarchy=flat has not: give hierarchy=director.")
    return f"{planner}/{hierarchy}"


def scheduled(steps: Sequence[int], every: int, apart: int) -> list[int]:
    """Env steps of the checkpoints that an uninterrupted run would have, too: the first after every `every`, and the last.

    Args:
        apart: env steps from one step of all environments to the next.
    """
    return [at for at in steps if at == steps[-1] or (at >= every and at % every < apart)]


def checkpoints_of(folder: Path) -> list[Path]:
    """All checkpoints of a run folder, earliest first; the one that is named, if it is one.

    Raises:
        UserError: there is none.
    """
    found = sorted(path for path in (folder / "checkpoints").glob("step_*") if re.fullmatch(r"step_\d+", path.name))
    return [resolve(path) for path in found or [folder]]


def _measure(paths: Sequence[Path], settings: Mapping[str, Any], seed: int, context: Context) -> dict[str, Any]:
    asked = {**settings, "checkpoints": [str(path) for path in paths], "seed": seed}
    return {**measured("benchmarks.planner_measure", asked, context), "reached": None}


def summarise(options: Options, records: list[Record]) -> dict[str, Any]:
    """`{runs, pooled, costs}`: of every run its figures, `[{variant, seed, error, checkpoints: [{env_steps, task, candidates: {M:
    figures}}]}]`, and what `benchmarks.planner_table` makes of them."""
    runs = [
        {
            "variant": record["variant"],
            "seed": record["seed"],
            "error": record["error"],
            "checkpoints": (record["figures"] or {}).get("checkpoints", []),
        }
        for record in records
    ]
    return {"runs": runs, "pooled": pooled(runs), "costs": costs(runs)}


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
