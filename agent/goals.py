"""What a manager asked for in real episodes, and what its worker made of it: figures, and what the goal strip is drawn from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agent.agent import Agent
from agent.config import RunConfig
from agent.console import print_line
from agent.playing import play_episode
from agent.sequences import Episode
from envs import make_task_space
from hierarchy.base import Hierarchy, PolicyState
from hierarchy.diagnostics import code_perplexity, reach
from hierarchy.goal import NO_GOAL
from hierarchy.goal_rewards import best, similarity
from hierarchy.goals import GoalSpace
from world_model.starts import previous_history


def goal_space(hierarchy: Hierarchy) -> GoalSpace | None:
    """Where a hierarchy's goals live: its `goals`, if its state holds the `goal` in force and its `anchor`; else None."""
    goals = getattr(hierarchy, "goals", None)
    return goals if isinstance(goals, GoalSpace) and {"goal", "anchor"} <= hierarchy.initial_state(1).keys() else None


class Listener(Hierarchy):
    """A hierarchy of one environment that is overheard: which goal was chosen at which of its steps."""

    def __init__(self, inner: Hierarchy) -> None:
        super().__init__()
        self.inner = inner
        self.heard: list[tuple[int, Tensor]] = []
        self._step = 0

    def initial_state(self, batch: int) -> PolicyState:
        assert batch == 1
        return self.inner.initial_state(batch)

    def decides(self, state: PolicyState, first: Tensor) -> Tensor:
        return self.inner.decides(state, first)

    def plan(self, z: Tensor, h: Tensor, state: PolicyState, first: Tensor, greedy: bool = False) -> PolicyState:
        if bool(first):  # also where an episode broke down and another is played in its place
            self.heard, self._step = [], 0
        new = bool(self.inner.decides(state, first))
        state = self.inner.plan(z, h, state, first, greedy)
        if new:
            self.heard.append((self._step, state["goal"][0]))
        self._step += 1
        return state

    def follow(self, z: Tensor, h: Tensor, state: PolicyState, greedy: bool = False) -> tuple[Tensor, Tensor]:
        return self.inner.follow(z, h, state, greedy)


@dataclass
class Pursued:
    """One real episode of T steps and the S goals of it; steps at which there was none are not among theirs.

    Attributes:
        start, end: (S,) steps at which a goal was chosen, and at which the next one was, or the episode was over.
        code: (S, M) int64, anchor: (S, P) where they were chosen. z: (T + 1, Z), h: (T + 1, V), as the policy saw them.
    """

    episode: Episode
    start: Tensor
    end: Tensor
    code: Tensor
    anchor: Tensor
    z: Tensor
    h: Tensor


@torch.no_grad()
def pursue(agent: Agent, config: RunConfig, task: str, seed: int, stopped: Callable[[], bool] = lambda: False) -> Pursued:
    """Play one held-out episode of an agent that has a `goal_space` and listen; no planner."""
    goals = goal_space(agent.hierarchy)
    assert goals is not None
    listener = Listener(agent.hierarchy)
    overheard = Agent(agent.model, listener, agent.device)
    tasks = make_task_space(config.env)
    longest = config.eval.max_episode_steps
    episode = play_episode(
        overheard, config.env, tasks, task, config.eval.split, seed, None, stopped, config.eval.policy, longest=longest
    )
    heard = [(step, code) for step, code in listener.heard if step < len(episode)]
    until = [*(step for step, _ in heard), len(episode)][1:]
    given = [(step, end, code) for (step, code), end in zip(heard, until, strict=True) if bool((code != NO_GOAL).all())]
    model = agent.model
    obs = {key: x.to(agent.device) for key, x in model.tokenize({key: value[None] for key, value in episode.obs.items()}).items()}
    taken = torch.as_tensor(episode.action, device=agent.device)
    action = torch.cat([taken, torch.zeros_like(taken[:1])])[None]  # what follows the last observation is not looked at
    first = torch.zeros(1, len(episode) + 1, dtype=torch.bool, device=agent.device)
    first[0, 0] = True
    z, h, context = model.prefill(obs, action, first)
    start, end = (torch.tensor([part[i] for part in given], dtype=torch.int64, device=agent.device) for i in (0, 1))
    code = torch.stack([code for _, _, code in given]) if given else start.new_zeros(0, goals.config.groups)
    seen = model.view(z, previous_history(h, first), context.maps)[0]
    return Pursued(episode, start, end, code, goals.poses(seen[start]), z[0], seen)


@torch.no_grad()
def goal_figures(goals: GoalSpace, pursued: list[Pursued]) -> dict[str, float]:
    """`hierarchy.diagnostics.reach` of real episodes, each goal beside one of far away in the list; `perplexity` of the codes in
    use; `segments`, how many goals there were."""
    z = torch.cat([torch.stack([p.z[p.start], p.z[p.end]], 1) for p in pursued])  # (S, 2, Z)
    h = torch.cat([torch.stack([p.h[p.start], p.h[p.end]], 1) for p in pursued])
    code = torch.cat([p.code for p in pursued])
    step = torch.ones(len(code), 1, device=code.device)
    goal = goals.decode(code, torch.cat([p.anchor for p in pursued]))
    own, other = goals.view(z, h, goal, step), goals.view(z, h, goal.others(), step)
    found = reach(own, other, torch.ones(len(code), device=code.device))
    found["perplexity"] = code_perplexity(code, goals.config.classes)
    return {name: float(value) for name, value in found.items()} | {"segments": len(code)}


def goal_summary(
    agent: Agent, config: RunConfig, stopped: Callable[[], bool] = lambda: False
) -> tuple[dict[str, dict[str, float]], dict[str, Pursued]]:
    """`goal_figures` of every task on `eval.goal_episodes` held-out episodes, and the first of them with goals; empty without."""
    figures: dict[str, dict[str, float]] = {}
    shown: dict[str, Pursued] = {}
    goals = goal_space(agent.hierarchy)
    if goals is None or not config.eval.goal_episodes:
        return figures, shown
    for task in make_task_space(config.env).ids:
        if stopped():
            break
        played = [pursue(agent, config, task, config.seed + i, stopped) for i in range(config.eval.goal_episodes)]
        pursued = [found for found in played if len(found.start)]
        if not pursued:
            continue
        figures[task], shown[task] = goal_figures(goals, pursued), pursued[0]
        print_line(
            f"Goals of {task}: {figures[task]['reached']:.2f} reached, {figures[task]['closer']:.2f} came closer to their own "
            f"than to another's (0.5: the worker does not listen)"
        )
    return figures, shown


def similarities(goals: GoalSpace, pursued: Pursued) -> np.ndarray[Any, np.dtype[np.float32]]:
    """(S, 3): how like their goals segments were when they began and when they ended, and how like they could have been."""
    p = pursued
    z, h = torch.stack([p.z[p.start], p.z[p.end]], 1), torch.stack([p.h[p.start], p.h[p.end]], 1)
    view = goals.view(z, h, goals.decode(p.code, p.anchor), torch.ones(len(z), 1, device=z.device))
    return torch.cat([similarity(view), best(view)[:, -1:]], 1).cpu().numpy()
