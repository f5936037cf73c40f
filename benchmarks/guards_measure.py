"""One measurement of what guarded delivery costs beside Gymnasium's own vector environments, round by round in turn."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from benchmarks.store import write_json
from envs import EnvConfig, TaskVectorEnv, make_envs, make_task_space
from envs.adapter import Adapter
from envs.building import build_environment
from envs.spaces.specs import ActionSpec, EnvSpec
from envs.tasks import Task

Step = Callable[[np.ndarray], None]  # takes actions (num_envs, *action shape), and resets what has ended


def measure(config: EnvConfig, rounds: int, seconds: float) -> dict[str, Any]:
    """Step both ways in turn, `rounds` times for about `seconds` each, through the same episodes under the same actions.

    Where all happens in this process its own processor time counts, so that other programs do not; else the clock's.

    Returns:
        `steps_per_second` of both (medians), `ratio` of our time to theirs, round by round: `median`, `low` and `high`
        (quartiles), and `extra_microseconds` an env step (the median's).
    """
    ours, theirs = make_envs(config, make_task_space(config)), gymnasium_envs(config)
    clock = time.process_time if config.vectorization == "sync" else time.perf_counter
    ways: dict[str, Step] = {"ours": guarded(ours), "gymnasium": plain(theirs)}
    try:
        pace = max(timed(step, some_actions(ours.spec.action, 50, config.num_envs), clock) for step in ways.values()) / 50
        actions = some_actions(ours.spec.action, max(10, int(seconds / pace)), config.num_envs)
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(rounds):
            for name in sorted(ways, reverse=bool(number % 2)):  # who goes first takes turns too
                taken[name].append(timed(ways[name], actions, clock))
    finally:
        ours.close()
        theirs.close()
    steps = len(actions) * config.num_envs
    ratios = [mine / other for mine, other in zip(taken["ours"], taken["gymnasium"], strict=True)]
    low, middle, high = quantiles(ratios, n=4)
    return {
        "num_envs": config.num_envs,
        "rounds": rounds,
        "steps_a_round": steps,
        "steps_per_second": {name: steps / median(times) for name, times in taken.items()},
        "ratio": {"median": middle, "low": low, "high": high},
        "extra_microseconds": 1e6 * (middle - 1) * median(taken["gymnasium"]) / steps,
    }


def guarded(envs: TaskVectorEnv) -> Step:
    """Our delivery, guards and all."""
    seeds = count()

    def begin(mask: np.ndarray) -> None:
        tasks: list[Task | None] = [envs.tasks.hardest.with_seed(next(seeds)) if ended else None for ended in mask]
        envs.reset(tasks, mask)

    def step(action: np.ndarray) -> None:
        result = envs.step(action)
        ended = result.terminated | result.truncated
        if ended.any():
            begin(ended)

    begin(np.ones(envs.num_envs, bool))
    return step


def plain(envs: gym.vector.VectorEnv[Any, Any, Any]) -> Step:
    """Gymnasium's vector environments, reset by mask as ours are."""
    seeds = count()

    def begin(mask: np.ndarray) -> None:
        some: Any = [next(seeds) if ended else None for ended in mask]
        envs.reset(seed=some, options={"reset_mask": mask})

    def step(action: np.ndarray) -> None:
        _, _, terminated, truncated, _ = envs.step(action)
        ended = terminated | truncated
        if ended.any():
            begin(ended)

    begin(np.ones(envs.num_envs, bool))
    return step


def gymnasium_envs(config: EnvConfig) -> gym.vector.VectorEnv[Any, Any, Any]:
    """Gymnasium's vector environments round the same environments and the same adapter."""
    tasks = make_task_space(config)
    probed = make_envs(config, tasks, 1)
    spec = probed.spec
    probed.close()
    kind = SyncVectorEnv if config.vectorization == "sync" else AsyncVectorEnv
    build = partial(adapted, tasks.hardest, config, spec)
    vector: gym.vector.VectorEnv[Any, Any, Any] = kind([build] * config.num_envs, autoreset_mode=AutoresetMode.DISABLED)
    return vector


def adapted(task: Task, config: EnvConfig, spec: EnvSpec) -> Adapter:
    return Adapter(build_environment(task, config), spec)


def some_actions(spec: ActionSpec, steps: int, num_envs: int) -> np.ndarray:
    """(steps, num_envs, *action shape), uniform."""
    rng = np.random.default_rng(0)
    if spec.kind == "box":
        return rng.uniform(-1, 1, (steps, num_envs, *spec.shape)).astype(spec.agent_dtype)
    return rng.integers(spec.size, size=(steps, num_envs)).astype(spec.agent_dtype)


def timed(step: Step, actions: np.ndarray, clock: Callable[[], float]) -> float:
    start = clock()
    for action in actions:
        step(action)
    return clock() - start


def main() -> None:
    """Measure as `{"env", "folder", "rounds", "seconds"}`, the only argument, says."""
    given = json.loads(sys.argv[1])
    folder = Path(given["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "summary.json", measure(EnvConfig(**given["env"]), given["rounds"], given["seconds"]))


if __name__ == "__main__":
    main()
