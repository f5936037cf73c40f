"""Planning at decision time: candidates are imagined as the policy would go on from each, and the most promising one is taken."""

from __future__ import annotations

import torch
from torch import Tensor

from envs.errors import UserError
from hierarchy.base import Hierarchy, PolicyState
from hierarchy.config import HierarchyConfig
from hierarchy.flat import imagined_trajectory
from world_model.dynamics import RollingState
from world_model.imagination import ImaginationEnv
from world_model.model import WorldModel
from world_model.starts import starts_now

PLANNERS = ("none", "actions", "goals")

Decision = tuple[Tensor, Tensor, PolicyState]
"""What `Hierarchy.act` answers: action (N, *action shape), log-probability (N,), the state for the next decision."""


def plan_scores(reward: Tensor, cont: Tensor, value: Tensor, gamma: float) -> Tensor:
    """Discounted returns of imagined plans, weighted by the probability of still being alive, with the value at the end.

    Args:
        reward: (N, H), on arriving at each next state. cont: (N, H), probability that this state is not terminal.
        value: (N,), of the last state. gamma: discount.

    Returns:
        (N,) sum over k of gamma^k * alive_k * reward_k, plus gamma^H * alive_H * value; alive_k is the product of cont before k.
    """
    alive = torch.cat([torch.ones_like(cont[:, :1]), cont.cumprod(1)], 1)  # (N, H+1)
    weight = alive * gamma ** torch.arange(alive.shape[1], device=alive.device)
    return (weight[:, :-1] * reward).sum(1) + weight[:, -1] * value


def repeated(state: PolicyState, n: int) -> PolicyState:
    """Every row `n` times, one after the other, as `Starts.branch` has them."""
    return {name: value.repeat_interleave(n, 0) for name, value in state.items()}


def chosen_rows(state: PolicyState, rows: Tensor) -> PolicyState:
    return {name: value[rows] for name, value in state.items()}


class CandidatePolicy:
    """The policy of imagination: every rollout begins with a candidate, and goes on as the hierarchy does.

    Attributes:
        taken: the candidates, once they were decided on: N * M decisions, those of a start one after the other.
    """

    def __init__(self, hierarchy: Hierarchy, own: Decision, state: PolicyState, first: Tensor, candidates: int) -> None:
        """
        Args:
            own: (N) decisions of the policy itself: candidate 0 of each start; the others are drawn.
            state: (N) before the decision. first: (N,) bool.
        """
        self.hierarchy, self.own = hierarchy, own
        self.state, self.first, self.candidates = repeated(state, candidates), first.repeat_interleave(candidates), candidates
        self.taken: Decision | None = None

    def __call__(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        decide = self.hierarchy.propose if self.taken is None else self.hierarchy.act
        action, log_prob, self.state = decide(z, h, self.state, self.first)
        if self.taken is None:
            own = torch.arange(0, len(z), self.candidates, device=z.device)  # (N,), candidate 0 of each start
            action, log_prob = action.index_copy(0, own, self.own[0]), log_prob.index_copy(0, own, self.own[1])
            self.state = {name: value.index_copy(0, own, self.own[2][name]) for name, value in self.state.items()}
            self.taken, self.first = (action, log_prob, self.state), torch.zeros_like(self.first)
        return action, log_prob.float()


class Planner:
    """Decides in the place of the policy, with the policy's own proposals (rollouts: Tesauro and Galperin 1996).

    Of each environment M candidates are imagined at once for H steps, from the cache of acting, which stays as it is. Candidate 0
    is what the policy itself decided, the others are drawn from it: with one candidate the planner is the policy.
    """

    def __init__(self, hierarchy: Hierarchy, model: WorldModel, config: HierarchyConfig) -> None:
        self.hierarchy, self.model, self.config = hierarchy, model, config
        self._device = next(model.parameters()).device
        self._envs: dict[int, ImaginationEnv] = {}  # by the number of states

    def act(self, cache: RollingState, z: Tensor, h: Tensor, state: PolicyState, first: Tensor, greedy: bool = False) -> Decision:
        """Decide once for each of N environments; the arguments beside those of `Hierarchy.act`:

        Args:
            cache: of acting, new episodes restarted; it is read alone.
            h: (N, D) history before the observation, zeros where an episode starts.
            greedy: candidate 0 is the policy's greedy decision, the others are drawn all the same; a goal is followed greedily.

        Returns:
            As `Hierarchy.act`. The log-probability is the policy's of the action that was taken: the planner's own is not known.
        """
        own = self.hierarchy.act(z, self.model.view(z, h, cache.maps), state, first, greedy)
        rows = self._rows(state, first)
        if not len(rows):
            return own
        of_rows = own[0][rows], own[1][rows], chosen_rows(own[2], rows)
        action, log_prob, after = self._best(cache.rows(rows), z[rows], h[rows], chosen_rows(state, rows), first[rows], of_rows)
        if greedy and self.config.planner == "goals":  # the goal is the plan; how it is followed was drawn for its score alone
            seen = self.model.view(z[rows], h[rows], cache.rows(rows).maps)
            action, log_prob = self.hierarchy.follow(z[rows], seen, after, greedy=True)
        state = {name: value.index_copy(0, rows, after[name]) for name, value in own[2].items()}
        return own[0].index_copy(0, rows, action), own[1].index_copy(0, rows, log_prob), state

    def _rows(self, state: PolicyState, first: Tensor) -> Tensor:
        """(R,), the environments that are planned for now."""
        now = self.hierarchy.decides(state, first) if self.config.planner == "goals" else torch.ones_like(first)
        return now.nonzero().squeeze(-1)

    def _best(self, cache: RollingState, z: Tensor, h: Tensor, state: PolicyState, first: Tensor, own: Decision) -> Decision:
        M = self.config.candidates
        policy = CandidatePolicy(self.hierarchy, own, state, first, M)
        rollout = self._imagination(len(z) * M).imagine(policy, starts_now(cache, z, h).branch(M))
        value = self.hierarchy.value(rollout.z[:, -1], rollout.h[:, -1])
        if value is None:
            value = rollout.reward.new_zeros(len(rollout.reward))
        path = imagined_trajectory(rollout, self.hierarchy.explores, self.config.discovery)  # rewards as values foretell them
        gamma = self.config.actor_critic.gamma
        scores = plan_scores(path.reward.float(), path.cont.float(), value.float(), gamma).view(-1, M)  # (N, M)
        best = scores.argmax(1) + M * torch.arange(len(z), device=z.device)  # (N,)
        assert policy.taken is not None
        action, log_prob, after = policy.taken
        return action[best], log_prob[best], chosen_rows(after, best)

    def _imagination(self, states: int) -> ImaginationEnv:
        if states not in self._envs:
            self._envs[states] = ImaginationEnv(self.model, self.config.plan_horizon, states, self._device)
        return self._envs[states]


def make_planner(hierarchy: Hierarchy, model: WorldModel, config: HierarchyConfig) -> Planner | None:
    """The planner that `config.planner` names; None for `none`.

    Raises:
        UserError: an unknown planner, one that this hierarchy has no use for, or numbers it cannot plan with.
    """
    if config.planner not in PLANNERS:
        raise UserError(f"hierarchy.planner={config.planner} is unknown; choose one of {', '.join(PLANNERS)}")
    for key, number in {"candidates": config.candidates, "plan_horizon": config.plan_horizon}.items():
        if number < 1:
            raise UserError(f"hierarchy.{key}={number} is too small: give 1 or more")
    if config.planner == "none":
        return None
    start = torch.ones(1, dtype=torch.bool, device=next(model.parameters()).device)
    if config.planner == "goals" and not hierarchy.decides(hierarchy.initial_state(1), start).any():
        raise UserError(f"hierarchy.planner=goals needs goals, which hierarchy={config.name} has not: give actions")
    if config.plan_training and config.real:
        raise UserError(
            "hierarchy.plan_training=true leaves hierarchy.real=0 only: how likely a planner takes an action is not known, "
            "so the policy cannot learn from those actions"
        )
    return Planner(hierarchy, model, config)
