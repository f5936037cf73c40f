"""Several processes against one, by ZeRO stage: the same losses, memory as predicted, and a task mastered.

    python -m benchmarks.sharding [--only losses|memory|doorkey|tensor_parallel] [--quick] [overrides...]

losses: two processes on the CPU share out recorded batches of DoorKey; `max_loss_difference` is the largest difference between
the mean of their losses and the loss of one process (plain PyTorch), as a share of it, over all updates. The bar is 1e-4: both
add up the same float32 numbers in another order, which differs by some 1e-7 an update, and Adam, which divides by the root of
squared gradients, lets such differences grow a little. A batch shared out wrongly, gradients summed up in place of averaged, or
clipped before that, differ by more than 1e-2 within a few updates.

memory: bytes of weights, gradients and optimiser states that each of two and of four processes really holds between a backward
pass and its step, for a model of about 100 M parameters; `memory_error_percent` is the worst of them against what
`world_model.memory.predict` says, which `job=plan` prints.

tensor_parallel: both again, stage `tp2`, under ZeRO-1 with `sharding.tensor_parallel=2`: two processes, which share the decoder,
and four, which are two groups that do.

doorkey: two processes under stage 3 with environments of their own master DoorKey-6x6 under the default curriculum.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from benchmarks.harness import Benchmark, Context, Options, Run
from benchmarks.provenance import ROOT
from benchmarks.store import Record
from benchmarks.training import composed_config, run_command, run_process

STAGES = (0, 1, 2, 3)
BARS = {"max_loss_difference": 1e-4, "memory_error_percent": 10.0}
WORLDS = (2, 4)
UPDATES, QUICK_UPDATES = 50, 4
SETTING = ("env=doorkey", "env.tasks=[DoorKey-6x6]", "device=cpu")
LARGE = ("model=l", "model.layers=8")
PERSISTENCE = 10_000  # of the models of these runs, which are small: more would leave them whole
TASKS = ("DoorKey-5x5", "DoorKey-6x6")
RUN = (
    "env=doorkey", f"env.tasks=[{','.join(TASKS)}]", "env.num_envs=8", "sharding=zero3", f"sharding.persistence={PERSISTENCE}",
    "logger=none", "logger.progress=false", "device=cpu", "train.threads=1", "train.env_steps=80000",
    "train.checkpoint_every=2000", "eval.video=false",
)  # fmt: skip
QUICK_RUN = (
    "model=debug", "train.env_steps=768", "train.random_steps=512", "train.warmup_updates=5", "train.update_every_first=64",
    "train.checkpoint_every=512", "eval.episodes=2", "env.max_episode_steps=40",
)  # fmt: skip


def launcher(processes: int) -> list[str]:
    """The command that starts what follows in so many processes."""
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", choices=("losses", "memory", "doorkey", "tensor_parallel"), help="one part")


def measure(given: dict[str, Any], processes: int, context: Context) -> dict[str, Any]:
    """What rank 0 of `benchmarks.sharding_measure` wrote, which is started in so many processes."""
    context.folder.mkdir(parents=True, exist_ok=True)
    answer = context.folder / f"{given['part']}_{given.get('stage')}_{processes}.json"
    start = launcher(processes) if processes > 1 else [sys.executable]
    command = [*start, "-m", "benchmarks.sharding_measure", json.dumps({**given, "answer": str(answer)})]
    run_command(command, answer.with_suffix(".log"), context.threads, context.stop)
    found = json.loads(answer.read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def compared(alone: Sequence[float], together: Sequence[float]) -> dict[str, Any]:
    """The losses of several processes beside those of one."""
    worst = max(abs(one - two) / abs(one) for one, two in zip(alone, together, strict=True))
    return {"max_loss_difference": worst, "last_losses": [alone[-1], together[-1]]}


def losses_run(overrides: Sequence[str], updates: int, seed: int) -> Run:
    """The losses of one process, then those of two under every stage."""
    config = composed_config([*SETTING, *overrides])
    measurement = {"config": config, "updates": updates, "persistence": PERSISTENCE}

    def execute(context: Context) -> dict[str, Any]:
        batches = str(context.folder / "batches.pt")
        given = {**measurement, "part": "losses", "seed": seed, "batches": batches}
        alone = measure({**given, "stage": None}, 1, context)["loss"]
        stages = {}
        for stage in STAGES:
            together = measure({**given, "stage": stage}, 2, context)["loss"]
            stages[str(stage)] = compared(alone, together)
        reached = all(figures["max_loss_difference"] <= BARS["max_loss_difference"] for figures in stages.values())
        return {"stages": stages, "reached": reached or None}

    return Run("losses", seed, measurement, execute, threads=1)


def memory_run(overrides: Sequence[str], stages: Sequence[int], worlds: Sequence[int], seed: int) -> Run:
    """What is held beside what was predicted, for every stage and number of processes."""
    config = composed_config([*SETTING, *overrides])
    measurement = {"config": config, "stages": list(stages), "worlds": list(worlds)}

    def execute(context: Context) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for stage in stages:
            cases = {}
            for processes in worlds:
                given = {"config": config, "part": "memory", "seed": seed, "stage": stage}
                cases[str(processes)] = measure(given, processes, context)
            worst = max(case["error_percent"] for case in cases.values())
            found[str(stage)] = {"memory_error_percent": worst, "processes": cases}
        reached = all(figures["memory_error_percent"] <= BARS["memory_error_percent"] for figures in found.values())
        return {"stages": found, "reached": reached or None}

    return Run("memory", seed, measurement, execute, threads=1)


def tensor_parallel_run(small: Sequence[str], large: Sequence[str], worlds: Sequence[int], updates: int, seed: int) -> Run:
    """Losses of a model as it is `small`, and memory as it is `large`, where groups of two processes share the decoder."""
    configs = [composed_config([*SETTING, *overrides]) for overrides in (small, large)]
    keys = {"stage": 1, "tensor_parallel": 2, "persistence": PERSISTENCE, "seed": seed}
    measurement = {"configs": configs, "updates": updates, "worlds": list(worlds), **keys}

    def execute(context: Context) -> dict[str, Any]:
        given = {
            "part": "losses",
            "config": configs[0],
            "updates": updates,
            "batches": str(context.folder / "batches.pt"),
            **keys,
        }
        alone = measure({**given, "stage": None}, 1, context)["loss"]
        losses = {str(n): compared(alone, measure(given, n, context)["loss"]) for n in worlds}
        memory = {str(n): measure({"part": "memory", "config": configs[1], **keys}, n, context) for n in worlds}
        worst = {
            "max_loss_difference": max(case["max_loss_difference"] for case in losses.values()),
            "memory_error_percent": max(case["error_percent"] for case in memory.values()),
        }
        reached = all(worst[name] <= bar for name, bar in BARS.items())
        return {"stages": {"tp2": {**worst, "losses": losses, "processes": memory}}, "reached": reached or None}

    return Run("tensor_parallel", seed, measurement, execute, threads=1)


def doorkey_run(overrides: Sequence[str], seed: int) -> Run:
    """Two processes learn DoorKey-5x5, then 6x6; it is reached with the steps at which the latter is mastered."""
    config = composed_config([*RUN, *overrides])

    def execute(context: Context) -> dict[str, Any]:
        command = [*launcher(2), str(ROOT / "run.py"), *RUN, *overrides, f"seed={seed}", f"hydra.run.dir={context.folder}"]
        summary = run_process(command, context.folder, 1, context.report, context.stop)
        return {**summary, "reached": summary["steps_to_threshold"].get(TASKS[-1])}

    return Run("doorkey", seed, {"processes": 2, **config}, execute, int(config["train"]["env_steps"]), threads=1)


def plan(options: Options) -> list[Run]:
    own, quick = list(options.overrides), options.quick
    # In a hurry a small model does: what is held follows the same arithmetic.
    large, worlds = (["model=xs"], WORLDS[:1]) if quick else (list(LARGE), WORLDS)
    parts: dict[str, Callable[[int], Run]] = {
        "losses": lambda seed: losses_run(["model=debug", *own] if quick else own, QUICK_UPDATES if quick else UPDATES, seed),
        "memory": lambda seed: memory_run([*large, *own], STAGES, worlds, seed),
        "tensor_parallel": lambda seed: tensor_parallel_run(
            ["model=debug", *own] if quick else own, [*large, *own], worlds, QUICK_UPDATES if quick else UPDATES, seed
        ),
        "doorkey": lambda seed: doorkey_run([*QUICK_RUN, *own] if quick else own, seed),
    }
    only = options.arguments.get("only")
    return [make(seed) for name, make in parts.items() if only in (None, name) for seed in options.seeds]


def summarise(options: Options, records: list[Record]) -> dict[str, Any]:
    """`stages`: per stage the worst `max_loss_difference` and `memory_error_percent`; `doorkey`: what became of each run."""
    stages: dict[str, dict[str, float]] = {}
    for record in records:
        for stage, figures in (record["figures"] or {}).get("stages", {}).items():
            for name in BARS.keys() & figures.keys():
                own = stages.setdefault(stage, {})
                own[name] = max(figures[name], own.get(name, 0.0))
    runs = [record for record in records if record["variant"] == "doorkey"]
    return {
        "bars": BARS,
        "stages": dict(sorted(stages.items())),
        "memory": [record["figures"]["stages"] for record in records if record["variant"] == "memory" and record["figures"]],
        "doorkey": [
            {
                "seed": record["seed"],
                "error": record["error"],
                "steps_to_threshold": (record["figures"] or {}).get("steps_to_threshold"),
                "seconds": (record["figures"] or {}).get("wall_seconds"),
            }
            for record in runs
        ],
        "errors": {record["variant"]: record["error"] for record in records if record["error"]},
    }


def show(result: dict[str, Any]) -> RenderableType:
    table = Table("ZeRO stage", *BARS, title="Several processes against one", title_justify="left")
    for stage, figures in result["stages"].items():
        table.add_row(stage, *(f"{figures[name]:.2g} (bar {bar:g})" if name in figures else "" for name, bar in BARS.items()))
    lines = [
        Text(f"doorkey, seed {run['seed']}: env steps to mastery {run['steps_to_threshold']}{run['error'] or ''}")
        for run in result["doorkey"]
    ]
    return Group(table, *lines)


BENCHMARK = Benchmark(
    "sharding",
    "Several processes against one, by ZeRO stage: losses, memory, and DoorKey-6x6 mastered.",
    plan,
    summarise,
    show,
    seeds=(1,),
    add_arguments=add_arguments,
)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main())
