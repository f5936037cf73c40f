"""From the `env` config group to a task space and its environments."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from gymnasium import spaces

from envs.boxes import TaskBox
from envs.building import build_environment, check_id
from envs.config import EnvConfig
from envs.deadline import Deadline, TimeUp
from envs.delivery import RESET_FACTOR, EnvSlot
from envs.errors import UserError
from envs.faults import FaultError, FaultLedger
from envs.guards import declared_bounds
from envs.pools import LocalPool
from envs.probe import probe
from envs.rewards import RewardTerms
from envs.shaping import TermRecorder
from envs.spaces.actions import action_spec
from envs.spaces.inference import infer_modalities, space_name
from envs.spaces.leaves import leaves, merged
from envs.spaces.overrides import optional_leaves
from envs.spaces.specs import EnvSpec
from envs.splits import SPLITS, can_hold_out, next_seed
from envs.suites import near, suite_tasks
from envs.tasks import Task, TaskSpace
from envs.vector import TaskVectorEnv

Space = spaces.Space[Any]

log = logging.getLogger(__name__)


def make_task_space(config: EnvConfig) -> TaskSpace:
    """The tasks that a curriculum chooses from: those of `env.suite` (only `env.tasks`, if given), or `env.id` alone.

    `env.kwargs` reach the constructor of every task.

    Raises:
        UserError: neither `env.id` nor `env.suite`, or a name that is unknown.
    """
    if config.id is not None:  # over whatever suite the default recipe names
        check_id(config.id)
        if config.box:
            return _box_tasks(config)
        name = config.id.rpartition(":")[2].rpartition("/")[2]  # without module and namespace: ALE/Pong-v5 is Pong-v5
        return TaskSpace((Task(name, {"env": config.id, "kwargs": dict(config.kwargs)}),))
    if config.box:
        raise UserError("env.box gives numbers to one environment: name it as env.id=...")
    if config.suite is None:
        raise UserError("give env.id=... (one environment) or env.suite=... (an ordered task space).")
    known = {task.id: task for task in suite_tasks(config.suite)}
    chosen = list(known) if config.tasks is None else list(config.tasks)
    if not chosen:
        raise UserError(f"env.tasks is empty; drop it to play all of {config.suite}: {', '.join(known)}.")
    for name in chosen:
        if name not in known:
            raise UserError(f"env.tasks: {name} is no task of {config.suite}{near(name, known)}; these are: {', '.join(known)}.")
        if chosen.count(name) > 1:
            raise UserError(f"env.tasks: {name} is given twice; name each task once.")
    picked = [known[name] for name in chosen]
    return TaskSpace(tuple(Task(t.id, {**t.params, "kwargs": {**t.params.get("kwargs", {}), **config.kwargs}}) for t in picked))


def _box_tasks(config: EnvConfig) -> TaskSpace:
    try:
        box = TaskBox.parse(config.box, config.cells)
    except (ValueError, TypeError) as error:
        raise UserError(f"env.box={dict(config.box)} with env.cells={config.cells} is no box of tasks: {error}") from error
    points = [box.values(box.centre(i)) for i in range(len(box.places))]
    try:
        return TaskSpace(tuple(_point_task(config, numbers) for numbers in points), box)
    except ValueError as error:
        raise UserError(f"env.cells={config.cells} cuts env.box too finely to name its parts ({error}): give fewer") from error


def _point_task(config: EnvConfig, numbers: Mapping[str, float]) -> Task:
    name = "_".join(f"{name}{number:.4g}" for name, number in numbers.items())
    return Task(name, {"env": config.id, "kwargs": dict(config.kwargs), "numbers": dict(numbers)})


def point_task(config: EnvConfig, name: str) -> Task:
    """A task of the environment of `env.box`, in the box or beyond it, by a name like those of its cells: `density0.35_size14`.

    Raises:
        UserError: it does not name every number of the box, or numbers that the environment does not take.
    """
    found = re.fullmatch("_".join(rf"{re.escape(number)}([-+.\deE]+)" for number in config.box), name)
    try:
        numbers = dict(zip(config.box, map(float, found.groups() if found else ()), strict=True))
    except ValueError:
        wanted = "_".join(f"{number}{limits[1]:g}" for number, limits in config.box.items())
        raise UserError(f"{name} is no task of env.box; name all of its numbers, as {wanted}") from None
    task = _point_task(config, numbers)
    for number, limits in (_ranges(task, config) or {}).items():
        if number in numbers and not limits[0] <= numbers[number] <= limits[1]:
            raise UserError(f"{name}: {number} is beyond what {config.id} takes: [{limits[0]:g}, {limits[1]:g}]")
    return task


def _ranges(task: Task, config: EnvConfig) -> Mapping[str, tuple[float, float]] | None:
    """Of the numbers that the environment takes, where it says so (`task_ranges`)."""
    env = build_environment(task, config)
    ranges: Mapping[str, tuple[float, float]] | None = getattr(env.unwrapped, "task_ranges", None)
    with suppress(Exception):  # it is no longer needed
        env.close()
    return ranges


def _check_box(config: EnvConfig, tasks: TaskSpace) -> None:
    """Refuse numbers that the environment does not take, where it says which it does (`task_ranges`)."""
    if tasks.box is None:
        return
    ranges = _ranges(tasks.hardest, config)
    if ranges is None:
        return
    for name, low, high in zip(tasks.box.names, tasks.box.low, tasks.box.high, strict=True):
        if name not in ranges:
            raise UserError(f"env.box.{name} is no number of {config.id}{near(name, ranges)}; these are: {', '.join(ranges)}.")
        lowest, highest = ranges[name]
        if low < lowest or high > highest:
            raise UserError(f"env.box.{name}=[{low:g}, {high:g}] is beyond what {config.id} takes: [{lowest:g}, {highest:g}].")


def make_envs(
    config: EnvConfig,
    tasks: TaskSpace,
    num_envs: int | None = None,
    split: str = "train",
    gamma: float | None = None,
    max_steps: int = 0,
    held_out: frozenset[str] | None = None,
) -> TaskVectorEnv:
    """Vectorised environments that play the tasks of `tasks` on layouts of `split`.

    Args:
        config: the `env` config group.
        tasks: the task space; observation and action spaces have to agree over it.
        num_envs: how many, `env.num_envs` if not given.
        split: `train`, `validation` or `test`; without effect if `env.holdout` is off or a task has too few layouts.
        gamma: the learner's discount; given, the terms of `env.rewards` are measured at every step (evaluation needs none).
        max_steps: of the agent, after which an episode is cut off; 0 for no limit but the environment's own.
        held_out: what `held_out_tasks` answers, where that is known already.

    Raises:
        UserError: an environment that cannot be built, reward terms that it does not have, or spaces that cannot be mapped or
            do not agree.
    """
    if split not in SPLITS:
        raise ValueError(f"split {split!r} is none of {SPLITS}")
    count = config.num_envs if num_envs is None else num_envs
    if count < 1:
        raise UserError(f"env.num_envs={count} has to be at least 1.")
    if config.step_timeout < 0 or config.max_faults < 0:
        raise UserError(f"env.step_timeout={config.step_timeout} and env.max_faults={config.max_faults} have to be 0 or more.")
    if config.score is not None and config.score not in config.report:
        raise UserError(f"env.score={config.score} is none of env.report={list(config.report)}: add it there, or drop env.score.")
    _check_box(config, tasks)
    spec, space = _inspect(config, tasks)
    if held_out is None:
        held_out = held_out_tasks(config, tasks, spec)
    terms = None if gamma is None else RewardTerms.parse(config.rewards, gamma)
    if terms is not None:
        _check_terms(terms, config, tasks)
    slot = partial(EnvSlot, config, spec, split, held_out, terms, max_steps=max_steps)
    again = partial(
        TaskVectorEnv.of_slot,
        slot,
        spec=spec,
        tasks=tasks,
        held_out=held_out,
        terms=terms,
        bounds=declared_bounds(space, spec),
        step_timeout=config.step_timeout,
        max_faults=config.max_faults,
    )
    envs = again(count, config.vectorization)
    envs.again = again
    return envs


def infer_spec(config: EnvConfig, tasks: TaskSpace) -> EnvSpec:
    """What the environments of a task space observe and how they are acted in, from their spaces and a short probe of each task.

    Raises:
        UserError: spaces that cannot be mapped, or that do not agree over the tasks; an environment that cannot even be reset.
    """
    return _inspect(config, tasks)[0]


def _inspect(config: EnvConfig, tasks: TaskSpace) -> tuple[EnvSpec, Space]:
    samples: dict[str, list[list[Any]]] = {}
    first: tuple[Task, Space, Space] | None = None
    observed: Space | None = None  # by any task
    for task in tasks:
        env = build_environment(task, config)
        if first is None:
            first = task, env.observation_space, env.action_space
        observed = merged(observed, env.observation_space) if observed is not None else env.observation_space
        optional = optional_leaves(config.modalities, [leaf.key for leaf in leaves(observed)])
        _check_agreement(first, task, env.observation_space, env.action_space, optional)
        for key, episodes in probe(env, task.id, config.step_timeout, optional).items():
            samples.setdefault(key, []).extend(episodes)
        with suppress(Exception):  # it is no longer needed
            env.close()
    assert first is not None and observed is not None  # a task space is never empty
    if config.image_size < 0:
        raise UserError(f"env.image_size={config.image_size} is no size: give a number of pixels, or 0 to shrink no image.")
    observations = infer_modalities(observed, samples, config.modalities, config.text_bytes, image_size=config.image_size)
    return EnvSpec(observations, action_spec(first[2])), observed


def _check_terms(terms: RewardTerms, config: EnvConfig, tasks: TaskSpace) -> None:
    """Measure the terms once in every task, so that what they name is known to be there.

    An environment that breaks down meanwhile is let pass: its faults are counted when it is played.

    Raises:
        UserError: a term that does not fit.
    """
    for task in tasks:
        env = TermRecorder(build_environment(task, config), terms)
        try:
            deadline = Deadline((RESET_FACTOR + 1) * config.step_timeout)
            with deadline:
                deadline.start()
                env.action_space.seed(0)
                env.reset(seed=0)
                env.step(env.action_space.sample())
        except UserError:
            raise
        except (Exception, TimeUp) as error:  # an environment may raise anything
            log.debug("the reward terms of task %s could not be tried: %r", task.id, error)
        finally:
            with suppress(Exception):
                env.close()


def _check_agreement(
    first: tuple[Task, Space, Space], task: Task, observation_space: Space, action_space: Space, optional: Collection[str]
) -> None:
    # By name, not by equality: text spaces may carry their task's own vocabulary.
    known = {leaf.key: space_name(leaf.space) for leaf in leaves(first[1])}
    found = {leaf.key: space_name(leaf.space) for leaf in leaves(observation_space)}
    way_out = "the tasks of one space must agree: choose fewer by env.tasks, or even them out with a wrapper (env.wrappers)."
    for key in [*known, *(key for key in found if key not in known)]:
        if known.get(key) != found.get(key):
            if key in optional and None in (known.get(key), found.get(key)):
                continue
            ours, theirs = (f"is {name}" if name else "is missing" for name in (known.get(key), found.get(key)))
            if "is missing" in (ours, theirs):
                way_out = f"if it may be, say env.modalities.{key}=optional; else {way_out}"
            raise UserError(f"observation `{key}` {ours} in task {first[0].id} but {theirs} in {task.id}; {way_out}")
    if first[2] != action_space:
        raise UserError(f"the action space is {first[2]} in task {first[0].id} but {action_space} in {task.id}; {way_out}")


def held_out_tasks(config: EnvConfig, tasks: TaskSpace, spec: EnvSpec) -> frozenset[str]:
    """Ids of the tasks that have layouts enough to keep some out of training; of each other one the log says that it has not."""
    if not config.holdout:
        return frozenset()
    pool, faults = LocalPool([partial(EnvSlot, config, spec)], config.step_timeout), FaultLedger(config.max_faults)

    def layout(task: Task, seed: int) -> str:
        while isinstance(answer := pool.begin({0: task.with_seed(seed)}, ())[0], FaultError):
            faults.drop(answer, 0, task.id)
            seed = next_seed(seed)
        return answer.layout

    held_out = frozenset(task.id for task in tasks if can_hold_out(partial(layout, task)))
    pool.close()
    for task in tasks:
        if task.id not in held_out:
            log.warning(
                "task %s has too few layouts to keep some out of training: all are both trained and evaluated on", task.id
            )
    return held_out
