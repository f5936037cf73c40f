"""How well a trained agent does: evaluated under every policy that is asked for, as figures and as tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rich.table import Table

from agent.agent import Agent
from agent.config import RunConfig
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
from hierarchy.swapped import SwappedGoals, has_goals

Row = dict[str, Any]
SHOWN = ("success", "return")  # of every policy


def evaluation_summary(agent: Agent, config: RunConfig, stopped: Callable[[], bool] = lambda: False) -> dict[str, Row]:
    """Evaluate on held-out layouts of the tasks trained on and of those of `eval.also`, and show it as a table.

    Returns:
        `{task: {success, return, length, info, score, episodes, layouts, success_sample, return_sample, score_sample,
        success_greedy, return_greedy, score_greedy, shuffled, goals, random}}`. The first five are of `eval.policy`; `info` and
        `score` are there where `env.report` and `env.score` are given, `shuffled` and `random` where `eval.shuffle` and
        `eval.random` ask for them: they hold the same five. So does `goals`, under each change of `eval.goals`, and `lost`: the
        share of the success that it costs, None where there was none.

    Raises:
        UserError: `eval.goals` of an agent that has no goals.
        EvaluationStopped: once `stopped` says so.
    """
    tasks = evaluation_tasks(config)
    settings = config.eval
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
    swapped = {kind: played(settings.policy, player=_under_goals(agent, kind, config.seed)) for kind in settings.goals}
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
        if random:
            row["random"] = random[task.id].means(config.env.score)
    console.print(_results_table(summary, settings.policy))
    for name, row in summary.items():
        if "info" in row:
            console.print(_info_table(name, row, settings.policy))
    return summary


def _under_goals(agent: Agent, kind: str, seed: int) -> Agent:
    """The same agent, but for its goals; a planner would choose others, so there is none."""
    if not has_goals(agent.hierarchy):
        raise UserError(f"eval.goals={kind} needs an agent with goals, one of hierarchy=director: give eval.goals=[]")
    return Agent(agent.model, SwappedGoals(agent.hierarchy, kind, seed), agent.device)


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
        others |= {f"goals {kind}": means for kind, means in row.get("goals", {}).items()}
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
