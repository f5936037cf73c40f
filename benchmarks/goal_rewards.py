"""Which goal reward a worker should be paid by: all of `GOAL_REWARDS` on real, held-out states of trained directors.

    python -m benchmarks.goal_rewards --runs FOLDER ... [--task NAME] [--episodes N] [--quick]

Nothing is trained, but with `--quick` and no run, to see that it works. A run's agent plays held-out episodes of its hardest
task, under its manager's goals. Every K steps in a row of them are a segment, its own goal the state that it ends in, encoded and
decoded as goals are; segments that end as they began are left out, as there was nowhere to go. What every reward pays for them,
summed over the K steps without a discount, is told by
four figures, of all segments alike:

- `unrelated` (0 is ideal): what is paid under goals of other episodes' segments, their codes seen from where this one began, in
  units of what is paid under the own goal. (What all segments do alike, such as going on, is common to them and paid for.)
- `rising` (1): how well states are ranked by how many steps are left to the own goal: of pairs of states of a segment the share
  in the right order less that in the wrong one (Kendall's tau, ties are neither). Ranked by the reward; by its sum from the
  segment's beginning where staying pays nothing, as then it is increases that are paid.
- `ending` (0): what ending the episode costs that has reached its goal early, after 1, .., K - 1 steps, beside staying there for
  the rest: the share of all that is paid. By the reward alone: workers are taught with `forgiving`, which makes up for it.
- `telling` (1, chance 0.5): how often a segment is paid more under its own goal than under another one (a tie counts half).

**The rule**, laid down before anything was measured: a reward is worth the least of 1 - |unrelated|, rising, 1 - |ending| and
2 telling - 1, all of which are 1 at best, and the best is worth most. `best in` is how often it was in resamples. Over several
runs the mean of their worths decides. Intervals: 95 %, episodes drawn anew (bootstrap).

The states are those that a run's own worker came to, which was taught by one of these rewards; the goals are of its autoencoder.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table

from agent.checkpoint import load_meta, resolve
from benchmarks.doorkey import QUICK
from benchmarks.harness import Benchmark, Context, Options, Run
from benchmarks.measuring import measured
from benchmarks.store import Record
from benchmarks.training import composed_config, train_run
from envs.errors import UserError

FIGURES = ("unrelated", "rising", "ending", "telling")
EPISODES, OTHERS, RESAMPLES = 50, 8, 2000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--runs", nargs="+", default=[], metavar="FOLDER", help="runs of a director, or checkpoints of theirs")
    parser.add_argument("--task", help="that is played; default: the hardest one of each run")
    parser.add_argument("--episodes", type=int, help=f"held-out ones that are played; default: {EPISODES}")


def plan(options: Options) -> list[Run]:
    """One run a folder.

    Raises:
        UserError: no folder, one without a whole checkpoint, or too few episodes.
    """
    asked = options.arguments
    if not asked.get("runs") and not options.quick:
        raise UserError("--runs is missing: give run folders of hierarchy=director; nothing is trained here.")
    episodes = asked.get("episodes")
    settings: dict[str, Any] = {
        "task": asked.get("task"),
        "episodes": (4 if options.quick else EPISODES) if episodes is None else episodes,
        "others": 2 if options.quick else OTHERS,
        "resamples": 100 if options.quick else RESAMPLES,
    }
    if settings["episodes"] < 2:
        raise UserError(f"--episodes {settings['episodes']} is too few: goals of other episodes take 2 or more.")
    if not asked.get("runs"):
        return [
            _tried_run(["hierarchy=director", *QUICK, "hierarchy.starts=2", *options.overrides], seed, settings)
            for seed in options.seeds[:1]
        ]
    return [folder_run(Path(folder), settings) for folder in asked["runs"]]


def _tried_run(overrides: list[str], seed: int, settings: Mapping[str, Any]) -> Run:
    """Of a director that has learned next to nothing."""

    def execute(context: Context) -> dict[str, Any]:
        train_run([*overrides, f"seed={seed}"], context.folder, context.threads, context.report, context.stop)
        given = {**settings, "checkpoint": str(resolve(context.folder)), "seed": seed}
        return {**measured("benchmarks.goal_rewards_measure", given, context), "reached": None}

    return Run("director, tried", seed, {"train": composed_config(overrides), "measure": dict(settings)}, execute)


def folder_run(folder: Path, settings: Mapping[str, Any]) -> Run:
    """Measure a run's newest checkpoint, or the one that is named; it is called as the run's folder is, without its seed."""
    path = resolve(folder).resolve()
    meta = load_meta(path)
    seed = int(meta["config"]["seed"])
    config = {"run": {**meta["config"], "env_steps": meta["env_steps"]}, "measure": dict(settings)}

    def execute(context: Context) -> dict[str, Any]:
        asked = {**settings, "checkpoint": str(path), "seed": seed}
        return {**measured("benchmarks.goal_rewards_measure", asked, context), "reached": None}

    return Run(label(path), seed, config, execute)


def label(checkpoint: Path) -> str:
    """`director` of `.../director_seed1_1dbc79/checkpoints/step_000015008`; of a checkpoint that lies elsewhere, its own name."""
    run = checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint
    return re.sub(r"_seed\d+.*", "", run.name)


def summarise(options: Options, records: list[Record]) -> dict[str, Any]:
    """`{runs: [{variant, seed, error, ...}], worth: {reward: mean over the runs}, best: reward or None}`."""
    runs = [
        {key: record[key] for key in ("variant", "seed", "error")} | (record["figures"] or {} if record["error"] is None else {})
        for record in records
    ]
    done = [run["rewards"] for run in runs if run["error"] is None]
    shared = [name for name in (done[0] if done else {}) if all(name in rewards for rewards in done)]
    worth = {name: sum(rewards[name]["worth"] for rewards in done) / len(done) for name in shared}
    return {"runs": runs, "worth": worth, "best": max(worth, key=worth.__getitem__, default=None)}


def show(result: dict[str, Any]) -> Group:
    shown: list[Table | str] = []
    for run in result["runs"]:
        if run["error"] is not None:
            shown.append(f"{run['variant']} seed {run['seed']} failed: {run['error']}")
            continue
        title = f"{run['variant']} seed {run['seed']}, {run['env_steps']:,} env steps: goals of {run['period']} steps\n"
        title += f"{run['task']}: {run['segments']:,} segments of {run['episodes']} {run['split']} episodes"
        table = Table(title=title, title_justify="left", box=box.SIMPLE, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
        table.add_column("", overflow="fold")
        for name in (*FIGURES, "worth", "best\nin"):
            table.add_column(name, justify="right", no_wrap=True)
        for name, found in run["rewards"].items():
            said = [_said(found[figure]) for figure in FIGURES]
            table.add_row(name, *said, f"{found['worth']:.2f}", f"{found['best_in']:.0%}")
        shown.append(table)
    if result["best"] is not None:
        worths = ", ".join(f"{name} {value:.2f}" for name, value in result["worth"].items())
        shown.append(f"Best: {result['best']}. Worth: {worths}")
    return Group(*shown)


def _said(found: Mapping[str, float | None]) -> str:
    if found["value"] is None:
        return "-"
    around = "-" if found["low"] is None else f"{found['low']:z.2f}, {found['high']:z.2f}"
    return f"{found['value']:z.2f}\n{around}"


BENCHMARK = Benchmark(
    "goal_rewards",
    "All goal rewards on held-out states of trained directors: unrelated goals, the way to a goal, ending at it.",
    plan,
    summarise,
    show,
    add_arguments=add_arguments,
)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main())
