"""Ours and the model-free peer on the curriculum DoorKey 5x5 -> 6x6 -> 8x8, and what an env step has to cost for us to win.

    python -m benchmarks.doorkey [--only ours|peer] [--seeds 1 2 3 4 5] [--quick] [--jobs N] [overrides...]

Ours is `python run.py` as it stands, with `overrides`; the peer takes overrides that start with `peer.`, as `peer.gamma=0.98`.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from rich.console import Group
from rich.text import Text

from benchmarks.comparison import break_even_seconds_per_step
from benchmarks.figures import learner_figures, learners_table
from benchmarks.harness import Benchmark, Options, Run
from benchmarks.ours import our_run
from benchmarks.peer_config import PeerConfig
from benchmarks.peer_ppo import peer_config, peer_run
from benchmarks.store import Record

TASKS = PeerConfig().tasks
TARGET = TASKS[-1]
OURS, PEER = "ours", "peer"

QUICK = (
    "model=debug",
    "logger=none",
    "train.env_steps=1000",
    "train.random_steps=512",
    "train.warmup_updates=5",
    "train.update_every_first=64",
    "eval.episodes=4",
    "env.max_episode_steps=40",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", choices=(OURS, PEER), help="one of the two learners alone")


def plan(options: Options) -> list[Run]:
    runs: list[Run] = []
    ours, theirs = _overrides(options)
    only = options.arguments.get("only")
    if only != PEER:
        quick = QUICK if options.quick else ()
        runs += [our_run([*quick, *ours], seed, TARGET, OURS) for seed in options.seeds]
    if only != OURS:
        runs += [peer_run(peer_config(theirs, options.quick), seed, PEER) for seed in options.seeds]
    return runs


def summarise(options: Options, records: list[Record]) -> dict[str, Any]:
    learners = {name: learner_figures([r for r in records if r["variant"] == name], TARGET) for name in (OURS, PEER)}
    ours, peer = learners[OURS], learners[PEER]
    both = [seed for seed in ours["runs"] if seed in peer["runs"]]
    return {
        "tasks": list(TASKS),
        **learners,
        # Above these seconds of an environment step we also win in wall-clock.
        "break_even_seconds_per_step": _break_even(_medians(ours), _medians(peer)),
        "break_even_per_seed": {seed: _break_even(_reached(ours["runs"][seed]), _reached(peer["runs"][seed])) for seed in both},
        "share_of_peer_steps": _share(ours["steps_to_threshold"]["median"], peer["steps_to_threshold"]["median"]),
    }


def show(result: dict[str, Any]) -> Group:
    learners = {name: result[name] for name in (OURS, PEER) if result[name]["runs"]}
    table = learners_table("Curriculum DoorKey: env steps on all tasks to 0.9 training success", learners, result["tasks"])
    cost, share = result["break_even_seconds_per_step"], result["share_of_peer_steps"]
    lines = [] if share is None else [f"Our median is {share:.2f} of the peer's env steps."]
    if cost is not None:
        lines.append(f"We win in wall-clock too where an environment step takes more than {cost * 1000:.1f} ms.")
    return Group(table, *(Text(line) for line in lines))


def _overrides(options: Options) -> tuple[list[str], list[str]]:
    theirs = [word.removeprefix("peer.") for word in options.overrides if word.startswith("peer.")]
    return [word for word in options.overrides if not word.startswith("peer.")], theirs


def _medians(figures: dict[str, Any]) -> tuple[float | None, float | None]:
    return figures["seconds_to_threshold"]["median"], figures["steps_to_threshold"]["median"]


def _reached(run: dict[str, Any]) -> tuple[float | None, float | None]:
    return (run.get("seconds_to_threshold") or {}).get(TARGET), (run.get("steps_to_threshold") or {}).get(TARGET)


def _break_even(ours: tuple[float | None, float | None], peer: tuple[float | None, float | None]) -> float | None:
    return break_even_seconds_per_step(*ours, *peer)


def _share(ours: float | None, peer: float | None) -> float | None:
    return None if ours is None or peer is None else ours / peer


BENCHMARK = Benchmark(
    "doorkey",
    "Ours and PPO on the curriculum DoorKey 5x5 -> 6x6 -> 8x8, with the break-even cost of an environment step.",
    plan,
    summarise,
    show,
    seeds=(1, 2, 3, 4, 5),
    add_arguments=add_arguments,
)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main())
