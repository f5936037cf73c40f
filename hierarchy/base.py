"""What a hierarchy is to the rest: it acts, and it learns from imagined and real latent trajectories."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hierarchy.trajectory import LatentTrajectory
from world_model.imagination import ImaginationEnv
from world_model.starts import Starts

PolicyState = dict[str, Tensor]
"""What a hierarchy remembers between decisions: fixed-shape tensors (N, ...), reset on episode start (a goal, a clock)."""


@dataclass
class Learning:
    """One thing to minimise, and what to do once the optimiser has stepped.

    A hierarchy yields these one after the other; the trainer, which owns the optimisers, takes one step for each.
    """

    loss: Tensor
    metrics: dict[str, Tensor]
    after: Callable[[], None]


class Hierarchy(nn.Module):
    """The interface of `hierarchy=flat|director|...`.

    A hierarchy with goals gives `decides`, `plan` and `follow`; one without overrides `act`.
    """

    gives: frozenset[str] = frozenset()
    """Names of the signals that `told` holds for curricula: `reach`, share of its goals that a rollout reaches."""

    poses: bool = False
    """Whether `h` is to end with where the view is on the model's maps, three numbers each (`GridMaps.poses`)."""

    explores: float = 0.0
    """Weight of the disagreement of the model's ensemble in the rewards that `value` foretells."""

    told: dict[str, Tensor]
    """{signal: (N,)} of every imagined rollout of the last `learn`, in the order of its starts; NaN where there is none."""

    def __init__(self) -> None:
        super().__init__()
        self.told = {}

    def initial_state(self, batch: int) -> PolicyState:
        """State of `batch` episodes that are about to start."""
        raise NotImplementedError

    def exploring_state(self, batch: int) -> PolicyState:
        """The same for episodes that are played to learn from, where they are played otherwise."""
        return self.initial_state(batch)

    def practice(self, state: PolicyState) -> Tensor | None:
        """(N,) bool: episodes under way that are played otherwise than the agent is judged by; None: there are no such."""
        return None

    def decides(self, state: PolicyState, first: Tensor) -> Tensor:
        """(N,) bool: whether a new goal is chosen at this step. state: of the last decision, first: (N,) as for `act`."""
        return torch.zeros_like(first)

    def plan(self, z: Tensor, h: Tensor, state: PolicyState, first: Tensor, greedy: bool = False) -> PolicyState:
        """The state to act in, with new goals where `decides` says so. Arguments as for `act`."""
        return state

    def follow(self, z: Tensor, h: Tensor, state: PolicyState, greedy: bool = False) -> tuple[Tensor, Tensor]:
        """Actions (N, *action shape) and their log-probabilities (N,) under the goals of `state`, which `plan` answered."""
        raise NotImplementedError

    def act(
        self, z: Tensor, h: Tensor, state: PolicyState, first: Tensor, greedy: bool = False
    ) -> tuple[Tensor, Tensor, PolicyState]:
        """Decide once for each of N environments. Pure: all that is remembered is in the state.

        Args:
            z: (N, G) codes.
            h: (N, V) history up to the step before, and what texts point at now (`WorldModel.view`), then the `poses`.
            first: (N,) bool, an episode starts here.

        Returns:
            action (N, *action shape), log-probability (N,), the state for the next decision.
        """
        state = self.plan(z, h, state, first, greedy)
        return *self.follow(z, h, state, greedy), state

    def propose(self, z: Tensor, h: Tensor, state: PolicyState, first: Tensor) -> tuple[Tensor, Tensor, PolicyState]:
        """As `act`, drawn from all that may be decided: what a planner chooses among, where `act` does not draw by itself."""
        return self.act(z, h, state, first)

    def value(self, z: Tensor, h: Tensor) -> Tensor | None:
        """Values (N,) of states z (N, G), h as for `act`, or None from a hierarchy that has none to compare with returns."""
        return None

    def learn(self, env: ImaginationEnv, starts: Starts, real: LatentTrajectory) -> Iterator[Learning]:
        """Learn inside the world model from `starts`, and from the real trajectory of the same batch."""
        raise NotImplementedError
