"""What a manager asked for in real episodes, and what its worker made of it: figures, and what the goal strip is drawn from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
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
from hierarchy.diagnostics import code_perplexity, heard, reach, segment_ends
from hierarchy.goal import NO_GOAL
from hierarchy.goal_rewards import GoalView, best, similarity
from hierarchy.goals import GoalSpace
from world_model.starts import previous_history


def goal_space(hierarchy: Hierarchy) -> GoalSpace | None:
    """Where a hierarchy's goals live: its `goals`, if its state holds the `goal` in force and its `anchor`; else None."""
    goals = getattr(hierarchy, "goals", None)
    return goals if isinstance(goals, GoalSpace) and {"goal", "anchor"} <= hierarchy.initial_state(1).keys() else None


class Listener(Hierarchy):
    """A hierarchy of one environment that is overheard.

    Args:
        draw: its goals are drawn (`Hierarchy.propose`), each with one more that is told to nobody.

    Attributes:
        chosen: of the episode so far, the step at which a goal was chosen, its code and that of the one drawn beside it, (M,)
            each; the code twice without `draw`.
    """

    def __init__(self, inner: Hierarchy, draw: bool = False) -> None:
        super().__init__()
        self.inner, self.draw = inner, draw
        self.chosen: list[tuple[int, Tensor, Tensor]] = []
        self._step = 0

    def initial_state(self, batch: int) -> PolicyState:
        assert batch == 1
        return self.inner.initial_state(batch)

    def decides(self, state: PolicyState, first: Tensor) -> Tensor:
        return self.inner.decides(state, first)

    def plan(self, z: Tensor, h: Tensor, state: PolicyState, first: Tensor, greedy: bool = False) -> PolicyState:
        if bool(first):  # also where an episode broke down and another is played in its place
            self.chosen, self._step = [], 0
        new = bool(self.inner.decides(state, first))
        if new and self.draw:
            (_, _, after), (_, _, beside) = (self.inner.propose(z, h, state, first) for _ in range(2))
        else:
            after = beside = self.inner.plan(z, h, state, first, greedy)
        if new:
            self.chosen.append((self._step, after["goal"][0], beside["goal"][0]))
        self._step += 1
        return after

    def follow(self, z: Tensor, h: Tensor, state: PolicyState, greedy: bool = False) -> tuple[Tensor, Tensor]:
        return self.inner.follow(z, h, state, greedy)


@dataclass
class Pursued:
    """One real episode of T steps and the S goals of it; steps at which there was none are not among theirs.

    Attributes:
        start, end: (S,) steps at which a goal was chosen, and at which the next one was, or the episode was over.
        code: (S, M) int64, anchor: (S, P) where they were chosen. z: (T + 1, Z), h: (T + 1, V), as the policy saw them.
        beside: (S, M), codes drawn beside them; of goals that were not drawn the same codes.
    """

    episode: Episode
    start: Tensor
    end: Tensor
    code: Tensor
    anchor: Tensor
    z: Tensor
    h: Tensor
    beside: Tensor


@torch.no_grad()
def pursue(
    agent: Agent, config: RunConfig, task: str, seed: int, stopped: Callable[[], bool] = lambda: False, draw: bool = False
) -> Pursued:
    """Play one held-out episode of an agent that has a `goal_space` and listen; no planner. `draw`: see `Listener`."""
    goals = goal_space(agent.hierarchy)
    assert goals is not None
    listener = Listener(agent.hierarchy, draw)
    overheard = Agent(agent.model, listener, agent.device)
    tasks = make_task_space(config.env)
    longest = config.eval.max_episode_steps
    episode = play_episode(
        overheard, config.env, tasks, task, config.eval.split, seed, None, stopped, config.eval.policy, longest=longest
    )
    chosen = [found for found in listener.chosen if found[0] < len(episode)]
    until = [*(step for step, _, _ in chosen), len(episode)][1:]
    given = [
        (step, last, code, beside)
        for (step, code, beside), last in zip(chosen, until, strict=True)
        if bool((torch.stack([code, beside]) != NO_GOAL).all())
    ]
    model = agent.model
    obs = {key: x.to(agent.device) for key, x in model.tokenize({key: value[None] for key, value in episode.obs.items()}).items()}
    taken = torch.as_tensor(episode.action, device=agent.device)
    action = torch.cat([taken, torch.zeros_like(taken[:1])])[None]  # what follows the last observation is not looked at
    first = torch.zeros(1, len(episode) + 1, dtype=torch.bool, device=agent.device)
    first[0, 0] = True
    z, h, context = model.prefill(obs, action, first)
    start = torch.tensor([step for step, *_ in given], dtype=torch.int64, device=agent.device)
    end = torch.tensor([last for _, last, _, _ in given], dtype=torch.int64, device=agent.device)
    none = [start.new_zeros(0, goals.config.groups)]
    code, beside = (
        torch.cat([*none, *(x.unsqueeze(0) for x in codes)]) for codes in ([g[2] for g in given], [g[3] for g in given])
    )
    seen = model.view(z, previous_history(h, first), context.maps)[0]
    return Pursued(episode, start, end, code, goals.poses(seen[start]), z[0], seen, beside)


@torch.no_grad()
def goal_figures(goals: GoalSpace, pursued: list[Pursued], drawn: list[Pursued]) -> dict[str, float]:
    """What came of goals in real episodes.

    Args:
        pursued: under goals as they are chosen. drawn: under drawn ones.

    Returns:
        `hierarchy.diagnostics.reach` of the former, `perplexity` of their codes and `segments`, how many they were;
        `hierarchy.diagnostics.heard` of the latter and `pairs`, how many asked for something else than those beside them, if any.
    """
    found, code = (
        reach(segment_ends(_ends(goals, pursued, lambda p: p.code)), _all(pursued)),
        torch.cat([p.code for p in pursued]),
    )
    found["perplexity"] = code_perplexity(code, goals.config.classes)
    figures = {name: float(value) for name, value in found.items()} | {"segments": len(code)}
    pairs = [_of(p, goals.decode(p.code, p.anchor).differs(goals.decode(p.beside, p.anchor))) for p in drawn]
    count = sum(len(p.start) for p in pairs)
    if count:
        own, other = (segment_ends(_ends(goals, pairs, told)) for told in (lambda p: p.code, lambda p: p.beside))
        figures |= {name: float(value) for name, value in heard(own, other, _all(pairs)).items()} | {"pairs": count}
    return figures


def _of(pursued: Pursued, which: Tensor) -> Pursued:
    """An episode with some of its goals alone."""
    goals = {name: getattr(pursued, name)[which] for name in ("start", "end", "code", "anchor", "beside")}
    return replace(pursued, **goals)


def _all(pursued: list[Pursued]) -> Tensor:
    """One for every goal."""
    return torch.cat([torch.ones(p.start.shape, device=p.start.device) for p in pursued])


def _ends(goals: GoalSpace, pursued: list[Pursued], code: Callable[[Pursued], Tensor]) -> GoalView:
    """Where each goal was chosen and what came of it, under goals of these codes."""
    z = torch.cat([torch.stack([p.z[p.start], p.z[p.end]], 1) for p in pursued])  # (S, 2, Z)
    h = torch.cat([torch.stack([p.h[p.start], p.h[p.end]], 1) for p in pursued])
    goal = goals.decode(torch.cat([code(p) for p in pursued]), torch.cat([p.anchor for p in pursued]))
    return goals.view(z, h, goal, torch.ones(len(z), 1, device=z.device))


def goal_summary(
    agent: Agent, config: RunConfig, stopped: Callable[[], bool] = lambda: False
) -> tuple[dict[str, dict[str, float]], dict[str, Pursued]]:
    """`goal_figures` of every task, from `eval.goal_episodes` held-out episodes under goals as they are chosen and as many under
    drawn ones, and the first of them with goals; empty without."""
    figures: dict[str, dict[str, float]] = {}
    shown: dict[str, Pursued] = {}
    goals = goal_space(agent.hierarchy)
    if goals is None or not config.eval.goal_episodes:
        return figures, shown
    for task in make_task_space(config.env).ids:
        if stopped():
            break
        pursued = _with_goals(agent, config, task, stopped, draw=False)
        if not pursued:
            continue
        drawn = _with_goals(agent, config, task, stopped, draw=True)
        found = figures[task] = goal_figures(goals, pursued, drawn)
        shown[task] = pursued[0]
        listens = (
            f"{found['heard']:.2f} of drawn ones heard (0.5: the worker does not listen)"
            if "heard" in found
            else "no two drawn in the same state ask for different things"
        )
        print_line(f"Goals of {task}: {found['reached']:.2f} reached; {listens}")
    return figures, shown


def _with_goals(agent: Agent, config: RunConfig, task: str, stopped: Callable[[], bool], draw: bool) -> list[Pursued]:
    played = [pursue(agent, config, task, config.seed + i, stopped, draw) for i in range(config.eval.goal_episodes)]
    return [found for found in played if len(found.start)]


def similarities(goals: GoalSpace, pursued: Pursued) -> np.ndarray[Any, np.dtype[np.float32]]:
    """(S, 3): how like their goals segments were when they began and when they ended, and how like they could have been."""
    view = _ends(goals, [pursued], lambda p: p.code)
    return torch.cat([similarity(view), best(view)[:, -1:]], 1).cpu().numpy()
