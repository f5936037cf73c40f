"""How well a trained agent does: evaluated under every policy that is asked for, as figures and as tables."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from rich.table import Table

from agent.agent import Agent
from agent.config import EvalConfig, RunConfig
from agent.console import console
from agent.evaluation import (
    POLICIES,
    EvaluationStopped,
    StepLimit,
    TaskResult,
    evaluate,
    evaluation_env,
    evaluation_seed,
    evaluation_tasks,
)
from envs.errors import UserError
from hierarchy.base import Hierarchy
from hierarchy.config import SWAPS
from hierarchy.swapped import SwappedGoals, acts_without_goals, has_goals

log = logging.getLogger(__name__)

Row = dict[str, Any]
SHOWN = ("success", "return")  # of every policy
SWAPPED = {"shuffled": "goals of others", "zeroed": "no goals"}  # in the table


def evaluation_summary(agent: Agent, config: RunConfig, stopped: Callable[[], bool] = lambda: False) -> dict[str, Row]:
    """Evaluate on held-out layouts of the tasks trained on and of those of `eval.also`, and show it as a table.

    Returns:
        `{task: {success, return, length, info, score, episodes, layouts, success_sample, return_sample, score_sample,
        success_greedy, return_greedy, score_greedy, shuffled, goals, random}}`. The first five are of `eval.policy`; `info` and
        `score` are there where `env.report` and `env.score` are given, `shuffled` and `random` where `eval.shuffle` and
        `eval.random` ask for them: they hold the same five. So does `goals`, under each change of `eval.goals`, and `lost`: the
        share of the success that it costs, None where there was none; of `zeroed` also who acted then, `by` worker or explorer.

    Raises:
        UserError: `eval.goals` of an agent that has no goals.
        EvaluationStopped: once `stopped` says so.
    """
    tasks = evaluation_tasks(config)
    settings = config.eval
    kinds = swaps(settings, agent.hierarchy)
    if stopped():
        raise EvaluationStopped
    console.print(f"Evaluating {settings.episodes} episodes of each task on the {settings.split} layouts ...")
    limit = StepLimit(settings.max_episode_steps)

    def played(policy: str, shuffle: Sequence[str] = (), player: Agent = agent) -> dict[str, TaskResult]:
        return evaluate(
            player, evaluation_env(config), tasks, settings.episodes, settings.split, policy, evaluation_seed(config),
            shuffle=shuffle, stopped=stopped, limit=limit,
        )  # fmt: skip

    results = {policy: played(policy) for policy in POLICIES}
    shuffled = played(settings.policy, settings.shuffle) if settings.shuffle else {}
    swapped: dict[str, dict[str, TaskResult]] = {}
    for kind in kinds:
        under = SwappedGoals(agent.hierarchy, kind, config.seed)
        unplanned = Agent(agent.model, under, agent.device)  # a planner would choose other goals
        swapped[kind] = played(settings.policy, player=unplanned)
        if under.unchanged:
            log.warning("eval.goals: %d goals stayed their episode's own, as no other had chosen one yet", under.unchanged)
    random = played("random") if settings.random else {}
    summary: dict[str, Row] = {}
    for task in tasks:
        means = {policy: results[policy][task.id].means(config.env.score) for policy in POLICIES}
        result = results[settings.policy][task.id]
        row = summary[task.id] = {**means[settings.policy], "episodes": len(result.success), "layouts": result.layouts}
        for policy in POLICIES:
            row |= {f"{name}_{policy}": means[policy][name] for name in (*SHOWN, "score") if name in means[policy]}
        if shuffled:
            row["shuffled"] = {"modalities": list(settings.shuffle), **shuffled[task.id].means(config.env.score)}
        if swapped:
            row["goals"] = {
                kind: _lost(found[task.id].means(config.env.score), row["success"]) for kind, found in swapped.items()
            }
        if "zeroed" in swapped:
            row["goals"]["zeroed"]["by"] = acts_without_goals(agent.hierarchy)
        if random:
            row["random"] = random[task.id].means(config.env.score)
    console.print(_results_table(summary, settings.policy))
    for name, row in summary.items():
        if "info" in row:
            console.print(_info_table(name, row, settings.policy))
    return summary


def swaps(settings: EvalConfig, hierarchy: Hierarchy) -> list[str]:
    """The changes of goals to evaluate under: those of `eval.goals`; where that is None all, if there are goals.

    Raises:
        UserError: some are asked for, and there are no goals.
    """
    there = has_goals(hierarchy)
    if settings.goals and not there:
        raise UserError(f"eval.goals={settings.goals} needs an agent with goals, one of hierarchy=director: give eval.goals=null")
    return list(settings.goals if settings.goals is not None else SWAPS if there else ())


def _lost(means: Row, success: float) -> Row:
    return means | {"lost": 1 - means["success"] / success if success else None}


def _results_table(summary: dict[str, Row], policy: str) -> Table:
    """A row a task, the policy that counts first; below it what is compared with that one."""
    policies = sorted(POLICIES, key=lambda other: other != policy)
    columns = [*((name, other) for other in policies for name in SHOWN), ("length", "")]
    table = Table("task", *("\n".join(filter(None, column)) for column in columns), "episodes", "layouts")
    table.columns[0].overflow = "fold"  # on narrow terminals names go on in the next line: cut off they would be all alike
    for task, row in summary.items():
        cells = [_number(row.get(f"{name}_{other}" if other else name)) for name, other in columns]
        table.add_row(task, *cells, str(row["episodes"]), str(row["layouts"]))
        others = {"random actions": row.get("random")}
        if "shuffled" in row:
            others = {f"{', '.join(row['shuffled']['modalities'])} of others": row["shuffled"]} | others
        for kind, means in row.get("goals", {}).items():
            others[SWAPPED[kind] + (": explorer alone" if means.get("by") == "explorer" else "")] = means
        for name, means in others.items():
            if means is not None:
                cells = [_number(means.get(figure)) if other in (policy, "") else "" for figure, other in columns]
                table.add_row(f"  {name}", *cells, str(row["episodes"]), "")
    return table


def _info_table(task: str, row: Row, policy: str) -> Table:
    """The score and the means of the entries of `env.report`, the agent's beside those of random actions."""
    players = {policy: row} | ({"random": row["random"]} if "random" in row else {})
    table = Table(f"{task}, when episodes end", *players)
    if "score" in row:
        table.add_row("score", *(_number(means.get("score"), ".2f") + " %" for means in players.values()), end_section=True)
    infos = [means.get("info", {}) for means in players.values()]
    for name in dict.fromkeys(name for info in infos for name in info):
        table.add_row(name, *(_number(info.get(name), ".3g") for info in infos))
    return table


def _number(value: float | None, style: str = ".2f") -> str:
    return "" if value is None else f"{value:{style}}"
