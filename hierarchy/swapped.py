"""Does a worker listen? Give it the goals of other episodes, or none, and see how it does then."""

from __future__ import annotations

import torch
from torch import Tensor

from hierarchy.base import Hierarchy, PolicyState
from hierarchy.config import SWAPS
from hierarchy.goal import NO_GOAL

KEPT = 1024  # goals of other episodes to draw from: the newest ones


def has_goals(hierarchy: Hierarchy) -> bool:
    """Whether there are goals to take away."""
    return "goal" in hierarchy.initial_state(1)


def acts_without_goals(hierarchy: Hierarchy) -> str:
    """Who acts once goals are taken away: the `explorer`, where there is one, else the `worker`, who then knows of none."""
    return "worker" if getattr(hierarchy, "explorer", None) is None else "explorer"


class SwappedGoals(Hierarchy):
    """A hierarchy whose goals are replaced where they are chosen, before anybody acts on them. For evaluation alone.

    Unlike others it remembers, beside its state, what was chosen in which episode; N must stay the same.

    Args:
        kind: `shuffled`: a goal that was chosen in another episode, any of the newest; `zeroed`: no goal, so that
            whoever `acts_without_goals` does.

    Attributes:
        unchanged: goals that stayed, as no other episode had chosen one yet.
    """

    def __init__(self, inner: Hierarchy, kind: str, seed: int = 0) -> None:
        super().__init__()
        if kind not in SWAPS:
            raise ValueError(f"goals can be {' or '.join(SWAPS)}, not {kind}")
        self.inner, self.kind = inner, kind
        self.unchanged = 0
        self._generator = torch.Generator().manual_seed(seed)
        self._bank: list[tuple[int, Tensor]] = []  # episode, goal
        self._episode: list[int] = []  # of each row
        self._begun = 0

    def initial_state(self, batch: int) -> PolicyState:
        self._episode, self._bank = [-1] * batch, []
        return self.inner.initial_state(batch)

    def decides(self, state: PolicyState, first: Tensor) -> Tensor:
        return self.inner.decides(state, first)

    def plan(self, z: Tensor, h: Tensor, state: PolicyState, first: Tensor, greedy: bool = False) -> PolicyState:
        due = self.inner.decides(state, first)
        state = self.inner.plan(z, h, state, first, greedy)
        new = (due & (state["goal"] != NO_GOAL).all(-1)).nonzero().flatten().tolist()
        if self.kind == "zeroed":
            return state | {"goal": torch.full_like(state["goal"], NO_GOAL)}
        for row in first.nonzero().flatten().tolist():
            self._episode[row] = self._begun
            self._begun += 1
        goal = state["goal"].clone()
        self._bank = [*self._bank, *((self._episode[row], state["goal"][row]) for row in new)][-KEPT:]
        for row in new:
            others = [found for episode, found in self._bank if episode != self._episode[row]]
            self.unchanged += not others
            if others:
                goal[row] = others[int(torch.randint(len(others), (), generator=self._generator))]
        return state | {"goal": goal}

    def follow(self, z: Tensor, h: Tensor, state: PolicyState, greedy: bool = False) -> tuple[Tensor, Tensor]:
        return self.inner.follow(z, h, state, greedy)
