"""Run folders as a finished run leaves them, with figures that tests know by heart."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

TASKS = ("easy", "hard", "harder")
TRAINED = ("easy", "hard")
STEPS = (100, 200, 300, 400)

# Success at every evaluation of each task.
FAST = {"easy": (0.5, 1, 1, 1), "hard": (0, 0.5, 1, 1), "harder": (0, 0, 0.5, 1)}
SLOW = {"easy": (0, 0.5, 1, 0.5), "hard": (0, 0, 0, 0.5), "harder": (0, 0, 0, 0)}

Curve = Mapping[str, Sequence[float]]


def write_run(
    folder: Path,
    curriculum: str = "uniform",
    seed: int = 1,
    success: Curve = SLOW,
    revisit: float = 0.2,
    **settings: Any,
) -> Path:
    """A run of 400 env steps; `settings` go into its config, in place of what stands there."""
    folder.mkdir(parents=True)
    rows = [
        {"env_steps": step, "train/probability/easy": 0.75, "train/probability/hard": 0.25, "model/total": 1.0}
        | {f"eval/success/{task}": success[task][i] for task in success}
        for i, step in enumerate(STEPS)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {"seed": seed, "curriculum": {"name": curriculum, "revisit": revisit}, "train": {"env_steps": 400}} | settings
    (folder / "config.yaml").write_text(json.dumps(config))  # JSON is YAML, too
    summary = {
        "env_steps": 400,
        "updates": 50,
        "wall_seconds": 60.0,
        "evaluation_seconds": 5.0,
        "tasks": {task: {"success": curve[-1], "episodes": 100} for task, curve in success.items()},
        "training": {task: {"success": 0.5, "episodes": 7} for task in success if task != "harder"},
        "steps_to_threshold": {"easy": 150, "hard": None},
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def write_sweep(folder: Path, seeds: int = 2) -> Path:
    """`fast` and `uniform`, some seeds each."""
    for seed in range(1, seeds + 1):
        write_run(folder / f"curriculum=fast,seed={seed}", "fast", seed, FAST)
        write_run(folder / f"curriculum=uniform,seed={seed}", "uniform", seed)
    return folder
