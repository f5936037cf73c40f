"""One environment slot: plays whichever task it is asked for, on a layout of its split."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

import numpy as np

from envs.adapter import Adapter, Observation
from envs.building import build_environment
from envs.config import EnvConfig
from envs.deadline import Deadline, TimeUp
from envs.errors import UserError
from envs.faults import FaultError
from envs.guards import SpaceWatch, clean_info, plain_reward
from envs.rewards import RewardTerms
from envs.shaping import TermRecorder
from envs.spaces.specs import EnvSpec
from envs.splits import MAX_DRAWS, next_seed, split_of
from envs.suites import layout_hasher
from envs.tasks import Task

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

RESET_FACTOR = 10  # a reset may take so many times `env.step_timeout`: many environments build a level in it


class SlotStart(NamedTuple):
    """An episode's first observation, and the name of its layout."""

    obs: Observation
    layout: str


class SlotStep(NamedTuple):
    """What one step brought.

    Attributes:
        info: of an episode that ended, its last info; else None.
        odd: what was odd about that info, or nothing.
        terms: float32 (terms,), the reward terms before weighting, where they are measured.
    """

    obs: Observation
    reward: float
    terminated: bool
    truncated: bool
    info: dict[str, Any] | None = None
    odd: str = ""
    terms: np.ndarray | None = None


class BuiltEnv(NamedTuple):
    """The environment of one task and what goes with it."""

    env: Adapter
    recorder: TermRecorder | None
    layout_of: Callable[[Any], str]
    watch: SpaceWatch


class EnvSlot:
    """Plays one task at a time; environments are built once per task, and again after a fault.

    A fault of an environment is an answer, not an exception: whoever steps the slots counts it and decides. Infos are dropped but
    for the last of an episode.

    Args:
        config: how environments are built.
        spec: what they deliver.
        split: layouts of which split are played.
        held_out: ids of the tasks whose layouts are split; on others every layout is played.
        terms: reward terms to measure.
        deadline: how long a step may take; its clock is kept ticking by whoever steps the slots.
        max_steps: of the agent, after which an episode is cut off; 0 for no limit.
    """

    def __init__(
        self,
        config: EnvConfig,
        spec: EnvSpec,
        split: str = "train",
        held_out: frozenset[str] = frozenset(),
        terms: RewardTerms | None = None,
        deadline: Deadline | None = None,
        max_steps: int = 0,
    ) -> None:
        self._config = config
        self._spec = spec
        self._split = split
        self._held_out = held_out
        self._terms = terms
        self._deadline = deadline or Deadline(0)
        self._max_steps = max_steps
        self._steps = 0  # of the episode
        self._built: dict[str, BuiltEnv] = {}
        self._task = ""
        self._env: BuiltEnv | None = None

    def begin(self, task: Task, afresh: bool = False) -> SlotStart | FaultError:
        """Start an episode of `task` on its seed's layout or, if not in the split, the first down `next_seed`'s chain.

        With `afresh` the environment that was played last is thrown away first.

        Raises:
            UserError: no layout of the split turns up.
        """
        if afresh:
            self._discard()
        self._task = task.id
        return self._guarded(self._draw, task, "reset", RESET_FACTOR)

    def step(self, action: Any) -> SlotStep | FaultError:
        """Take the agent's `action`."""
        return self._guarded(self._step, action, "step", 1)

    def close(self) -> None:
        for task in list(self._built):
            self._close(task)

    def _guarded(self, call: Callable[[Any], Answer], argument: Any, name: str, factor: int) -> Answer | FaultError:
        """What a call into the environment answers, or what it did instead; then the environment is thrown away."""
        try:
            return call(argument)
        except UserError:
            raise
        except TimeUp:
            return self._broken(FaultError("timeout", f"a {name} took more than {factor * self._deadline.seconds:g} s"))
        except FaultError as fault:
            return self._broken(fault)
        except Exception as error:  # an environment may raise anything
            return self._broken(_raised(error, name))
        finally:
            self._deadline.stop()

    def _step(self, action: Any) -> SlotStep:
        built = self._env
        assert built is not None  # an episode is begun first
        self._deadline.start()
        obs, reward, terminated, truncated, info = built.env.step(action)
        self._steps += 1
        reward, terminated = plain_reward(reward), bool(terminated)
        truncated = bool(truncated) or self._steps == self._max_steps
        if terminated or truncated:
            built.watch.check()
        terms = None if built.recorder is None else built.recorder.values
        if not (terminated or truncated):
            return SlotStep(obs, reward, terminated, truncated, None, "", terms)
        return SlotStep(obs, reward, terminated, truncated, *clean_info(info), terms)

    def _draw(self, task: Task) -> SlotStart:
        self._env = built = self._environment(task)
        self._steps = 0
        seed, numbers = int(task.seed or 0), task.params.get("numbers")
        for _ in range(MAX_DRAWS):
            self._deadline.start(RESET_FACTOR)
            obs, _ = built.env.reset(seed=seed, options=numbers)
            built.watch.check()
            layout = built.layout_of(obs)
            if task.id not in self._held_out or split_of(layout) == self._split:
                return SlotStart(obs, layout)
            seed = next_seed(seed)
        raise UserError(f"task {task.id} shows no layout of the {self._split} split in {MAX_DRAWS} draws; set env.holdout=false.")

    def _environment(self, task: Task) -> BuiltEnv:
        if task.id not in self._built:
            try:
                raw = build_environment(task, self._config)
            except UserError as error:  # it could be built when the run began
                raise FaultError("raised", str(error)) from error
            try:
                recorder = None if self._terms is None else TermRecorder(raw, self._terms)
                adapter = Adapter(recorder or raw, self._spec)
            except KeyError as error:
                raise FaultError("space_changed", f"{error} is not observed any more") from error
            self._built[task.id] = BuiltEnv(adapter, recorder, layout_hasher(adapter), SpaceWatch(raw))
        return self._built[task.id]

    def _broken(self, fault: FaultError) -> FaultError:
        if self._env is not None and fault.kind in ("raised", "outside_space"):
            try:
                self._env.watch.check()
            except FaultError as cause:  # what it did follows from this
                fault = cause
            except Exception:  # not even its spaces can be read
                log.debug("the spaces of a broken environment cannot be read", exc_info=True)
        self._discard()
        return fault

    def _discard(self) -> None:
        """Throw the present task's environment away: the next episode builds another one."""
        self._env = None
        if self._task in self._built:
            self._close(self._task)

    def _close(self, task: str) -> None:
        with suppress(Exception, TimeUp):  # it is broken, or no longer needed
            self._deadline.start(RESET_FACTOR)
            self._built.pop(task).env.close()
        self._deadline.stop()


def _raised(error: Exception, where: str) -> FaultError:
    text = " ".join(str(error).split())
    return FaultError("raised", f"{type(error).__name__} in {where}{': ' + text[:200] if text else ''}")
