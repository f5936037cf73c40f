"""Ours and the model-free peer on the curriculum DoorKey 5x5 -> 6x6 -> 8x8, and what an env step has to cost for us to win;
ours and DreamerV3 on DoorKey-5x5 alone, where 20,000 env steps of DreamerV3 take an hour or two of one core.

    python -m benchmarks.doorkey [--only ours|peer|ours-5x5|dreamerv3] [--seeds 1 2 3 4 5] [--quick] [--jobs N] [overrides...]

Ours is `python run.py` as it stands, with `overrides`; the peer takes overrides that start with `peer.`, as `peer.gamma=0.98`,
and DreamerV3 those that start with `dreamerv3.`, as `dreamerv3.max_env_steps=5000`.

Without `--only` the two learners of the curriculum run, and the rows of DoorKey-5x5 alone are shown as far as they are among the
results; a quick run leaves them out. `--only dreamerv3` installs what it needs at first use (see `benchmarks.dreamerv3`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from benchmarks import doorkey_alone
from benchmarks.comparison import break_even_seconds_per_step
from benchmarks.figures import learner_figures, learners_table
from benchmarks.harness import Benchmark, Options, Run
from benchmarks.ours import our_run
from benchmarks.peer_config import PeerConfig
from benchmarks.peer_ppo import peer_config, peer_run
from benchmarks.store import Record, Results

TASKS = PeerConfig().tasks
TARGET = TASKS[-1]
OURS, PEER = "ours", "peer"
OURS_ALONE, DREAMERV3 = "ours-5x5", "dreamerv3"

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
    parser.add_argument(
        "--only",
        choices=(OURS, PEER, OURS_ALONE, DREAMERV3),
        help="one learner: ours or the peer on the curriculum, ours or DreamerV3 on DoorKey-5x5 alone "
        "(DreamerV3 is installed into .venv-dreamerv3 at first use: about 1.5 GB; it takes an hour or two a seed)",
    )


def plan(options: Options) -> list[Run]:
    ours, peers, dreamers = _overrides(options)
    quick = QUICK if options.quick else ()
    runs: dict[str, Callable[[], list[Run]]] = {
        OURS: lambda: [our_run([*quick, *ours], seed, TARGET, OURS) for seed in options.seeds],
        PEER: lambda: [peer_run(peer_config(peers, options.quick), seed, PEER) for seed in options.seeds],
        OURS_ALONE: lambda: doorkey_alone.our_runs(ours, quick, options.seeds),
        DREAMERV3: lambda: doorkey_alone.dreamerv3_runs(dreamers, options.quick, options.seeds),
    }
    only = options.arguments.get("only")
    if only is not None:
        return runs[only]()
    alone = [] if options.quick else [*runs[OURS_ALONE](), *runs[DREAMERV3]()]
    return [*runs[OURS](), *runs[PEER](), *_on_record(alone, options)]


def _on_record(runs: Sequence[Run], options: Options) -> list[Run]:
    """Those of the runs that need not be done again."""
    results = Results(options.results, "doorkey")
    return [
        run
        for run in runs
        if not options.fresh and results.find(run.variant, run.seed, run.config, options.overrides) is not None
    ]


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
        "alone": {"task": doorkey_alone.TASK, **doorkey_alone.alone_figures(records)},
    }


def show(result: dict[str, Any]) -> Group:
    learners = {name: result[name] for name in (OURS, PEER) if result[name]["runs"]}
    alone = {name: result["alone"][name] for name in doorkey_alone.VARIANTS if result["alone"][name]["runs"]}
    shown: list[RenderableType] = []
    if learners:
        shown.append(
            learners_table("Curriculum DoorKey: env steps on all tasks to 0.9 training success", learners, result["tasks"])
        )
    cost, share = result["break_even_seconds_per_step"], result["share_of_peer_steps"]
    if share is not None:
        shown.append(Text(f"Our median is {share:.2f} of the peer's env steps."))
    if cost is not None:
        shown.append(Text(f"We win in wall-clock too where an environment step takes more than {cost * 1000:.1f} ms."))
    if alone:
        shown.append(doorkey_alone.alone_table(alone))
    return Group(*shown)


def _overrides(options: Options) -> tuple[list[str], list[str], list[str]]:
    """Those of ours, of the peer and of DreamerV3."""
    peers = [word.removeprefix("peer.") for word in options.overrides if word.startswith("peer.")]
    dreamers = [word.removeprefix("dreamerv3.") for word in options.overrides if word.startswith("dreamerv3.")]
    return [word for word in options.overrides if not word.startswith(("peer.", "dreamerv3."))], peers, dreamers


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
    "Ours and PPO on the curriculum DoorKey 5x5 -> 6x6 -> 8x8, with the break-even cost of an environment step; "
    "ours and DreamerV3 on DoorKey-5x5 alone.",
    plan,
    summarise,
    show,
    seeds=(1, 2, 3, 4, 5),
    add_arguments=add_arguments,
)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main())
