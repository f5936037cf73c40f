"""What the agent learns from: the environment's reward, sized for learning, and the reward terms of `env.rewards`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from agent.metrics import Averager
from envs import EnvConfig, StepResult, TaskVectorEnv
from envs.errors import UserError
from envs.rewards import RewardTerm

REWARDS = ("raw", "sign")


def check_sizes(config: EnvConfig) -> None:
    """Refuse settings of `size_reward` that make no sense, in a UserError."""
    if config.reward not in REWARDS:
        raise UserError(f"env.reward={config.reward} is unknown; choose one of {', '.join(REWARDS)}")
    if not np.isfinite(config.reward_scale) or config.reward_scale == 0:
        raise UserError(f"env.reward_scale={config.reward_scale} has to be a finite number other than 0")
    if config.reward_clip is not None and not config.reward_clip > 0:
        raise UserError(f"env.reward_clip={config.reward_clip} has to be above 0, or null")


def size_reward(reward: np.ndarray, config: EnvConfig) -> np.ndarray:
    """The environment's own reward as it is learned from, float32: `env.reward`, `env.reward_scale`, `env.reward_clip`."""
    reward = (np.sign(reward) if config.reward == "sign" else reward) * config.reward_scale
    return (reward if config.reward_clip is None else np.clip(reward, -config.reward_clip, config.reward_clip)).astype(np.float32)


class LearnedReward:
    """From a step's result to the reward that the agent learns from; keeps each term's sum over the episodes under way.

    `env.reward`, `env.reward_scale` and `env.reward_clip`, in this order, change the environment's own reward alone: the other
    terms have their weights, and potentials have to stay as they are to keep the optimum.

    Raises:
        UserError: settings that make no sense, or a count of what is not observed.
    """

    def __init__(self, config: EnvConfig, envs: TaskVectorEnv) -> None:
        check_sizes(config)
        self._config = config
        self.terms = envs.terms
        names = self.terms.names if self.terms else ()
        self._environment = self.terms.of_kind("environment") if self.terms else []
        self._counts = {i: VisitCounts(self.terms.terms[i], envs) for i in self.terms.of_kind("count")} if self.terms else {}
        self._sums = np.zeros((envs.num_envs, len(names)))
        self._means = Averager()

    @property
    def repeatable(self) -> bool:
        """Whether an episode that is played again is paid the same: bonuses of counts are not."""
        return not self._counts

    def __call__(self, result: StepResult) -> np.ndarray:
        """What was just earned, float32 (num_envs,); visits are counted, terms summed up."""
        return self._earned(result, count=True)

    def replayed(self, result: StepResult) -> np.ndarray:
        """The same of a step that was counted before: without bonuses of counts, and leaving sums and counts as they are."""
        return self._earned(result, count=False)

    def _earned(self, result: StepResult, count: bool) -> np.ndarray:
        own = self.sized(result.reward)
        if self.terms is None or result.terms is None:
            return own
        values = result.terms.copy()  # (num_envs, terms)
        values[:, self._environment] = own[:, None]
        if count:
            for i, counts in self._counts.items():
                values[:, i] = counts.visit(result.obs, result.dropped)
        weighted = values * self.terms.weights
        if count:
            self._sums += weighted
        return weighted.sum(1).astype(np.float32)

    def sized(self, reward: np.ndarray) -> np.ndarray:
        """The environment's own reward as it is learned from, float32."""
        return size_reward(reward, self._config)

    def finish(self, ended: np.ndarray) -> None:
        """Take the sums of episodes that ended (bool (num_envs,)) into the means, and begin anew."""
        if self.terms is not None:
            for i in np.flatnonzero(ended):
                self._means.add({f"reward/{name}": value for name, value in zip(self.terms.names, self._sums[i], strict=True)})
            self._sums[ended] = 0.0

    def restart(self, begun: np.ndarray) -> None:
        """Forget the sums of environments (bool (num_envs,)) whose episode starts anew."""
        self._sums[begun] = 0.0

    def pop(self) -> dict[str, float]:
        """`reward/<term>`: mean over the episodes that ended since the last call of what the term added up to, weighted."""
        return self._means.pop()

    def state_dict(self) -> dict[str, Any]:
        """Names of the terms, sums of the episodes under way and all counts, as tensors."""
        names = self.terms.names if self.terms else ()
        counts = {names[i]: counts.state_dict() for i, counts in self._counts.items()}
        return {"names": list(names), "sums": torch.from_numpy(self._sums.copy()), "counts": counts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` wrote; terms that are new start from nothing."""
        sums, names = state["sums"].numpy(), list(self.terms.names) if self.terms else []
        if sums.shape == self._sums.shape and state.get("names") == names:
            self._sums = sums.copy()
        for i, counts in self._counts.items():
            assert self.terms is not None
            if self.terms.names[i] in state["counts"]:
                counts.load_state_dict(state["counts"][self.terms.names[i]])


class VisitCounts:
    """How often each value of one part of the observation was arrived at in this run, all environments together.

    The bonus 1 / sqrt(N) (Strehl & Littman 2008) falls as N grows: it is not stationary, so what a replay remembers of it is what
    was paid then.
    """

    def __init__(self, term: RewardTerm, envs: TaskVectorEnv) -> None:
        keys = [leaf.key for leaf in envs.spec.observations]
        if term.key not in keys:
            raise UserError(
                f"env.rewards.{term.name} counts `{term.key}`, which is not observed; observed are: {', '.join(keys)}."
            )
        self._key, self._resolution = term.key, term.resolution
        self._visits: dict[int, int] = {}

    def visit(self, obs: Mapping[str, np.ndarray], dropped: np.ndarray | None = None) -> np.ndarray:
        """Count the newest observations `{key: (B, *shape)}`; answers 1 / sqrt(visits), this one included, (B,).

        Rows of `dropped` (bool (B,)) repeat an observation that was counted before: they count and pay nothing.
        """
        values = obs[self._key]
        if self._resolution is not None:
            values = np.floor(values / self._resolution).astype(np.int64)
        bonus = np.zeros(len(values), np.float32)
        for i, value in enumerate(values):
            if dropped is not None and dropped[i]:
                continue
            digest = hashlib.blake2b(np.ascontiguousarray(value).tobytes(), digest_size=8).digest()
            name = int.from_bytes(digest, "little", signed=True)
            self._visits[name] = visits = self._visits.get(name, 0) + 1
            bonus[i] = visits**-0.5
        return bonus

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {
            "names": torch.tensor(list(self._visits), dtype=torch.int64),
            "visits": torch.tensor(list(self._visits.values()), dtype=torch.int64),
        }

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        self._visits = dict(zip(state["names"].tolist(), state["visits"].tolist(), strict=True))
