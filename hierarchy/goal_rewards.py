"""What a worker is paid for coming near a goal: pure functions in a registry, `hierarchy.worker.reward`.

A good one is near zero for an unrelated goal, rises as the goal nears, and does not make the end of an episode costly. Director's
own is not: on one-hot codes it is near its maximum for any goal at all, as most of what is seen is always the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class GoalView:
    """N segments of K steps under one goal each, reduced to what goals speak of: G groups of at most C classes.

    Attributes:
        codes: (N, K+1, G) int64, of the states.
        there: (N, K+1, G) bool: the group's modality is present in that state and in the goal.
        goal: (N, G, C) probabilities of every group under the goal; zeros for classes that a group has not.
        usual: (G, C) how often each class comes, over all states lately seen: sums to one over the classes of a group.
        cont: (N, K) probability that the step does not end the episode.
        agreement: (N, G, C) how far every class of a group agrees with the goal, where it is not `goal` that says so: a place may
            be near that of the goal.
        emphasis: (G,) by which groups count for more than what they tell.
    """

    codes: Tensor
    there: Tensor
    goal: Tensor
    usual: Tensor
    cont: Tensor
    agreement: Tensor | None = None
    emphasis: Tensor | float = 1.0

    @property
    def matches(self) -> Tensor:
        """(N, K+1, G): probability under the goal of what is the case; 0 where it is absent."""
        return self._of(self.goal)

    @property
    def agreeing(self) -> Tensor:
        """(N, K+1, G): how far what is the case agrees with the goal; 0 where it is absent."""
        return self._of(self.agreed)

    @property
    def agreed(self) -> Tensor:
        """`agreement`, or else `goal`."""
        return self.goal if self.agreement is None else self.agreement

    def _of(self, table: Tensor) -> Tensor:
        table = table.unsqueeze(1).expand(-1, self.codes.shape[1], -1, -1)
        return table.gather(-1, self.codes.unsqueeze(-1)).squeeze(-1) * self.there

    @property
    def commonness(self) -> Tensor:
        """(N, K+1, G): how often what is the case is the case."""
        usual = self.usual.expand(*self.codes.shape[:2], -1, -1)
        return usual.gather(-1, self.codes.unsqueeze(-1)).squeeze(-1) * self.there


def similarity(view: GoalView) -> Tensor:
    """How far a state agrees with its goal beyond chance, (N, K+1), from -1 to 1: 0 on average for a state that has nothing to do
    with the goal, and near 1 for all of a goal that is seldom met.

    Agreement is corrected for chance, as in Cohen's kappa (1960): q(v) is how far what is the case in a group agrees with the
    goal, and e that of what is usually the case. Groups are weighed by the information in their goal's value, so that walls,
    which are nearly everywhere, count for little and a key for much, and by their emphasis: sum w (q(v) - e) / sum w. Kappa would
    divide by sum w (1 - e): goals of what is usual anyway would pay, and punish, as much as any, or more.
    """
    return _agreement(view, view.agreeing)


def best(view: GoalView) -> Tensor:
    """The similarity (N, K+1) of the state that agrees best with the goal: below 1 as far as it leaves things open."""
    return _agreement(view, view.agreed.amax(-1).unsqueeze(1))


def _agreement(view: GoalView, matches: Tensor) -> Tensor:
    expected = (view.agreed * view.usual).sum(-1).unsqueeze(1)  # (N, 1, G)
    information = -(view.goal * view.usual.clamp(min=1e-6).log()).sum(-1).unsqueeze(1)
    weight = view.emphasis * information * view.there  # (N, K+1, G)
    return (weight * (matches - expected)).sum(-1) / weight.sum(-1).clamp(min=1e-3)


def progress(view: GoalView) -> Tensor:
    """Increase of the similarity, (N, K). What has been gained is lost again by turning back, so that there is nothing to be had
    by going in circles; where the episode ends, a loss does not count."""
    return _increase(similarity(view), view.cont)


def likelihood(view: GoalView) -> Tensor:
    """Increase of the log-odds of the state under the goal against its being what usually is, in nats per group, (N, K)."""
    odds = (view.matches.clamp(min=1e-3).log() - view.commonness.clamp(min=1e-3).log()) * view.there
    return _increase(odds.sum(-1) / view.there.sum(-1).clamp(min=1), view.cont)


def cosine(view: GoalView) -> Tensor:
    """Cosine of state and goal after taking away from both what is usually the case, (N, K), of the states arrived at."""
    usual = view.usual
    norm = usual.square().sum(-1)  # (G,)
    both = (view.goal * usual).sum(-1).unsqueeze(1)  # (N, 1, G)
    dot = ((view.matches - view.commonness - both + norm) * view.there).sum(-1)
    state = ((1 - 2 * view.commonness + norm) * view.there).sum(-1)
    goal = ((view.goal - usual).square().sum(-1).unsqueeze(1) * view.there).sum(-1)
    return (dot / (state * goal).clamp(min=1e-8).sqrt())[:, 1:]


def max_cosine(view: GoalView) -> Tensor:
    """Director's reward (Hafner et al. 2022, eq. 6), of the states arrived at: (N, K).

    Their dot product over the square of the larger norm, on one-hot codes; nothing is made of what is usual.
    """
    state = view.there.sum(-1).float()
    goal = (view.goal.square().sum(-1).unsqueeze(1) * view.there).sum(-1)
    return (view.matches.sum(-1) / torch.maximum(state, goal).clamp(min=1e-8))[:, 1:]


def _increase(x: Tensor, cont: Tensor) -> Tensor:
    """From states (N, K+1) to steps (N, K): a decrease counts only as far as the episode goes on."""
    change = x[:, 1:] - x[:, :-1]
    return change.clamp(min=0) - cont * (-change).clamp(min=0)


def forgiving(reward: Tensor, left: Tensor, cont: Tensor) -> Tensor:
    """Rewards (N, K) under which ending an episode costs nothing of its goal.

    The end is worth the better of what its step brought and of what was still to be had: `left` (N, K), the discounted value of
    the state that the step was taken in.

    Not both: a last step that now and then brings something, on top of a value that counts it in, would be paid for again and
    again, up to 1 / (1 - gamma) times. Workers then end episodes and hear no goal.
    """
    return reward + (1 - cont) * (left - reward).clamp(min=0)


GOAL_REWARDS: dict[str, Callable[[GoalView], Tensor]] = {
    "progress": progress,
    "likelihood": likelihood,
    "cosine": cosine,
    "max_cosine": max_cosine,
}
