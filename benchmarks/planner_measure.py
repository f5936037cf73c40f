"""One measurement of `benchmarks.planner`, in a process of its own: checkpoints in, `summary.json` out.

python -m benchmarks.planner_measure '{"checkpoints": [FOLDER], "folder": OUT, ...}'
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agent.agent import Agent
from agent.checkpoint import load_meta
from agent.evaluation import evaluate, seeded
from agent.loading import load_agent, trained_config
from benchmarks.provenance import cores
from envs import EnvConfig, TaskSpace, make_envs, make_task_space
from envs.errors import UserError
from hierarchy.planner import make_planner

ENVS = 16  # environments played side by side


def measure_checkpoint(path: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Evaluate one checkpoint with every number of candidates, on the same held-out layouts.

    Args:
        settings: `task`, `planner`, `horizon`, `candidates` (0: the policy alone), `episodes`, `calls` (timed ones), `seed`.
    """
    meta = load_meta(path)
    config = trained_config(meta, path, ("env", "model", "hierarchy"))
    agent = load_agent(path, "cpu")
    env = replace(config.env, vectorization="sync", num_envs=ENVS, tasks=[settings["task"]])
    tasks = make_task_space(env)
    found = {}
    for candidates in settings["candidates"]:
        planned = replace(
            config.hierarchy,
            planner=settings["planner"] if candidates else "none",
            candidates=max(candidates, 1),
            plan_horizon=settings["horizon"],
        )
        agent.planner = make_planner(agent.hierarchy, agent.model, planned)
        result = evaluate(agent, env, tasks, settings["episodes"], seed=settings["seed"])[tasks.hardest.id]
        found[str(candidates)] = {
            "successes": int(sum(result.success)),
            "episodes": len(result.success),
            "layouts": result.layouts,
            "length": float(np.mean(result.length)),
            "milliseconds": milliseconds(agent, env, tasks, 1, settings["calls"], settings["seed"]),
            "milliseconds_of_16": milliseconds(agent, env, tasks, ENVS, settings["calls"], settings["seed"]),
        }
    return {"env_steps": meta["env_steps"], "task": tasks.hardest.id, "candidates": found}


def milliseconds(agent: Agent, env: EnvConfig, tasks: TaskSpace, number: int, calls: int, seed: int) -> float:
    """Median time of one `act` for `number` environments at their first observations, where every planner decides, once all is
    warm."""
    envs = make_envs(env, tasks, number, "test")
    try:
        obs = envs.reset([tasks.hardest.with_seed(seed + i) for i in range(number)])
    finally:
        envs.close()
    first, state, taken = np.ones(number, bool), agent.initial_state(number), []
    with seeded(seed, agent.device):
        for _ in range(calls + 1):
            began = time.perf_counter()
            _, _, state = agent.act(obs, first, state)
            taken.append(1000 * (time.perf_counter() - began))
    return float(np.median(taken[1:]))


def main() -> None:
    given = json.loads(sys.argv[1])
    torch.set_num_threads(int(given.get("threads", cores())))
    folder = Path(given["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    try:
        figures = {"checkpoints": [measure_checkpoint(Path(path), given) for path in given["checkpoints"]]}
    except UserError as error:
        sys.exit(str(error))
    (folder / "summary.json").write_text(json.dumps(figures, allow_nan=False))


if __name__ == "__main__":
    main()
