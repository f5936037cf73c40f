"""Several choices that depend on each other: drawn one after the other, each knowing those before it.

Drawn each for itself, choices of which two combinations are good would be mixed into combinations that are not. As in
autoregressive policies over several action dimensions (Metz et al. 2017), by a small network that all choices share but for
its last layer.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from envs.spaces.specs import ActionSpec
from world_model.math import unimix_logits

CONTEXT = 64  # numbers that the state tells of how choices go together


class OrderedHead(nn.Module):
    """In the place of `ActionHead` where there are M choices of C classes each. Untrained, they do not depend on each other."""

    def __init__(self, spec: ActionSpec, unimix: float) -> None:
        super().__init__()
        if spec.kind != "multi_discrete" or len(set(spec.classes)) != 1:
            raise ValueError("only choices of equally many classes can be drawn one after the other")
        self.spec, self.unimix = spec, unimix
        self.groups, self.classes = len(spec.classes), spec.classes[0]
        self.outputs = self.groups * self.classes + CONTEXT
        self.known = nn.Parameter(torch.randn(self.groups, self.classes, CONTEXT))  # what a choice adds to the context
        self.told = nn.Parameter(torch.zeros(self.groups, CONTEXT, self.classes))  # what the context says of the next one
        self.distribution = partial(OrderedChoices, head=[self])  # in a list: a partial's module would be this module's child

    def params(self, raw: Tensor) -> Tensor:
        """Raw outputs (..., `outputs`) are what the distribution is built from: the uniform share is mixed in at every choice."""
        return raw

    def draw(self, params: Tensor, greedy: bool) -> tuple[Tensor, Tensor]:
        """Actions (..., M) and their log-probabilities (...,)."""
        return self.distribution(params).draw(greedy)


class OrderedChoices(Distribution):
    """M choices (..., M), the first by the state alone, every other one by the state and those before it.

    Args:
        params: (..., M * C + CONTEXT), logits of the choices, and what the state tells of how they go together.
    """

    def __init__(self, params: Tensor, head: list[OrderedHead]) -> None:
        self.head = head[0]
        groups = self.head.groups
        logits, self.context = params.split([groups * self.head.classes, CONTEXT], -1)
        self.logits = logits.unflatten(-1, (groups, -1))
        super().__init__(params.shape[:-1], torch.Size([groups]), validate_args=False)

    def _of(self, group: int, context: Tensor) -> Tensor:
        """Log-probabilities (..., C) of one choice in the context of those before it (..., CONTEXT)."""
        told = torch.nn.functional.silu(context) @ self.head.told[group]
        return unimix_logits(self.logits[..., group, :] + told, self.head.unimix)

    def conditional(self, value: Tensor) -> Tensor:
        """Log-probabilities (..., M, C) of every choice, given those of `value` (..., M) before it."""
        known = self.head.known[torch.arange(self.head.groups, device=value.device), value]  # (..., M, CONTEXT)
        before = self.context.unsqueeze(-2) + known.cumsum(-2) - known
        told = torch.einsum("...md,mdc->...mc", torch.nn.functional.silu(before), self.head.told)
        return unimix_logits(self.logits + told, self.head.unimix)

    @torch.no_grad()
    def draw(self, greedy: bool = False) -> tuple[Tensor, Tensor]:
        """Choices (..., M), drawn or each the likeliest after those before it, and their log-probabilities (...,)."""
        context, chosen, total = self.context, [], torch.zeros(self.batch_shape, device=self.context.device)
        for group in range(self.head.groups):
            found = self._of(group, context)
            noise = 0.0 if greedy else torch.empty_like(found).exponential_().log()
            choice = (found - noise).argmax(-1)
            total = total + found.gather(-1, choice.unsqueeze(-1)).squeeze(-1)
            context = context + self.head.known[group][choice]
            chosen.append(choice)
        return torch.stack(chosen, -1), total

    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        if sample_shape:
            raise NotImplementedError("one sample at a time")
        return self.draw()[0]

    @property
    def deterministic_sample(self) -> Tensor:
        return self.draw(greedy=True)[0]

    def log_prob(self, value: Tensor) -> Tensor:
        return self.conditional(value).gather(-1, value.unsqueeze(-1)).squeeze(-1).sum(-1)

    def entropy(self) -> Tensor:
        """An estimate without bias: the entropies of all choices after those of one sample."""
        found = self.conditional(self.sample())
        return -(found.exp() * found).sum((-2, -1))
