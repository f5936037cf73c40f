"""A training run of Strata itself as a run of a benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.harness import Context, Run
from benchmarks.training import composed_config, train_run


def our_run(overrides: Sequence[str], seed: int, target: str, variant: str = "ours") -> Run:
    """`python run.py OVERRIDES seed=SEED`; it reaches its goal with steps to threshold on the task `target`.

    Raises:
        UserError: `run.py` refuses the overrides.
    """
    config = composed_config(overrides)

    def execute(context: Context) -> dict[str, Any]:
        given = [*overrides, f"seed={seed}"]
        summary = train_run(given, context.folder, context.threads, context.report, context.stop)
        return {**summary, "reached": summary["steps_to_threshold"].get(target)}

    return Run(variant, seed, config, execute, int(config["train"]["env_steps"]), resumes=True)
