"""Evaluation on layouts that training never sees."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from agent.agent import Agent
from envs import EnvConfig, SuccessRule, make_envs
from envs.tasks import Task, TaskSpace

DRAWS = 25  # seeds tried for a layout that has not been played yet


@dataclass
class TaskResult:
    """How an agent did on one task.

    Attributes:
        success, score: of every episode; scores are undiscounted sums of the environment's own rewards.
        layouts: how many different layouts were played (small tasks have few).
    """

    success: list[bool] = field(default_factory=list)
    score: list[float] = field(default_factory=list)
    length: list[int] = field(default_factory=list)
    layouts: int = 0


def evaluate(
    agent: Agent, config: EnvConfig, tasks: TaskSpace, episodes: int, split: str = "test", policy: str = "sample", seed: int = 0
) -> dict[str, TaskResult]:
    """Play `episodes` whole episodes of every task; every episode that is begun counts, so quick ones are not favoured.

    Sampling inside does not disturb the caller's random state.
    """
    rng = np.random.default_rng((seed, 1))
    envs = make_envs(config, tasks, min(config.num_envs, episodes), split)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return {task.id: _play(agent, envs, task, episodes, policy, SuccessRule.parse(config.success), rng) for task in tasks}
    finally:
        envs.close()


def _play(agent: Agent, envs, task: Task, episodes: int, policy: str, rule: SuccessRule, rng: np.random.Generator) -> TaskResult:  # type: ignore[no-untyped-def]
    n = envs.num_envs
    result = TaskResult()
    seen: set[str] = set()
    counted = np.zeros(n, bool)  # environments whose episode is one of those asked for; the rest idle along
    first = np.ones(n, bool)
    score, length = np.zeros(n), np.zeros(n, int)
    state = agent.initial_state(n)
    begun = 0
    obs: dict[str, np.ndarray] = {}
    while True:
        if first.any():
            obs, begun = _begin(envs, task, first, counted, begun, episodes, seen, rng)
            score[first], length[first] = 0.0, 0
        if not counted.any():
            break
        action, _, state = agent.act(obs, first, state, policy)
        step = envs.step(action)
        obs, first = step.obs, step.terminated | step.truncated
        score += step.reward
        length += 1
        for i in np.flatnonzero(first & counted):
            result.success.append(rule.judge(score[i], float(step.reward[i]), bool(step.terminated[i]), step.infos[i]))
            result.score.append(float(score[i]))
            result.length.append(int(length[i]))
    result.layouts = len(seen)
    return result


def _begin(envs, task, mask, counted, begun, episodes, seen, rng):  # type: ignore[no-untyped-def]
    """Reset the masked environments, on layouts not played yet where there are any."""
    counted[mask] = False
    obs = {}
    for i in np.flatnonzero(mask):
        only = np.zeros(envs.num_envs, bool)
        only[i] = True
        everyone = begun == 0 and not seen  # the very first reset has to start all of them
        for _ in range(DRAWS):
            chosen = np.ones_like(only) if everyone else only
            everyone = False
            obs = envs.reset([task.with_seed(int(rng.integers(2**31))) if c else None for c in chosen], chosen)
            if envs.layout(i) not in seen or begun >= episodes:
                break
        if begun < episodes:
            seen.add(envs.layout(i))
            counted[i] = True
            begun += 1
    return obs, begun
