"""`job=plan`: what a config takes on every rank, and what fits in a given memory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.table import Table

from agent.check import record_bytes, size
from agent.config import RunConfig
from agent.console import console, print_line
from agent.plan.budget import Budget, budgets, share_of_batch, smallest
from agent.plan.trace import trace
from agent.run_folder import write_json
from agent.settings import check_settings
from envs import make_envs, make_task_space
from envs.errors import UserError
from envs.spaces.specs import EnvSpec
from world_model.engines import check_partitioning, check_sharding

MIB, GIB = 1 << 20, 1 << 30
PARTS = ("weights", "gradi-\nents", "opti-\nmizer", "buckets", "policy", "activa-\ntions", "imagi-\nnation", "acting")


def plan_run(config: RunConfig, folder: Path) -> float:
    """Print the memory that a run needs on each rank; answers the bytes of the smallest configuration that fits.

    Raises:
        UserError: a config that cannot be trained, or keys of `plan` that make no sense.
    """
    check_plan(config)
    spec = env_spec(config)
    shares = {ranks: share_of_batch(config, ranks) for ranks in world_sizes(config)}
    found = {one.batch: one for one in trace(config, spec, sorted({*shares.values()}))}
    table = budgets(config, {ranks: found[batch] for ranks, batch in shares.items()})
    parameters = sum(next(iter(found.values())).sizes)
    best = smallest(table, limit(config))
    if config.plan.json == "-":
        print_line(json.dumps(answer(config, spec, parameters, table, best)))
    else:
        show(config, spec, parameters, table, best)
        if config.plan.json:
            write_json(Path(config.plan.json), answer(config, spec, parameters, table, best))
            print_line(f"Plan: {config.plan.json}")
    return float("inf") if best is None else float(best.total)


def check_plan(config: RunConfig) -> None:
    """Refuse what could not be trained, or planned.

    Raises:
        UserError: says what.
    """
    check_settings(config)
    ranks = config.sharding.tensor_parallel
    check_sharding(replace(config.sharding, engine="deepspeed", stage=3, tensor_parallel=min(ranks, 1)))
    check_partitioning(replace(config.sharding, engine="deepspeed", stage=0), config.model)
    if not config.plan.world_sizes or min(config.plan.world_sizes) < 1:
        raise UserError(f"plan.world_sizes={config.plan.world_sizes} names no number of processes: give [1, 8], say")
    if not world_sizes(config):
        raise UserError(
            f"plan.world_sizes={config.plan.world_sizes} has no multiple of sharding.tensor_parallel={ranks}: give [{ranks}], say"
        )
    if not config.plan.memory_gib > 0:
        raise UserError(f"plan.memory_gib={config.plan.memory_gib} has to be above 0: it is the memory of one GPU in GiB")


def world_sizes(config: RunConfig) -> list[int]:
    """The numbers of processes to plan for: those that groups of tensor parallelism go into."""
    return [ranks for ranks in config.plan.world_sizes if ranks % config.sharding.tensor_parallel == 0]


def left_out(config: RunConfig) -> list[str]:
    """What the plan does not show, and what has to change before a run starts as it is planned."""
    groups = config.sharding.tensor_parallel
    unshared = ", ".join(str(ranks) for ranks in config.plan.world_sizes if ranks % groups)
    lines = []
    if unshared:
        lines.append(f"Not planned: ranks {unshared}, no multiples of sharding.tensor_parallel={groups}")
    if groups > 1:
        lines.append("Not planned: stage 3, which does not go with sharding.tensor_parallel")
    found = {ranks: refusal(config, ranks) for ranks in world_sizes(config)}
    return [*lines, *(f"A run refuses {ranks} ranks: {said}" for ranks, said in found.items() if said)]


def refusal(config: RunConfig, ranks: int) -> str | None:
    """Why a run of this config would not start on so many ranks; memory is planned for all the same."""
    try:
        check_settings(config, ranks)
    except UserError as error:
        return str(error)
    return None


def env_spec(config: RunConfig) -> EnvSpec:
    """What the environment shows and takes: one is built, looked at and closed."""
    envs = make_envs(config.env, make_task_space(config.env), 1)
    envs.close()
    return envs.spec


def limit(config: RunConfig) -> int:
    """Bytes of one device."""
    return int(config.plan.memory_gib * GIB)


def replay_bytes(config: RunConfig, spec: EnvSpec) -> int:
    """Main memory that a full replay takes on every rank."""
    held = config.replay.capacity + (config.replay.cache if config.replay.history else 0)
    return held * record_bytes(spec)


def answer(config: RunConfig, spec: EnvSpec, parameters: int, table: Sequence[Budget], best: Budget | None) -> dict[str, Any]:
    """The plan as plain data, all sizes in bytes; `refused` says why a run would not start on so many ranks."""
    refused = {ranks: refusal(config, ranks) for ranks in world_sizes(config)}
    rows = [{**budget.to_dict(limit(config)), "refused": refused[budget.ranks]} for budget in table]
    return {
        "parameters": parameters,
        "batch": config.train.batch,
        "length": config.train.length,
        "memory": limit(config),
        "replay": replay_bytes(config, spec),
        "rows": rows,
        "smallest": None if best is None else {"stage": best.stage, "ranks": best.ranks, "total": best.total},
    }


def show(config: RunConfig, spec: EnvSpec, parameters: int, table: Sequence[Budget], best: Budget | None) -> None:
    """The plan as a table for people."""
    memory, groups = f"plan.memory_gib={config.plan.memory_gib:g}", config.sharding.tensor_parallel
    print_line(
        f"World model: {parameters:,} parameters; an update of {config.train.batch} x {config.train.length} steps "
        "is shared out over the ranks"
        + (f"; groups of {groups} share the decoder (sharding.tensor_parallel)" if groups > 1 else "")
    )
    unit, name = (GIB, "GiB") if max(budget.total for budget in table) >= 4 * GIB else (MIB, "MiB")
    caption = f"fits: into {memory}" + (", without what is offloaded" if config.sharding.offload != "none" else "")
    shown = Table(
        box=None,
        title=f"Memory of each rank's device in {name}",
        caption=caption,
        pad_edge=False,
        collapse_padding=True,
    )
    for heading in ("ranks", "ZeRO", *PARTS, "all"):
        shown.add_column(heading, justify="right", no_wrap=True)
    shown.add_column("fits", no_wrap=True)
    for budget in table:
        state = budget.model
        own = state.parameters + state.copy + budget.frozen, state.gradients, state.optimizer, state.buckets
        parts = (*own, budget.policy, budget.activations, budget.imagination, budget.acting)
        fits = "yes" if budget.total <= limit(config) else "no"
        cells = [f"{number / unit:,.{1 if unit == MIB else 2}f}" for number in (*parts, budget.total)]
        shown.add_row(str(budget.ranks) if not budget.stage else "", str(budget.stage), *cells, fits)
    console.print(shown)
    print_line(
        f"Replay: {size(replay_bytes(config, spec))} of main memory a rank when full (replay.capacity={config.replay.capacity})"
    )
    for line in left_out(config):
        print_line(line)
    if best is None:
        least = min(table, key=lambda budget: budget.total)
        print_line(
            f"Nothing fits into {memory}: the least is {size(least.total)}, with {least.ranks} ranks at stage {least.stage}; "
            "lower train.batch, or give more plan.world_sizes"
        )
    else:
        print_line(f"Smallest that fits into {memory}: {best.ranks} rank(s) at stage {best.stage}, {size(best.total)} each")
