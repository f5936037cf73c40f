"""`job=compare`: curricula side by side, from the folders of their runs."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from agent.compare.comparison import check_compare, compare
from agent.compare.page import write_page
from agent.compare.runs import find_folders, load_runs
from agent.compare.tables import write_tables
from agent.compare.wandb_report import write_wandb_report
from agent.config import RunConfig
from agent.console import print_line
from envs.errors import UserError

log = logging.getLogger(__name__)


def compare_runs(config: RunConfig, folder: Path) -> float:
    """Compare the runs of `compare.runs`; writes `comparison.html`, CSV files and a W&B report. Answers the largest area.

    Raises:
        UserError: no run that can be compared.
    """
    settings = config.compare
    check_compare(settings)
    given = [settings.runs] if isinstance(settings.runs, str) else settings.runs
    if not isinstance(given, list) or not given or not all(isinstance(path, str) for path in given):
        raise UserError("job=compare needs compare.runs=FOLDER, a folder of runs, or several as compare.runs=[FOLDER,FOLDER]")
    folders, nowhere = find_folders(given)
    runs, left_out = load_runs(folders)
    for note in (*nowhere, *left_out):
        log.warning(note)
    if not runs:
        why = f": {(nowhere + left_out)[0].rstrip('.')}" if nowhere or left_out else ""
        raise UserError(f"compare.runs={', '.join(given)} holds no finished run to compare{why}")
    comparison = compare(runs, settings, np.random.default_rng(config.seed))
    comparison.notes += [*nowhere, *left_out]
    if comparison.baseline is None and len(comparison.arms) > 1:
        names = ", ".join(arm.name for arm in comparison.arms)
        log.warning(f"There is no run of {settings.baseline}, so no conclusions are drawn; compare.baseline may be {names}.")
    print_line(f"Comparison: {write_page(comparison, folder)}")
    print_line(f"Tables: {', '.join(str(path) for path in write_tables(comparison, folder))}")
    print_line(write_wandb_report(comparison, config.logger, folder))
    return max(float(arm.areas.mean()) for arm in comparison.arms)
