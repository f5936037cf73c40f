"""The policy's and the critic's networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from envs.spaces.specs import ActionSpec
from hierarchy.config import ActorCriticConfig
from hierarchy.distributions import ActionHead
from hierarchy.ordered import OrderedHead
from world_model.embedding import LatentEmbedding
from world_model.latents import LatentSpec
from world_model.math import symexp_bins, two_hot_loss, two_hot_mean
from world_model.networks import mlp


class StateEncoder(nn.Module):
    """Codes z_t (N, G), and what a policy sees beside them (N, V), poses left aside -> features (N, hidden)."""

    def __init__(self, latents: LatentSpec, width: int, config: ActorCriticConfig) -> None:
        super().__init__()
        self.embed = LatentEmbedding(latents, config.symbol_width, config.hidden)
        self.history = nn.Linear(width, config.hidden)
        self.norm = nn.RMSNorm(config.hidden)

    def forward(self, z: Tensor, h: Tensor) -> Tensor:
        h = h[..., : self.history.in_features]  # less the poses, which mean something only beside each other
        return nn.functional.silu(self.norm(self.embed(z) + self.history(h)))


class Actor(nn.Module):
    """Parameters (..., P) of the distribution over actions in states z (..., G), h (..., V): see `hierarchy.distributions`."""

    def __init__(
        self, latents: LatentSpec, width: int, actions: ActionSpec, config: ActorCriticConfig, ordered: bool = False
    ) -> None:
        super().__init__()
        self.head = (
            OrderedHead(actions, config.unimix)
            if ordered
            else ActionHead(actions, config.unimix, (config.min_std, config.max_std))
        )
        self.encoder = StateEncoder(latents, width, config)
        self.net = mlp([config.hidden] * config.layers + [self.head.outputs], zero_last=True)

    def forward(self, z: Tensor, h: Tensor) -> Tensor:
        return self.head.params(self.net(self.encoder(z, h)))


class Critic(nn.Module):
    """State value as a two-hot distribution, zero at the start."""

    bins: Tensor

    def __init__(self, latents: LatentSpec, width: int, config: ActorCriticConfig) -> None:
        super().__init__()
        self.encoder = StateEncoder(latents, width, config)
        self.net = mlp([config.hidden] * config.layers + [config.bins], zero_last=True)
        self.register_buffer("bins", symexp_bins(config.bins, config.bin_limit), persistent=False)

    def forward(self, z: Tensor, h: Tensor) -> Tensor:
        """Value (...,) of states z (..., G), h (..., V)."""
        return two_hot_mean(self.net(self.encoder(z, h)), self.bins)

    def loss(self, z: Tensor, h: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy (...,) against returns (...,)."""
        return two_hot_loss(self.net(self.encoder(z, h)), target, self.bins)


@torch.no_grad()
def ema_update(target: nn.Module, source: nn.Module, decay: float) -> None:
    """target <- decay * target + (1 - decay) * source."""
    torch._foreach_lerp_(list(target.parameters()), list(source.parameters()), 1 - decay)
