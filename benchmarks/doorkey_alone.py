"""DoorKey-5x5 alone: ours and DreamerV3 under one budget of env steps.

DreamerV3 makes one or two updates a second on a core, so it is compared on the smallest task, not on the curriculum. It runs
twice: with the updates per env step that ours makes while nothing is solved, and with four times as many, which is what its
authors use where env steps are few (Atari 100k: every env step is replayed 128 times). The first 1,000 updates are its warm-up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rich.table import Table

from benchmarks.dreamerv3 import dreamerv3_config, dreamerv3_run
from benchmarks.dreamerv3_config import DreamerV3Config
from benchmarks.figures import learner_figures
from benchmarks.harness import Run
from benchmarks.ours import our_run
from benchmarks.store import Record

TASK = DreamerV3Config().task
OURS, DREAMERV3, DREAMERV3_MORE = "ours-5x5", "dreamerv3-5x5", "dreamerv3-5x5-4x"
VARIANTS = (OURS, DREAMERV3, DREAMERV3_MORE)
MORE = 4  # times the updates


def our_runs(overrides: Sequence[str], quick: Sequence[str], seeds: Sequence[int]) -> list[Run]:
    """Ours on the task alone, under DreamerV3's budget; `overrides` come after that and after those of a quick run."""
    budget = [f"env.tasks=[{TASK}]", f"train.env_steps={DreamerV3Config().max_env_steps}"]
    return [our_run([*budget, *quick, *overrides], seed, TASK, OURS) for seed in seeds]


def dreamerv3_runs(overrides: Sequence[str], quick: bool, seeds: Sequence[int]) -> list[Run]:
    """DreamerV3 on the task alone, with few updates and then with more.

    Raises:
        UserError: a bad override.
    """
    config = dreamerv3_config(overrides, quick)
    more = replace(config, replay_ratio=MORE * config.replay_ratio)
    return [
        dreamerv3_run(settings, seed, variant)
        for variant, settings in ((DREAMERV3, config), (DREAMERV3_MORE, more))
        for seed in seeds
    ]


def alone_figures(records: Sequence[Record]) -> dict[str, Any]:
    """`{variant: figures}` of all variants, those without a run too."""
    return {name: learner_figures([r for r in records if r["variant"] == name], TASK) for name in VARIANTS}


def alone_table(learners: Mapping[str, Mapping[str, Any]]) -> Table:
    """A row for each seed of each learner: what it spent, when it reached the threshold, how well it does at the end."""
    table = Table(title=f"{TASK} alone, {DreamerV3Config().max_env_steps:,} env steps at most", title_justify="left")
    table.add_column("learner")
    table.add_column("seed")
    for name in ("env steps", "updates", "seconds", "steps\nto 0.9", "last 100\nepisodes", "held-out\nlayouts"):
        table.add_column(name, justify="right")
    for learner, figures in learners.items():
        for seed, run in figures["runs"].items():
            if run["error"] is not None:
                table.add_row(learner, seed, f"failed: {run['error']}")
                continue
            training = (run.get("training") or {}).get(TASK) or {}
            held_out = (run.get("tasks") or {}).get(TASK) or {}
            reached = run["reached"]
            spent = (f"{run[key]:,.0f}" for key in ("env_steps", "updates", "wall_seconds"))
            shares = ("-" if share is None else f"{share:.2f}" for share in (training.get("success"), held_out.get("success")))
            table.add_row(learner, seed, *spent, "never" if reached is None else f"{reached:,}", *shares)
    return table
