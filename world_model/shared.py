"""What the next codes have in common: a discrete variable of each transition, drawn before them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from world_model.config import ModelConfig
from world_model.math import sample_codes, unimix_logits
from world_model.networks import mlp

UNIMIX = 0.01  # share of the uniform distribution in both distributions while they are learned


def categorical_kl(q: Tensor, p: Tensor) -> Tensor:
    """KL(q || p) in nats, (...,), of log-probabilities (..., groups, classes), summed over the groups."""
    return (q.exp() * (q - p)).sum((-2, -1))


def balanced_kl(q: Tensor, p: Tensor, rep: float, free: float) -> Tensor:
    """KL(q || p) (...,) that draws the prior to the posterior by 1 and the posterior to the prior by `rep` (Hafner et al. 2023).

    `free` nats of each step, not of a batch's mean, cost the posterior nothing. The prior has none: c is drawn from it in
    imagination, and there is so little in c that a prior which is off by a nat would mostly draw what the posterior never uses.
    """
    return categorical_kl(q.detach(), p) + rep * categorical_kl(q, p.detach()).clamp(min=free)


class Link(nn.Linear):
    """A linear layer of which a mask leaves some weights."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:  # type: ignore[override]
        """x (..., in), mask (out, in) -> (..., out)."""
        return F.linear(x, self.weight * mask)


class SharedGroups(nn.Module):
    """c_t, a few categoricals: posterior q(c | features of z_{t+1}, h_t), prior p(c | h_t); the codes follow p(z_{t+1} | h_t, c).

    Given h_t alone the groups of z_{t+1} are drawn each for itself, so that a step with several outcomes mixes them: one half of
    a door open, the other shut. Given c they agree. c is no part of the state z: it is drawn anew at every step.

    The prior foretells one group of c after the other, or c itself would be mixed: in a test with two outcomes, two groups that
    were drawn each for itself mixed a fifth of them.

    Args:
        config: `shared_groups` and `shared_classes` are the sizes of c.
        features: F, width of what is known of z_{t+1}.
    """

    earlier: Tensor

    def __init__(self, config: ModelConfig, features: int) -> None:
        super().__init__()
        self.groups, self.classes = config.shared_groups, config.shared_classes
        self.rep, self.free = config.shared_rep, config.shared_free
        size = self.groups * self.classes
        self.norm = nn.RMSNorm(features)
        self.posterior = mlp([features + config.width, config.hidden, size])
        self.prior = mlp([config.width, config.hidden, size])
        self.link = Link(size, size, bias=False)  # what earlier groups say of later ones
        nn.init.zeros_(self.link.weight)
        group = torch.arange(size) // self.classes
        self.register_buffer("earlier", (group[None] < group[:, None]).float(), persistent=False)  # (size, size)
        self.embed = nn.Linear(size, config.width, bias=False)

    def learn(self, features: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Draw c from the posterior; in evaluation mode take the likeliest.

        Args:
            features: (..., F) of the next state. h: (..., D), the history before it.

        Returns:
            The embedding (..., D) of c, to be added to h, with a straight-through gradient; the balanced KL (...,), which is
            the loss; KL(q || p) itself (...,).
        """
        q = unimix_logits(self._groups(self.posterior(torch.cat([self.norm(features), h], -1))), UNIMIX)
        probability = q.exp()
        likeliest = not self.training  # an evaluation draws no random number
        drawn = self._one_hot(q.argmax(-1) if likeliest else sample_codes(q.detach(), torch.rand(q.shape[:-1], device=q.device)))
        linked = self.link(drawn.flatten(-2), self.earlier)
        p = unimix_logits(self._groups(self.prior(h) + linked), UNIMIX)
        embedded = self.embed((drawn + probability - probability.detach()).flatten(-2))
        return embedded, balanced_kl(q, p, self.rep, self.free), categorical_kl(q.detach(), p.detach())

    def imagine(self, h: Tensor, noise: Tensor | None = None) -> Tensor:
        """The embedding (..., D) of c, drawn from the prior by `noise` (..., groups) in [0, 1), or the likeliest."""
        logits = self.prior(h).float()  # (..., groups * classes)
        link = (self.link.weight * self.earlier).T.float()
        drawn: list[Tensor] = []
        for index in range(self.groups):
            own = slice(index * self.classes, (index + 1) * self.classes)
            codes = logits[..., own].argmax(-1) if noise is None else sample_codes(logits[..., own], noise[..., index])
            drawn.append(self._one_hot(codes))
            if index + 1 < self.groups:
                logits = logits + drawn[-1] @ link[own]
        return self.embed(torch.cat(drawn, -1))

    def draws(self, h: Tensor, count: int) -> list[Tensor]:
        """`count` embeddings (..., D) of c drawn from the prior, the same ones whenever the same is asked."""
        generator = torch.Generator(h.device).manual_seed(0)
        shape = (*h.shape[:-1], self.groups)
        return [self.imagine(h, torch.rand(shape, device=h.device, generator=generator)) for _ in range(count)]

    def _groups(self, logits: Tensor) -> Tensor:
        """(..., groups * classes) -> (..., groups, classes)."""
        return logits.unflatten(-1, (self.groups, self.classes))

    def _one_hot(self, codes: Tensor) -> Tensor:
        return F.one_hot(codes, self.classes).float()


def make_shared(config: ModelConfig, features: int) -> SharedGroups | None:
    """The shared groups that the config asks for, if it does."""
    return SharedGroups(config, features) if config.shared_groups else None
