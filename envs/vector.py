"""Many environments stepped together, each on a task of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from envs.delivery import TERMS
from envs.errors import UserError
from envs.rewards import RewardTerms
from envs.spaces.specs import EnvSpec
from envs.tasks import Task, TaskSpace

VECTORIZATIONS = ("sync", "async")
Observations = dict[str, np.ndarray]  # modality key -> (num_envs, *shape)


class StepResult(NamedTuple):
    """What one step of all environments brought.

    Attributes:
        obs: `{modality key: (num_envs, *shape)}`; of an episode that ended, its last observation.
        reward: float32 (num_envs,), as the environment gave it.
        terminated: bool (num_envs,): the task itself ended the episode.
        truncated: bool (num_envs,): the episode was cut off (a time limit); both may be true.
        infos: the environment's info for episodes that ended, an empty dict for the rest.
        terms: float32 (num_envs, terms), the reward terms of `env.rewards` before weighting, where they are measured.
    """

    obs: Observations
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    infos: list[dict[str, Any]]
    terms: np.ndarray | None = None


class TaskVectorEnv:
    """Slots on Gymnasium's vector environments, autoreset disabled: what ended is reset, by mask, before the next step."""

    def __init__(
        self,
        slots: Sequence[Callable[[], gym.Env[Any, Any]]],
        spec: EnvSpec,
        tasks: TaskSpace,
        vectorization: str = "sync",
        held_out: frozenset[str] = frozenset(),
        terms: RewardTerms | None = None,
    ) -> None:
        self.spec = spec
        self.terms = terms  # measured at every step
        self.tasks = tasks
        self.num_envs = len(slots)
        self.held_out = held_out  # ids of the tasks whose layouts are split into train, validation and test
        if vectorization not in VECTORIZATIONS:
            raise UserError(f"env.vectorization={vectorization} is unknown; choose one of {', '.join(VECTORIZATIONS)}.")
        # `copy=False`: Gymnasium would deep-copy every observation; ours are flat, so they are copied below.
        vector = SyncVectorEnv if vectorization == "sync" else AsyncVectorEnv
        self._envs: SyncVectorEnv | AsyncVectorEnv = vector(list(slots), copy=False, autoreset_mode=AutoresetMode.DISABLED)
        self._started = False
        self._ended = np.ones(self.num_envs, bool)
        self._layouts = [""] * self.num_envs
        self._obs: Observations = {}

    def reset(self, tasks: Sequence[Task | None], mask: np.ndarray | None = None) -> Observations:
        """Start an episode of `tasks[i]`, under its own seed, in every environment of `mask` (all if not given).

        Returns:
            The observations of all environments, `{modality key: (num_envs, *shape)}`, those outside the mask as they were.
        """
        mask = np.ones(self.num_envs, bool) if mask is None else np.asarray(mask, bool)
        if len(tasks) != self.num_envs or mask.shape != (self.num_envs,):
            raise ValueError(f"needs one task and one mask entry for each of {self.num_envs} environments")
        if not self._started and not mask.all():
            raise ValueError("the first reset has to start every environment")
        for task, chosen in zip(tasks, mask, strict=True):
            if chosen and (task is None or task.seed is None):
                raise ValueError("every environment that is reset needs a task that carries a seed")
        if mask.any():
            obs, infos = self._envs.reset(options={"tasks": list(tasks), "reset_mask": mask})
            self._obs = obs
            for i in np.flatnonzero(mask):
                self._layouts[i] = str(infos["layout"][i])
            self._ended[mask] = False
            self._started = True
        return self._copy(self._obs)

    def step(self, actions: np.ndarray) -> StepResult:
        """Take `actions` (num_envs, *spec.action.shape), one in each environment.

        Raises:
            RuntimeError: an environment whose episode ended was not reset.
        """
        if self._ended.any():
            raise RuntimeError(f"environments {np.flatnonzero(self._ended).tolist()} need a reset before the next step")
        obs, reward, terminated, truncated, batched = self._envs.step(actions)
        self._obs = obs
        self._ended = terminated | truncated
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for i in np.flatnonzero(self._ended):
            infos[i] = batched["final"][i].info
        terms = obs[TERMS].copy() if self.terms is not None else None
        return StepResult(self._copy(obs), reward.astype(np.float32), terminated, truncated, infos, terms)

    def layout(self, i: int) -> str:
        """The name (a hash) of the layout that environment `i` is playing."""
        return self._layouts[i]

    def close(self) -> None:
        self._envs.close()

    @staticmethod
    def _copy(obs: Observations) -> Observations:
        return {key: value.copy() for key, value in obs.items() if key != TERMS}
