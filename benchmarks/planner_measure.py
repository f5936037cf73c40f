"""One measurement of `benchmarks.planner`, in a process of its own: checkpoints in, `summary.json` out.

python -m benchmarks.planner_measure '{"checkpoints": [FOLDER], "folder": OUT, ...}'
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.agent import Agent, AgentState, Observations
from agent.checkpoint import load_meta
from agent.evaluation import TaskResult, evaluate, seeded
from agent.loading import load_agent, trained_config
from benchmarks.measuring import answer
from envs import EnvConfig, TaskSpace, make_envs, make_task_space
from envs.errors import UserError
from hierarchy.planner import make_planner

ENVS = 16  # environments played side by side


class Watched:
    """An agent as `agent.evaluation` plays it, and which episode is which: number 0 is the first that began.

    An evaluation answers its episodes in the order of their ends, which depends on the agent. Its layouts it deals out in the
    order of their beginnings, the same ones to every agent.

    Attributes:
        shown: what each episode began with.
        length: steps of each episode.
    """

    def __init__(self, agent: Agent, episodes: int) -> None:
        self.device, self._agent, self._episodes = agent.device, agent, episodes
        self.shown: list[bytes] = []
        self.length: list[int] = []
        self._ended: list[int] = []
        self._playing: dict[int, int] = {}  # environment -> episode

    def initial_state(self, batch: int) -> AgentState:
        return self._agent.initial_state(batch)

    def act(
        self, obs: Observations, first: NDArray[np.bool_], state: AgentState, mode: str = "sample"
    ) -> tuple[NDArray[Any], NDArray[np.float32], AgentState]:
        for i in np.flatnonzero(first).tolist():
            if i in self._playing:
                self._ended.append(self._playing.pop(i))
            if len(self.length) < self._episodes:  # other environments idle along
                self._playing[i] = len(self.length)
                self.length.append(0)
                self.shown.append(b"".join(rows[i].tobytes() for rows in obs.values()))
        for episode in self._playing.values():
            self.length[episode] += 1
        return self._agent.act(obs, first, state, mode)

    def outcomes(self, result: TaskResult) -> list[bool]:
        """The successes of `result` in the order in which the episodes began.

        Raises:
            UserError: they are not the episodes that were seen: one was given up, and another played in its place.
        """
        order = [*self._ended, *(self._playing[i] for i in sorted(self._playing))]  # the last to end were followed by no decision
        if [self.length[episode] for episode in order] != result.length:
            raise UserError("an environment broke down while it was played: which layouts were played cannot be told")
        success = dict(zip(order, result.success, strict=True))
        return [bool(success[episode]) for episode in range(len(order))]


def measure_checkpoint(path: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Evaluate one checkpoint with every number of candidates, on the same held-out layouts.

    Args:
        settings: `task`, `planner`, `horizon`, `candidates` (0: the policy alone), `episodes`, `calls` (timed ones), `seed`.

    Returns:
        `{env_steps, task, candidates: {M: figures}}`; `outcomes` of figures is success by layout, in one order for every M.

    Raises:
        UserError: a planner that the hierarchy has no use for, or layouts that were not the same.
    """
    meta = load_meta(path)
    config = trained_config(meta, path, ("env", "model", "hierarchy"))
    agent = load_agent(path, "cpu")
    env = replace(config.env, vectorization="sync", num_envs=ENVS, tasks=[settings["task"]])
    tasks = make_task_space(env)
    found: dict[str, Any] = {}
    shown: list[bytes] | None = None
    for candidates in settings["candidates"]:
        planned = replace(
            config.hierarchy,
            planner=settings["planner"] if candidates else "none",
            candidates=max(candidates, 1),
            plan_horizon=settings["horizon"],
        )
        agent.planner = make_planner(agent.hierarchy, agent.model, planned)
        watched: Any = Watched(agent, settings["episodes"])
        result = evaluate(watched, env, tasks, settings["episodes"], seed=settings["seed"])[tasks.hardest.id]
        outcomes, shown = watched.outcomes(result), shown or watched.shown
        if watched.shown != shown:
            raise UserError(f"{candidates} candidates were not shown the layouts that the others were")
        found[str(candidates)] = {
            "successes": sum(outcomes),
            "episodes": len(outcomes),
            "outcomes": outcomes,
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


if __name__ == "__main__":
    answer(lambda given: {"checkpoints": [measure_checkpoint(Path(path), given) for path in given["checkpoints"]]})
