"""`job=audit`: prints what a replay holds and what is wrong with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from agent.audit.folder import FolderAudit, audit_folder, find_folders
from agent.audit.layouts import check_layouts, env_of_run
from agent.config import RunConfig
from agent.console import console, print_line
from envs.errors import UserError

SHOWN = 20  # findings of a kind at most, of every folder


def audit(config: RunConfig, folder: Path) -> float:
    """Look through the shards of `audit.data`; answers how much is wrong, 0 where nothing is. Nothing is written.

    Raises:
        UserError: there are none.
    """
    given = [config.audit.data] if isinstance(config.audit.data, str) else config.audit.data
    if not isinstance(given, list) or not given or not all(isinstance(path, str) for path in given):
        raise UserError("job=audit needs audit.data=FOLDER, a run folder or a folder of shards, or several as [FOLDER, FOLDER]")
    if config.audit.layouts < 0:
        raise UserError(f"audit.layouts={config.audit.layouts} is too few: give 1 or more episodes, or 0 to check no layouts")
    wrong = 0
    for found in track(find_folders(given), "Reading", console=console, transient=True, disable=not config.logger.progress):
        result = audit_folder(found)
        add_layouts(result, config.audit.layouts)
        console.print(audit_table(result))
        for kind, findings in (("wrong", result.faults), ("note", result.notes)):
            for sentence in findings[:SHOWN]:
                print_line(f"{kind}: {sentence}")
            if len(findings) > SHOWN:
                print_line(f"{kind}: ... and {len(findings) - SHOWN} more")
        wrong += len(result.faults)
    print_line(f"Verdict: {wrong} found wrong" if wrong else "Verdict: clean")
    return float(wrong)


def add_layouts(result: FolderAudit, most: int) -> None:
    """Add to the findings those on layouts, where the folder is the replay of a run."""
    run = next((place for place in result.folder.parents if (place / "config.yaml").is_file()), None)
    env = env_of_run(run) if run is not None else None
    real = [shard for shard in result.shards if shard.source == "real" and shard.spec is not None]
    if env is None or not real or real[0].spec is None:
        return
    wrong, notes = check_layouts(env, real[0].spec, [start for shard in real for start in shard.starts], most)
    result.faults += wrong
    result.notes += notes


def audit_table(result: FolderAudit) -> Table:
    """What a folder holds, for people."""
    table = Table("", "", title=f"Replay {escape(str(result.folder))}", title_justify="left", show_header=False)
    shards = result.shards
    returns = np.array([value for shard in shards for value in shard.returns])
    tasks: Counter[str] = sum((shard.tasks for shard in shards), Counter())
    rows: dict[str, str] = {
        "shards": f"{len(shards):,}",
        "episodes": f"{len(returns):,}, {sum(shard.held_out for shard in shards):,} of them held out",
        "steps": f"{sum(shard.steps for shard in shards):,}",
        "returns": f"{returns.mean():.3g} on average, {returns.min():.3g} to {returns.max():.3g}" if len(returns) else "none",
        "tasks": ", ".join(f"{task} ({count:,})" for task, count in sorted(tasks.items())) or "none",
        "source": _counted(shard.source for shard in shards),
        "environment": _said(result.told("environment")),
        "seed": _said(result.told("seed")),
        "licence": _said(result.told("licence")),
        "versions": "; ".join(", ".join(f"{k} {v}" for k, v in found.items()) for found in result.told("versions"))
        or "not stated",
        "checksums": _counted(shard.sums for shard in shards),
        "size": f"{sum(shard.size for shard in shards) / 2**20:,.1f} MiB, {_counted(shard.compression for shard in shards)}",
    }
    for name, value in rows.items():
        table.add_row(name, escape(value))
    return table


def _counted(names: Any) -> str:
    counts = Counter(names)
    return ", ".join(name if len(counts) == 1 else f"{name} ({count:,})" for name, count in sorted(counts.items())) or "none"


def _said(answers: Sequence[Any]) -> str:
    return ", ".join(map(str, answers)) or "not stated"
