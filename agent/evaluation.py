"""Evaluation on layouts that training never sees."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from agent.ablation import Shuffle, check_shuffle
from agent.config import EvalConfig, RunConfig
from envs import EnvConfig, SuccessRule, TaskVectorEnv, make_envs, make_task_space
from envs.errors import UserError
from envs.infos import achievement_score, reported
from envs.make import point_task
from envs.tasks import Task, TaskSpace
from hierarchy.config import SWAPS
from world_model.math import forked

if TYPE_CHECKING:  # so that another learner can be evaluated where ours is not installed
    from agent.agent import Agent

log = logging.getLogger(__name__)

POLICIES = ("sample", "greedy")
HELD_OUT = ("test", "validation")
DRAWS = 25  # seeds tried for a layout that has not been played yet


def evaluation_tasks(config: RunConfig) -> TaskSpace:
    """The tasks that are trained on, easy to hard, and those of `eval.also`.

    Raises:
        UserError: `eval.also` names a task that is unknown or trained on, or there is neither suite nor box to take it from.
    """
    tasks, also = make_task_space(config.env), list(config.eval.also)
    if not also:
        return tasks
    if config.env.id is not None and tasks.box is None:
        raise UserError(f"eval.also={also} needs a suite to take these tasks from: give env.suite in place of env.id, or env.box")
    try:
        if tasks.box is None:
            _refuse_twice(also, tasks.ids)
            return make_task_space(replace(config.env, tasks=[*tasks.ids, *also]))
        points = [point_task(config.env, name) for name in also]
        _refuse_twice([point.id for point in points], tasks.ids)
        return TaskSpace((*tasks, *points))
    except UserError as error:
        said = str(error)
        raise UserError(said if said.startswith("eval.also") else f"eval.also: {said.removeprefix('env.tasks: ')}") from error


def _refuse_twice(also: Sequence[str], trained: Sequence[str]) -> None:
    for i, name in enumerate(also):
        if name in trained:
            raise UserError(f"eval.also: {name} is trained on already; drop it there, or from env.tasks")
        if name in also[:i]:
            raise UserError(f"eval.also: {name} is given twice; name each task once")


def evaluation_env(config: RunConfig) -> EnvConfig:
    """The environments of evaluations: as many side by side as `eval.num_envs` says."""
    return replace(config.env, num_envs=config.eval.num_envs or config.env.num_envs)


def evaluation_seed(config: RunConfig) -> int:
    """What decides which held-out layouts are played."""
    return config.seed if config.eval.seed is None else config.eval.seed


class EvaluationStopped(Exception):  # noqa: N818  # not an error
    """An evaluation was asked to stop before its end."""


def check_evaluation(config: EvalConfig, hierarchy: str = "director") -> None:
    """Refuse at the start of a run what its evaluation would stumble over at the end.

    Raises:
        UserError: an unknown policy, split or way to change goals, goals of a hierarchy that has none, no episode, no horizon.
    """
    if config.policy not in POLICIES:
        raise UserError(f"eval.policy={config.policy} is unknown; choose one of {', '.join(POLICIES)}")
    if config.split not in HELD_OUT:
        raise UserError(f"eval.split={config.split} is unknown; choose one of {', '.join(HELD_OUT)}")
    if config.episodes < 1:
        raise UserError(f"eval.episodes={config.episodes} is too few: give 1 or more")
    if config.num_envs is not None and config.num_envs < 1:
        raise UserError(f"eval.num_envs={config.num_envs} is too few: give 1 or more, or null for as many as in training")
    if config.every < 0:
        raise UserError(f"eval.every={config.every} is too few: give 0 for no evaluation during training, or more")
    if config.every_episodes < 1:
        raise UserError(f"eval.every_episodes={config.every_episodes} is too few: give 1 or more")
    if config.max_episode_steps < 1:
        raise UserError(f"eval.max_episode_steps={config.max_episode_steps} is too few: give 1 or more")
    for kind in config.goals or ():
        if kind not in SWAPS:
            raise UserError(f"eval.goals={kind} is unknown; choose of {', '.join(SWAPS)}")
    if config.goals and hierarchy == "flat":
        raise UserError(f"eval.goals={config.goals} needs goals, which hierarchy=flat has not: give hierarchy=director")
    if config.goal_episodes < 0:
        raise UserError(f"eval.goal_episodes={config.goal_episodes} is too few: give 0 for none, or more")
    if config.calibration < 0:
        raise UserError(f"eval.calibration={config.calibration} is too few: give 0 for none, or more")
    if config.video_frames < 1:
        raise UserError(f"eval.video_frames={config.video_frames} is too few: give 1 or more, or eval.video=false")


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Torch draws from `seed` inside, and goes on outside as if nothing had been drawn."""
    with forked(device):
        torch.manual_seed(seed)
        yield


@dataclass
class TaskResult:
    """How an agent did on one task.

    Attributes:
        success, score: of every episode; scores are undiscounted sums of the environment's own rewards.
        infos: of every episode the entries of its last info that `env.report` names.
        layouts: how many different layouts were played (small tasks have few).
    """

    success: list[bool] = field(default_factory=list)
    score: list[float] = field(default_factory=list)
    length: list[int] = field(default_factory=list)
    layouts: int = 0
    infos: list[dict[str, float]] = field(default_factory=list)

    def means(self, score: str | None = None) -> dict[str, Any]:
        """`{success, return, length}` over all episodes; `info`, the reported info entries, where there are any; `score`, of the
        achievements that the entry `score` holds (see `achievement_score`): an episode has unlocked those above 0.
        """
        names = dict.fromkeys(name for entries in self.infos for name in entries)
        info = {name: float(np.mean([entries[name] for entries in self.infos if name in entries])) for name in names}
        figures: dict[str, Any] = {
            "success": float(np.mean(self.success)),
            "return": float(np.mean(self.score)),
            "length": float(np.mean(self.length)),
        }
        if info:
            figures["info"] = info
        unlocked = [name for name in info if score is not None and (name == score or name.startswith(f"{score}."))]
        if unlocked:
            rates = np.mean([[entries.get(name, 0) > 0 for name in unlocked] for entries in self.infos], 0)
            figures["score"] = achievement_score(rates.tolist())
        return figures


@dataclass
class Layouts:
    """Which layouts of one task were played.

    Attributes:
        fresh: look for layouts that were not played yet: only where layouts are held out, and until none turns up any more.
    """

    fresh: bool
    seen: set[str] = field(default_factory=set)


@dataclass
class StepLimit:
    """After how many of the agent's steps an episode is cut off. The first one is told in the log, at once: it takes its time.

    Attributes:
        told: whether that has been said; an evaluation of several policies shares the limit, so that it is said once.
    """

    steps: int = EvalConfig.max_episode_steps
    told: bool = False

    def tell(self, task: Task) -> None:
        if not self.told:
            log.warning(
                "an episode of %s was cut off after eval.max_episode_steps=%d steps, as any will be that takes so long: "
                "give more, or env.max_episode_steps=N if it has no end",
                task.id,
                self.steps,
            )
        self.told = True


def evaluate(
    agent: Agent,
    config: EnvConfig,
    tasks: TaskSpace,
    episodes: int,
    split: str = "test",
    policy: str = "sample",
    seed: int = 0,
    shuffle: Sequence[str] = (),
    stopped: Callable[[], bool] = lambda: False,
    limit: StepLimit | None = None,
    held_out: frozenset[str] | None = None,
) -> dict[str, TaskResult]:
    """Play `episodes` whole episodes of every task; every episode that is begun counts, so quick ones are not favoured.

    One that goes on beyond `limit` is cut off there, so it did not terminate. The layouts of a task depend on `seed`, `episodes`
    and `config` alone: not on the agent, nor on the other tasks.

    The modalities of `shuffle` are shown as they are in another episode (see `agent.ablation`). Sampling inside does not disturb
    the caller's random state. `stopped` is asked at every step. `held_out`: tasks with held-out layouts, where known.

    Raises:
        UserError: `shuffle` names what is not observed.
        EvaluationStopped: `stopped` said so.
    """
    limit = limit or StepLimit()
    envs = make_envs(config, tasks, min(config.num_envs, episodes), split, max_steps=limit.steps, held_out=held_out)
    try:
        with seeded(seed, agent.device):
            check_shuffle(shuffle, envs.spec)
            rule = SuccessRule.parse(config.success)
            results = {}
            for task in tasks:
                # A task's own: how many draws the one before it took depends on how long the agent's episodes lasted.
                rng = np.random.default_rng((seed, 1, zlib.crc32(task.id.encode())))
                # With draws of its own, so that the same layouts are played as without it.
                other = Shuffle(shuffle, envs.num_envs, np.random.default_rng((seed, 2)))
                results[task.id] = _play(agent, envs, task, episodes, policy, rule, rng, other, stopped, config.report, limit)
                if other.unchanged:
                    log.warning(
                        "eval.shuffle: %d episodes of %s were shown their own %s, as nothing else had been seen yet",
                        other.unchanged,
                        task.id,
                        ", ".join(shuffle),
                    )
            return results
    finally:
        envs.close()


def _play(
    agent: Agent,
    envs: TaskVectorEnv,
    task: Task,
    episodes: int,
    policy: str,
    rule: SuccessRule,
    rng: np.random.Generator,
    shuffle: Shuffle,
    stopped: Callable[[], bool],
    report: Sequence[str],
    limit: StepLimit,
) -> TaskResult:
    n = envs.num_envs
    result, known = TaskResult(), set[str]()
    layouts = Layouts(fresh=task.id in envs.held_out)
    counted = np.zeros(n, bool)  # environments whose episode is one of those asked for; the rest idle along
    first = np.ones(n, bool)
    score, length = np.zeros(n), np.zeros(n, int)
    state = agent.initial_state(n)
    begun = 0
    obs: dict[str, np.ndarray] = {}
    while True:
        if stopped():
            raise EvaluationStopped
        if first.any():
            obs, begun = _begin(envs, task, first, counted, begun, episodes, layouts, rng)
            score[first], length[first] = 0.0, 0
            shuffle.begin(obs, first)
        if not counted.any():
            break
        action, _, state = agent.act(shuffle(obs), first, state, policy)
        step = envs.step(action)
        obs, first = step.obs, step.terminated | step.truncated
        score += step.reward
        length += 1
        if step.dropped is not None:  # another episode is played in its place
            begun -= int((step.dropped & counted).sum())
            counted &= ~step.dropped
        for i in np.flatnonzero(first & counted):
            result.success.append(rule.judge(score[i], float(step.reward[i]), bool(step.terminated[i]), step.infos[i]))
            result.score.append(float(score[i]))
            result.length.append(int(length[i]))
            if length[i] == limit.steps and not step.terminated[i]:
                limit.tell(task)
            result.infos.append(reported(step.infos[i], report, known))
    result.layouts = len(layouts.seen)
    return result


def _begin(
    envs: TaskVectorEnv,
    task: Task,
    mask: np.ndarray,
    counted: np.ndarray,
    begun: int,
    episodes: int,
    layouts: Layouts,
    rng: np.random.Generator,
) -> tuple[dict[str, np.ndarray], int]:
    """Reset the masked environments, on layouts not played yet while there are any; answers observations and episodes begun."""
    counted[mask] = False
    obs: dict[str, np.ndarray] = {}
    for i in np.flatnonzero(mask).tolist():
        only = np.zeros(envs.num_envs, bool)
        only[i] = True
        everyone = begun == 0  # the very first reset has to start all of them
        for _ in range(DRAWS if layouts.fresh and begun < episodes else 1):
            chosen = np.ones_like(only) if everyone else only
            everyone = False
            obs = envs.reset([task.with_seed(int(rng.integers(2**31))) if c else None for c in chosen], chosen)
            if envs.layout(i) not in layouts.seen:
                break
        if begun < episodes:
            layouts.fresh = layouts.fresh and envs.layout(i) not in layouts.seen
            layouts.seen.add(envs.layout(i))
            counted[i] = True
            begun += 1
    return obs, begun
