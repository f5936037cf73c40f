"""Evaluation on a schedule: how an agent does on the held-out layouts while it is trained."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from agent.agent import Agent
from agent.config import RunConfig
from agent.evaluation import StepLimit, evaluate, evaluation_env, evaluation_seed, evaluation_tasks
from envs.errors import UserError
from envs.make import held_out_tasks, infer_spec
from envs.spaces.specs import EnvSpec


class PeriodicEvaluation:
    """Plays `eval.every_episodes` episodes of every task, and of those of `eval.also`, after every `eval.every` env steps.

    The layouts are the same each time. Nothing is learned from these episodes, no curriculum hears of them, no random state of
    the training is touched, so a run is the same with and without; they count neither as env steps nor as training seconds.

    Attributes:
        next: env steps from which the next evaluation is due.
        seconds: spent here in the whole run.
        success: {task: of the last evaluation}.

    Raises:
        UserError: tasks of `eval.also` that are unknown, are trained on, or are observed or acted in otherwise.
    """

    def __init__(self, config: RunConfig, spec: EnvSpec) -> None:
        self.config, self.every = config, config.eval.every
        self.tasks = evaluation_tasks(config)
        if config.eval.also and infer_spec(config.env, self.tasks).unnamed() != spec.unnamed():
            raise UserError(
                f"eval.also={list(config.eval.also)} are observed or acted in otherwise than the tasks trained on: "
                "choose others, or even them out with a wrapper (env.wrappers)"
            )
        self.held_out = held_out_tasks(config.env, self.tasks, spec) if self.every else None  # once: it takes a hundred resets
        self.limit = StepLimit(config.eval.max_episode_steps)
        self.next = self.every
        self.seconds = 0.0
        self.success: dict[str, float] = {}

    def due(self, env_steps: int) -> bool:
        return self.every > 0 and env_steps >= self.next

    def __call__(self, agent: Agent, env_steps: int, stopped: Callable[[], bool] = lambda: False) -> dict[str, float]:
        """`eval/{success,return,length}/<task>` of the policy `eval.policy`, and `eval/seconds`, spent so far.

        Raises:
            EvaluationStopped: once `stopped` says so; it is due still, then.
        """
        settings, began = self.config.eval, time.perf_counter()
        try:
            results = evaluate(
                agent, evaluation_env(self.config), self.tasks, settings.every_episodes, settings.split, settings.policy,
                evaluation_seed(self.config), stopped=stopped, limit=self.limit, held_out=self.held_out,
            )  # fmt: skip
        finally:
            self.seconds += time.perf_counter() - began
        self.next = (env_steps // self.every + 1) * self.every
        values = {"eval/seconds": self.seconds}
        for task, result in results.items():
            means = result.means()
            self.success[task] = float(means["success"])
            values |= {f"eval/{name}/{task}": means[name] for name in ("success", "return", "length")}
        return values

    def state_dict(self) -> dict[str, Any]:
        """Plain, JSON-able data."""
        return {"next": self.next, "seconds": self.seconds, "success": self.success}

    def load_state_dict(self, state: Mapping[str, Any], env_steps: int) -> None:
        """Continue from `state_dict()`, at `env_steps`; a schedule that has changed since begins from there."""
        self.seconds = float(state.get("seconds", 0.0))
        self.success = dict(state.get("success", {}))
        if self.every:
            self.next = min(int(state.get("next", 0)) or self.every, (env_steps // self.every + 1) * self.every)
