"""Small functions: symlog, two-hot, sampling, divergences, draws that nobody notices."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor


def symlog(x: Tensor) -> Tensor:
    """Sign-preserving logarithm, `sign(x) ln(1 + |x|)` (DreamerV3, Hafner et al. 2023)."""
    return torch.sign(x) * torch.log1p(x.abs())


def symexp(x: Tensor) -> Tensor:
    """Inverse of `symlog`."""
    return torch.sign(x) * torch.expm1(x.abs())


def symexp_bins(count: int, limit: float) -> Tensor:
    """`count` bin centres, symmetric round zero, so that a zero-initialised head predicts exactly zero.

    Raises:
        ValueError: if `count` is even (then no bin is zero) or below 3.
    """
    if count < 3 or count % 2 == 0:
        raise ValueError(f"model.bins must be odd and at least 3, so that one bin is zero; got {count}")
    half = symexp(torch.linspace(-limit, 0.0, count // 2 + 1, dtype=torch.float64))
    return torch.cat([half, -half[:-1].flip(0)]).float()  # (count,)


def two_hot(x: Tensor, bins: Tensor) -> Tensor:
    """Weights on the two bins next to `x` whose mean is `x` (clamped to the bins' range).

    Args:
        x: (...,) values.
        bins: (K,) increasing.

    Returns:
        (..., K), non-negative, summing to one.
    """
    x = x.clamp(bins[0], bins[-1])
    above = torch.searchsorted(bins, x.contiguous(), right=True).clamp(1, len(bins) - 1)  # (...)
    below = above - 1
    low, high = bins[below], bins[above]
    weight = ((x - low) / (high - low)).unsqueeze(-1)  # (..., 1)
    target = torch.zeros(*x.shape, len(bins), device=x.device, dtype=bins.dtype)
    target.scatter_(-1, below.unsqueeze(-1), 1 - weight)
    return target.scatter_add_(-1, above.unsqueeze(-1), weight)


def two_hot_loss(logits: Tensor, x: Tensor, bins: Tensor) -> Tensor:
    """Cross-entropy (...,) of two-hot targets of `x` (...,) under `logits` (..., K)."""
    return -(two_hot(x, bins) * F.log_softmax(logits.float(), -1)).sum(-1)


def two_hot_mean(logits: Tensor, bins: Tensor) -> Tensor:
    """Expected value (...,) of a two-hot head's `logits` (..., K), for bins that mirror each other round zero.

    Mirrored bins are weighed against each other first: summed one by one, large ones would leave rounding errors as they cancel.
    """
    half = len(bins) // 2
    probability = logits.float().softmax(-1)
    return ((probability[..., half + 1 :] - probability[..., :half].flip(-1)) * bins[half + 1 :]).sum(-1)


def sample_codes(logits: Tensor, noise: Tensor) -> Tensor:
    """Class indices by inverse CDF.

    Args:
        logits: (..., C), -inf for classes that do not exist.
        noise: (...,) uniform in [0, 1).
    """
    cdf = logits.float().softmax(-1).cumsum_(-1)  # (..., C), its last a rounding error away from one: the noise is scaled by it
    threshold = noise.unsqueeze(-1) * cdf[..., -1:]
    return torch.searchsorted(cdf, threshold, right=True).squeeze(-1).clamp_(max=logits.shape[-1] - 1)


def code_error(logits: Tensor, codes: Tensor) -> Tensor:
    """Negative log-likelihood (...,) in nats of codes (..., groups) under logits (..., groups, C), summed over the groups."""
    error = F.cross_entropy(logits.flatten(0, -2).float(), codes.flatten(), reduction="none")
    return error.view(codes.shape).sum(-1)


def unimix_logits(logits: Tensor, share: float) -> Tensor:
    """Log-probabilities of a mixture of `share` uniform and `1 - share` softmax(logits) over the last dimension."""
    if share <= 0:
        return F.log_softmax(logits.float(), -1)
    return torch.log((1 - share) * logits.float().softmax(-1) + share / logits.shape[-1])


@contextmanager
def forked(device: torch.device) -> Iterator[None]:
    """What torch draws inside, on the CPU and on this device, is as if it had not been drawn outside."""
    own = {} if device.type in ("cpu", "mps") else {"device_type": device.type}
    with torch.random.fork_rng([device] if own else [], **own):
        yield
