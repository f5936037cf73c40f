"""The agent: world model and hierarchy, acting in real environments."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agent.processes import Processes, tokenize_together
from hierarchy.base import Hierarchy, PolicyState
from hierarchy.distributions import uniform_actions
from hierarchy.planner import Planner
from world_model.dynamics import RollingState
from world_model.model import WorldModel

Observations = dict[str, NDArray[Any]]


@dataclass
class AgentState:
    """What the agent remembers of B episodes: fixed-shape tensors, reset where an episode starts.

    Attributes:
        cache: rolling keys and values, and maps.
        h: (B, D) history up to the last step.
        policy: the hierarchy's own state.
    """

    cache: RollingState
    h: Tensor
    policy: PolicyState


class Agent:
    """`act(observation, first, state) -> action, log-probability, state`: one call for training, evaluation and use."""

    def __init__(self, model: WorldModel, hierarchy: Hierarchy, device: torch.device, planner: Planner | None = None) -> None:
        self.model, self.hierarchy, self.device, self.planner = model, hierarchy, device, planner
        self.processes = Processes()  # that act at the same time, and whose tables grow together

    @classmethod
    def load(cls, folder: Path | str, device: str = "auto") -> Agent:
        """The trained agent of a run folder, or of one of its checkpoints (see `agent.loading`)."""
        from agent.loading import load_agent

        return load_agent(folder, device)

    def initial_state(self, batch: int, exploring: bool = False) -> AgentState:
        """State of `batch` environments before their first episode; `exploring` where it is played to learn from."""
        policy = self.hierarchy.exploring_state(batch) if exploring else self.hierarchy.initial_state(batch)
        return AgentState(
            self.model.rolling_state(batch, self.device),
            torch.zeros(batch, self.model.config.width, device=self.device),
            policy,
        )

    def practice(self, state: AgentState) -> NDArray[np.bool_]:
        """(B,) which episodes are played otherwise than the agent is judged by, to learn from."""
        found = self.hierarchy.practice(state.policy)
        return np.zeros(len(state.h), bool) if found is None else found.cpu().numpy()

    @torch.no_grad()
    def act(
        self,
        obs: Observations,
        first: NDArray[np.bool_],
        state: AgentState,
        mode: str = "sample",
        grow: bool = False,
        plan: bool = True,
    ) -> tuple[NDArray[Any], NDArray[np.float32], AgentState]:
        """Choose one action for each of B environments.

        Args:
            obs: adapted observations {key: (B, *shape)}.
            first: (B,) bool, an episode starts with this observation.
            state: what the last call answered.
            mode: `sample`, `greedy` or `random` (uniform).
            grow: let symbol tables and codebooks take in what is new (training only); all processes do so together.
            plan: let the planner decide, where there is one.

        Returns:
            actions (B, *action shape), their log-probabilities (B,) under the policy, whoever decided, the next state.
        """
        starts = torch.from_numpy(first).to(self.device)
        tokens = {key: x.to(self.device) for key, x in tokenize_together(self.model, obs, grow, self.processes).items()}
        with self.model.autocast():
            z, _ = self.model.posterior(tokens)
        h = state.h * (~starts).unsqueeze(-1)
        cache = state.cache.restart(starts)
        if self.planner is not None and plan and mode != "random":
            action, log_prob, policy = self.planner.act(cache, z, h, state.policy, starts, greedy=mode == "greedy")
        else:
            seen = self.model.view(z, h, cache.maps)
            action, log_prob, policy = self.hierarchy.act(z, seen, state.policy, starts, greedy=mode == "greedy")
        if mode == "random":
            action, log_prob = uniform_actions(self.model.spec.action, len(first), self.device)
        with self.model.autocast():
            h, cache = self.model.take_in(z, action, cache)
        return action.cpu().numpy(), log_prob.float().cpu().numpy(), AgentState(cache, h, policy)
