"""A mixture of Gaussians with diagonal covariances, fitted by expectation-maximisation (Dempster et al. 1977)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ROUNDS = 30
MIN_VARIANCE = 1e-4


@dataclass
class Mixture:
    """K Gaussians over D numbers: weight (K,), mean (K, D), variance (K, D)."""

    weight: np.ndarray
    mean: np.ndarray
    variance: np.ndarray

    def log_densities(self, x: np.ndarray) -> np.ndarray:
        """(N, K) log of weight times density at points x (N, D)."""
        away = (x[:, None] - self.mean) ** 2 / self.variance
        return np.log(self.weight) - 0.5 * (away + np.log(2 * np.pi * self.variance)).sum(-1)

    def log_likelihood(self, x: np.ndarray) -> float:
        return float(_log_sum(self.log_densities(x)).sum())


def fit(x: np.ndarray, components: int, rng: np.random.Generator) -> Mixture:
    """K components to points x (N, D), from K of them drawn as means."""
    n = len(x)
    mean = x[rng.choice(n, components, replace=False)]
    mixture = Mixture(np.full(components, 1 / components), mean, np.tile(x.var(0) + MIN_VARIANCE, (components, 1)))
    for _ in range(ROUNDS):
        logs = mixture.log_densities(x)
        share = np.exp(logs - _log_sum(logs)[:, None])  # (N, K)
        count = share.sum(0) + 1e-9
        mean = share.T @ x / count[:, None]
        variance = share.T @ x**2 / count[:, None] - mean**2
        mixture = Mixture(count / count.sum(), mean, np.maximum(variance, 0) + MIN_VARIANCE)
    return mixture


def best_fit(x: np.ndarray, most: int, rng: np.random.Generator) -> Mixture:
    """The fit of 1 to `most` components with the least Akaike information criterion."""
    fits = [fit(x, k, rng) for k in range(1, min(most, len(x)) + 1)]
    return min(fits, key=lambda found: 2 * (len(found.weight) * (2 * x.shape[1] + 1) - 1) - 2 * found.log_likelihood(x))


def _log_sum(logs: np.ndarray) -> np.ndarray:
    most = logs.max(1)
    found: np.ndarray = most + np.log(np.exp(logs - most[:, None]).sum(1))
    return found
