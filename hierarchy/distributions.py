"""What a policy draws its actions from: one distribution a kind of action space.

Each is a torch distribution over actions (..., *action shape), built from one tensor `params` (..., P) so that TorchRL's losses
can build it too.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Categorical, Independent, Normal

from envs.spaces.specs import ActionSpec
from world_model.math import unimix_logits


class Choice(Categorical):
    """One of `size` choices; `params` are log-probabilities."""

    def __init__(self, params: Tensor) -> None:
        super().__init__(logits=params)

    @property
    def deterministic_sample(self) -> Tensor:
        return self.logits.argmax(-1)


class Choices(Independent):
    """Several independent choices; `params` are the log-probabilities of each, one after the other."""

    def __init__(self, params: Tensor, classes: tuple[int, ...]) -> None:
        widest = max(classes)
        # Choices that an element does not have get probability zero.
        padded = torch.stack([F.pad(part, (0, widest - part.shape[-1]), value=-1e9) for part in params.split(classes, -1)], -2)
        super().__init__(Categorical(logits=padded, validate_args=False), 1, validate_args=False)

    @property
    def deterministic_sample(self) -> Tensor:
        return self.base_dist.logits.argmax(-1)


class Numbers(Independent):
    """Independent Gaussians; `params` are their means and their standard deviations, one after the other."""

    def __init__(self, params: Tensor) -> None:
        mean, deviation = params.chunk(2, -1)
        super().__init__(Normal(mean, deviation, validate_args=False), 1, validate_args=False)

    @property
    def deterministic_sample(self) -> Tensor:
        return self.base_dist.mean


class ActionHead:
    """From an actor network's raw output (..., `outputs`) to a distribution over actions."""

    def __init__(self, spec: ActionSpec, unimix: float, deviation: tuple[float, float]) -> None:
        """Choices keep a share `unimix` of uniform; standard deviations of numbers stay within `deviation`."""
        self.spec, self.unimix, self.deviation = spec, unimix, deviation
        self.outputs = {"discrete": spec.size, "multi_discrete": sum(spec.classes), "box": 2 * spec.size}[spec.kind]
        makers: dict[str, Any] = {
            "discrete": Choice,
            "multi_discrete": partial(Choices, classes=spec.classes),
            "box": Numbers,
        }
        self.distribution = makers[spec.kind]

    def params(self, raw: Tensor) -> Tensor:
        """Raw outputs -> what the distribution is built from.

        Means lie within -1 .. 1 (tanh), the range of actions; raw zeros stand for the middle of the range and for a standard
        deviation near its upper end, as in DreamerV3 (Hafner et al. 2023).
        """
        if self.spec.kind == "discrete":
            return unimix_logits(raw, self.unimix)
        if self.spec.kind == "multi_discrete":
            return torch.cat([unimix_logits(part, self.unimix) for part in raw.split(self.spec.classes, -1)], -1)
        low, high = self.deviation
        mean, spread = raw.float().chunk(2, -1)
        return torch.cat([mean.tanh(), low + (high - low) * (spread + 2).sigmoid()], -1)

    def draw(self, params: Tensor, greedy: bool) -> tuple[Tensor, Tensor]:
        """Actions (N, *action shape) and their log-probabilities (N,)."""
        if self.spec.kind == "discrete":
            # Gumbel-max: cheaper than a distribution object at every imagined step.
            action = (params if greedy else params - torch.empty_like(params).exponential_().log()).argmax(-1)
            return action, params.gather(-1, action.unsqueeze(-1)).squeeze(-1)
        distribution = self.distribution(params)
        action = distribution.deterministic_sample if greedy else distribution.sample()
        return action, distribution.log_prob(action)


def uniform_actions(spec: ActionSpec, n: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Uniformly random actions (n, *spec.shape) and their log-probabilities (n,)."""
    if spec.kind == "box":
        action = torch.rand(n, spec.size, device=device) * 2 - 1
        volume = torch.tensor(2.0).log() * spec.size
    elif spec.kind == "multi_discrete":
        classes = torch.tensor(spec.classes, device=device)
        action = (torch.rand(n, spec.size, device=device) * classes).long().clamp(max=classes - 1)
        volume = classes.float().log().sum()
    else:
        action = torch.randint(spec.size, (n,), device=device)
        volume = torch.tensor(float(spec.size)).log()
    return action, -volume.to(device).expand(n)
