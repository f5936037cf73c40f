"""One measurement of `benchmarks.goal_rewards`, in a process of its own: a checkpoint in, `summary.json` out.

python -m benchmarks.goal_rewards_measure '{"checkpoint": FOLDER, "folder": OUT, ...}'
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agent.checkpoint import load_meta
from agent.compare.statistics import bootstrap, interval
from agent.goals import pursue
from agent.loading import load_agent, trained_config
from benchmarks.goal_rewards import FIGURES
from benchmarks.measuring import answer
from envs import make_task_space
from envs.errors import UserError
from hierarchy.director import DirectorHierarchy
from hierarchy.goal_rewards import GOAL_REWARDS, GoalView
from hierarchy.goals import GoalSpace

Reward = Callable[[GoalView], Tensor]
Floats = NDArray[np.float64]

SAME = 1e-6  # up to which two sums of rewards are equal
CONFIDENCE = 0.95


@dataclass
class Segments:
    """N times K steps in a row, of one episode: z (N, K+1, Z), h (N, K+1, V + P), cont (N, K), anchor (N, P) of their beginnings,
    code (N, M) of their ends."""

    z: Tensor
    h: Tensor
    cont: Tensor
    anchor: Tensor
    code: Tensor

    def rows(self, mask: Tensor) -> Segments:
        return Segments(self.z[mask], self.h[mask], self.cont[mask], self.anchor[mask], self.code[mask])


def segments(goals: GoalSpace, z: Tensor, h: Tensor, terminated: bool, K: int) -> Segments:
    """Those that begin at every step of an episode z (T+1, Z), h (T+1, V + P) and end as goals see it elsewhere."""
    at = torch.arange(max(0, len(z) - K)).unsqueeze(1) + torch.arange(K + 1)  # (N, K+1)
    cont = torch.ones(len(z) - 1)
    cont[-1:] = float(not terminated)
    anchor = goals.poses(h[at[:, 0]])
    found = Segments(z[at], h[at], cont[at[:, :-1]], anchor, goals.encode(z[at[:, -1]], h[at[:, -1]], anchor))
    return found.rows(moves(seen(goals, found, found.code)))


def seen(goals: GoalSpace, given: Segments, code: Tensor) -> GoalView:
    """Segments under the goals of such codes (N, M), as they look from where the segments began."""
    return goals.view(given.z, given.h, goals.decode(code, given.anchor), given.cont)


def arriving(goals: GoalSpace, given: Segments, steps: int) -> GoalView:
    """Segments under the goal of the state after so many steps, in which they stay from then on; those that go there."""
    at = torch.arange(given.cont.shape[1] + 1).clamp(max=steps)
    z, h = given.z[:, at], given.h[:, at]
    code = goals.encode(z[:, -1], h[:, -1], given.anchor)
    view = seen(goals, replace(given, z=z, h=h, cont=torch.ones_like(given.cont)), code)
    there = moves(view)
    agreement = None if view.agreement is None else view.agreement[there]
    return replace(
        view,
        codes=view.codes[there],
        there=view.there[there],
        goal=view.goal[there],
        cont=view.cont[there],
        agreement=agreement,
    )


def moves(view: GoalView) -> Tensor:
    """(N,) bool: the last state is another one than the first."""
    return (view.codes[:, 0] != view.codes[:, -1]).any(-1)


def up_to(view: GoalView, steps: int) -> GoalView:
    """The same segments, their episodes ended after so many steps."""
    cont = view.cont[:, :steps].clone()
    cont[:, -1] = 0.0
    return replace(view, codes=view.codes[:, : steps + 1], there=view.there[:, : steps + 1], cont=cont)


def rising(reward: Reward, own: GoalView) -> Tensor:
    """Kendall's tau (N,) of what is paid for the states of segments and their order."""
    first = [torch.cat([x[:, :1], x], 1) for x in (own.codes, own.there)]  # as if the first state had been arrived at, too
    paid = reward(replace(own, codes=first[0], there=first[1], cont=torch.cat([torch.ones_like(own.cont[:, :1]), own.cont], 1)))
    last = [x[:, -1:].expand_as(x) for x in (own.codes, own.there)]
    staying = reward(replace(own, codes=last[0], there=last[1], cont=torch.ones_like(own.cont)))
    likeness = bool((torch.cat([paid[:, :1], staying], 1).abs() > SAME).any())  # and not the increase of one
    value = paid if likeness else paid.cumsum(1)  # (N, K+1)
    earlier, later = torch.triu_indices(value.shape[1], value.shape[1], 1)
    change = value[:, later] - value[:, earlier]
    return ((change > SAME).double() - (change < -SAME).double()).mean(1)


def sums(reward: Reward, own: GoalView, others: Sequence[GoalView], early: Mapping[int, GoalView]) -> Floats:
    """What the figures of some segments are divided from: (4, 2), the numerators and denominators of `FIGURES`.

    Args:
        own: N segments under their own goals; others: the same ones under goals of others.
        early: segments that are at their goal after so many steps and stay there.
    """
    paid = reward(own).double().sum(1)  # (N,)
    other = torch.stack([reward(view).double().sum(1) for view in others])  # (R, N)
    wins = (paid > other + SAME).double() + 0.5 * ((paid - other).abs() <= SAME)
    forgone, full = 0.0, 0.0
    for steps, view in early.items():
        stayed = reward(view).double().sum()
        full += float(stayed)
        forgone += float(stayed - reward(up_to(view, steps)).double().sum())
    number = float(len(paid))
    return np.array([
        (float(other.mean(0).sum()), float(paid.sum())),
        (float(rising(reward, own).sum()), number),
        (forgone, full),
        (float(wins.mean(0).sum()), number),
    ])  # fmt: skip


def figures_of(parts: Floats) -> Floats:
    """`sums` of episodes (E, ..., 4, 2) -> the figures of all of them (..., 4); not a number where being there pays nothing."""
    whole = parts.sum(0)
    return np.divide(whole[..., 0], whole[..., 1], out=np.full(whole.shape[:-1], np.nan), where=whole[..., 1] > 0)


def worth(figures: Floats) -> Floats:
    """The rule of `benchmarks.goal_rewards`: figures (..., 4) -> (...,); -1 where one is not a number."""
    unrelated, rise, ending, telling = np.moveaxis(figures, -1, 0)
    goods = np.stack([1 - np.abs(unrelated), rise, 1 - np.abs(ending), 2 * telling - 1], -1)
    return np.asarray(np.where(np.isnan(goods), -1.0, goods).min(-1))


def table(names: Sequence[str], parts: Floats, resamples: int, seed: int) -> dict[str, dict[str, Any]]:
    """`{reward: {figure: {value, low, high}, worth, best_in, own}}` from sums (E, rewards, 4, 2); `own`: paid under own goals."""
    found = figures_of(parts)  # (rewards, 4)
    draws = bootstrap([parts], figures_of, resamples, np.random.default_rng(seed))  # (resamples, rewards, 4)
    low, high = interval(draws, CONFIDENCE)
    worths, winners = worth(found), worth(draws).argmax(1)
    own = parts[:, :, 0, 1].sum(0) / parts[:, :, 1, 1].sum(0)
    return {
        name: {
            figure: {key: _number(x[i, j]) for key, x in (("value", found), ("low", low), ("high", high))}
            for j, figure in enumerate(FIGURES)
        }
        | {"worth": float(worths[i]), "best_in": float((winners == i).mean()), "own": float(own[i])}
        for i, name in enumerate(names)
    }


def _number(x: float) -> float | None:
    return float(x) if np.isfinite(x) else None


def elsewhere(codes: Sequence[Tensor], number: int, generator: torch.Generator) -> list[Tensor]:
    """Codes (N, M) of each episode -> (number, N, M), beside each of them so many of other episodes, all as likely."""
    lengths = [len(each) for each in codes]
    own = torch.tensor(lengths).repeat_interleave(torch.tensor(lengths))  # (all,) of its episode
    before = torch.tensor([0, *lengths[:-1]]).cumsum(0).repeat_interleave(torch.tensor(lengths))
    drawn = (torch.rand(number, len(own), generator=generator, dtype=torch.float64) * (len(own) - own)).long()
    drawn += own * (drawn >= before)
    return list(torch.cat(list(codes))[drawn].split(lengths, 1))


@torch.no_grad()
def measure(path: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Play held-out episodes with a checkpoint's agent, then pay for them by every reward.

    Args:
        settings: `task` (None: the hardest), `episodes`, `others` (unrelated goals a segment), `resamples`, `seed`.

    Raises:
        UserError: no director, a task that it has not, goals of a single step, or episodes that lead nowhere.
    """
    meta = load_meta(path)
    config = trained_config(meta, path, ("env", "model", "hierarchy", "eval"))
    agent = load_agent(path, "cpu")
    hierarchy, tasks = agent.hierarchy, make_task_space(config.env)
    if not isinstance(hierarchy, DirectorHierarchy):
        raise UserError(f"{path} has no goals: give a run of hierarchy=director")
    goals, K = hierarchy.goals, hierarchy.period
    task, seed = settings["task"] or tasks.hardest.id, int(settings["seed"])
    if task not in tasks.ids:
        raise UserError(f"--task {task} is none of the run's: choose one of {', '.join(tasks.ids)}")
    if K < 2:
        raise UserError(f"hierarchy.period={K}: goals of a single step are never on the way")
    played = [pursue(agent, config, task, seed + i) for i in range(settings["episodes"])]
    given = [segments(goals, p.z, p.h, p.episode.terminated, K) for p in played]
    given = [each for each in given if len(each.code)]
    if len(given) < 2:
        raise UserError(f"{len(given)} of {len(played)} episodes of {task} led anywhere in {K} steps: 2 are needed, play more")
    drawn = elsewhere([each.code for each in given], settings["others"], torch.Generator().manual_seed(seed))
    parts = []
    for each, unrelated in zip(given, drawn, strict=True):
        own, others = seen(goals, each, each.code), [seen(goals, each, codes) for codes in unrelated]
        early = {steps: arriving(goals, each, steps) for steps in range(1, K)}
        parts.append([sums(reward, own, others, early) for reward in GOAL_REWARDS.values()])
    number = sum(len(each.code) for each in given)
    return {
        "task": task,
        "env_steps": meta["env_steps"],
        "split": config.eval.split if config.env.holdout else "played",
        "period": K,
        "place": config.hierarchy.goals.place,
        "episodes": len(played),
        "mean_length": float(np.mean([len(p.episode) for p in played])),
        "segments": number,
        "left_out": sum(max(0, len(p.z) - K) for p in played) - number,
        "rewards": table(list(GOAL_REWARDS), np.array(parts), settings["resamples"], seed),
    }


if __name__ == "__main__":
    answer(lambda given: measure(Path(given["checkpoint"]), given))
