"""A measurement in a process of its own: settings go in as JSON, figures come out as `summary.json`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import Context
from benchmarks.store import write_json
from benchmarks.training import run_process
from envs.errors import UserError

Figures = dict[str, Any]


def measured(module: str, settings: Mapping[str, Any], context: Context) -> Figures:
    """Run `python -m MODULE`, which calls `answer`, beside the run's folder.

    Raises:
        RunError: it failed; what it said last is told.
    """
    out = context.folder.with_name(f"{context.folder.name}_measured")
    asked = json.dumps({**settings, "folder": str(out), "threads": context.threads})
    return run_process([sys.executable, "-m", module, asked], out, context.threads, None, context.stop)


def answer(measure: Callable[[Figures], Figures]) -> None:
    """What such a module does: its only argument are the settings, `folder` and `threads` among them. A UserError is one
    sentence."""
    given = json.loads(sys.argv[1])
    torch.set_num_threads(int(given["threads"]))
    folder = Path(given["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    try:
        figures = measure(given)
    except UserError as error:
        sys.exit(str(error))
    write_json(folder / "summary.json", figures)
