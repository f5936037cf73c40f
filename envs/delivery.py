"""One environment slot: plays whichever task it is asked for, on a layout of its split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from envs.adapter import Adapter, Observation, adapted_space
from envs.building import build_environment
from envs.config import EnvConfig
from envs.errors import UserError
from envs.rewards import RewardTerms
from envs.shaping import TermRecorder
from envs.spaces.actions import adapted_action_space
from envs.spaces.specs import EnvSpec
from envs.splits import MAX_DRAWS, next_seed, split_of
from envs.suites import layout_hasher
from envs.tasks import Task

_NO_INFO: dict[str, Any] = {}
TERMS = "/reward_terms"  # where a slot's observation carries its reward terms: no leaf can be called so


@dataclass(frozen=True)
class FinalInfo:
    """An episode's last info, wrapped so that vector environments pass it on as it is instead of batching its entries."""

    info: dict[str, Any]


class EnvSlot(gym.Env[Any, Any]):
    """Receives `reset(options={"tasks": [...]})`, one task per slot, and plays its own; environments are built once per task.

    Infos are dropped but for the last of an episode (`{"final": FinalInfo}`): batching them costs vector environments
    more than stepping does.

    Args:
        index: which entry of `options["tasks"]` is this slot's.
        config: how environments are built.
        spec: what they deliver.
        split: layouts of which split are played.
        held_out: ids of the tasks whose layouts are split; on others every layout is played.
        terms: reward terms to measure: observations then carry them as `TERMS`, float32 (terms,), before weighting.
    """

    def __init__(
        self,
        index: int,
        config: EnvConfig,
        spec: EnvSpec,
        split: str = "train",
        held_out: frozenset[str] = frozenset(),
        terms: RewardTerms | None = None,
    ) -> None:
        self.observation_space = adapted_space(spec)
        if terms is not None:
            carried = spaces.Box(-np.inf, np.inf, (len(terms.terms),), np.float32)
            self.observation_space = spaces.Dict({**self.observation_space.spaces, TERMS: carried})
        self.action_space = adapted_action_space(spec.action)
        self._index = index
        self._config = config
        self._spec = spec
        self._split = split
        self._held_out = held_out
        self._terms = terms
        self._built: dict[str, tuple[Adapter, Callable[[Any], str]]] = {}
        self._env: Adapter | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, dict[str, Any]]:
        task: Task | None = (options or {})["tasks"][self._index]
        if task is None or task.seed is None:
            raise ValueError(f"slot {self._index} is reset without a task that carries a seed")
        observation, layout = self.draw(task)
        return self._with_terms(observation), {"layout": layout}

    def draw(self, task: Task) -> tuple[Observation, str]:
        """Start an episode of `task` on its seed's layout or, if not in the split, the first down `next_seed`'s chain.

        Returns:
            (first observation, layout).

        Raises:
            UserError: no layout of the split turns up.
        """
        self._env, layout_of = self._environment(task)
        seed = int(task.seed or 0)
        for _ in range(MAX_DRAWS):
            observation, _ = self._env.reset(seed=seed)
            layout = layout_of(observation)
            if task.id not in self._held_out or split_of(layout) == self._split:
                return observation, layout
            seed = next_seed(seed)
        raise UserError(f"task {task.id} shows no layout of the {self._split} split in {MAX_DRAWS} draws; set env.holdout=false.")

    def step(self, action: Any) -> tuple[Observation, SupportsFloat, bool, bool, dict[str, Any]]:
        assert self._env is not None  # vector environments reset first
        observation, reward, terminated, truncated, info = self._env.step(action)
        final = {"final": FinalInfo(info)} if terminated or truncated else _NO_INFO
        return self._with_terms(observation), reward, terminated, truncated, final

    def close(self) -> None:
        for env, _ in self._built.values():
            env.close()
        self._built.clear()

    def _environment(self, task: Task) -> tuple[Adapter, Callable[[Any], str]]:
        if task.id not in self._built:
            raw = build_environment(task, self._config)
            env = Adapter(raw if self._terms is None else TermRecorder(raw, self._terms), self._spec)
            self._built[task.id] = env, layout_hasher(env)
        return self._built[task.id]

    def _with_terms(self, observation: Observation) -> Observation:
        recorder = self._env.env if self._env is not None else None
        return {**observation, TERMS: recorder.values} if isinstance(recorder, TermRecorder) else observation
