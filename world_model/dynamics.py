"""The transformer: a Hugging Face causal decoder over one token a step, its masks and its caches.

Convention, which keeps the future out: token (z_t, a_t) -> h_t, which predicts z_{t+1}, r_{t+1} and continue_{t+1}.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Qwen3Config, Qwen3Model

from world_model.config import ModelConfig
from world_model.latents import Shown
from world_model.mapping import Maps, MapState, Recalled


class Dynamics(nn.Module):
    """Qwen3-style decoder (RMSNorm, RoPE, SwiGLU, sdpa), built from config without a vocabulary."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.window = config.window
        self.layers, self.heads = config.layers, config.heads
        self.head_dim = config.width // config.heads
        decoder_config = Qwen3Config(
            vocab_size=1,
            hidden_size=config.width,
            intermediate_size=mlp_width(config),
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.heads,
            head_dim=self.head_dim,
            max_position_embeddings=1 << 20,
            initializer_range=config.width**-0.5,
            attn_implementation="sdpa",
            use_cache=False,
            bos_token_id=None,
            eos_token_id=None,
            pad_token_id=None,
        )
        self.decoder = Qwen3Model(decoder_config)
        self.decoder.embed_tokens = nn.Identity()  # tokens come as embeddings; an unused table would only confuse sharding

    def forward(self, tokens: Tensor, mask: Tensor, positions: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        """One pass of the decoder.

        Args:
            tokens: (B, Q, D) step embeddings.
            mask: (B, 1, Q, K) bool, True where a query may look at a key.
            positions: (B, Q) or (1, Q) step indices.
            cache: holds earlier keys and values, and takes in these.

        Returns:
            h: (B, Q, D).
        """
        masks = dict.fromkeys(set(self.decoder.config.layer_types), mask)
        return self.decoder(
            inputs_embeds=tokens, attention_mask=masks, position_ids=positions, past_key_values=cache, use_cache=False
        ).last_hidden_state


def mlp_width(config: ModelConfig) -> int:
    """Of the decoder."""
    return int(config.width * config.mlp_ratio)


class KeyValueCache:
    """What the decoder's attention layers ask of a cache: `update` stores new keys and values and returns all to attend to."""

    def update(self, keys: Tensor, values: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        raise NotImplementedError


class RecordingCache(KeyValueCache):
    """Remembers the keys and values of a training pass, cut off from its graph: the context of imagination.

    Attributes:
        keys, values: per layer (B, heads, T, head_dim).
        maps: of grids, before each step, (B, T, ...).
        recalled: what they hold for each next view, {key: (B, T, cells, 2)}.
        shown: up to each step, (B, T, groups).
    """

    def __init__(self) -> None:
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self.maps: Maps = {}
        self.recalled: Recalled = {}
        self.shown: Shown = {}

    def update(self, keys: Tensor, values: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        self.keys.append(keys.detach())
        self.values.append(values.detach())
        return keys, values


def segment_mask(first: Tensor, window: int) -> Tensor:
    """Which steps may look at which in a training pass: causal, within one episode, at most `window` steps (itself included).

    Args:
        first: (B, T) bool, True where an episode starts.

    Returns:
        (B, 1, T, T) bool.
    """
    segment = first.long().cumsum(1)  # (B, T)
    step = torch.arange(first.shape[1], device=first.device)
    distance = step[:, None] - step[None, :]  # (T, T)
    near = (distance >= 0) & (distance < window)
    return ((segment[:, :, None] == segment[:, None, :]) & near).unsqueeze(1)


@dataclass
class RollingState:
    """Fixed-shape tensors of a rolling cache, one ring of W steps per environment.

    Attributes:
        keys, values: (L, B, heads, W, head_dim).
        position: (B,) int64, steps taken in the episode so far; a new episode starts at 0 and sees nothing from before.
        maps: of grids, of all that the episode has shown so far.
        shown: so far, (B, groups).
    """

    keys: Tensor
    values: Tensor
    position: Tensor
    maps: Maps = field(default_factory=dict)
    shown: Shown = field(default_factory=dict)

    @classmethod
    def zeros(cls, dynamics: Dynamics, batch: int, device: torch.device) -> RollingState:
        shape = (dynamics.layers, batch, dynamics.heads, dynamics.window, dynamics.head_dim)
        return cls(
            torch.zeros(shape, device=device),
            torch.zeros(shape, device=device),
            torch.zeros(batch, dtype=torch.int64, device=device),
        )

    def tensors(self) -> dict[str, Any]:
        """Plain tensors, to be saved."""
        maps = {key: {"seen": state.seen, "pose": state.pose} for key, state in self.maps.items()}
        return {"keys": self.keys, "values": self.values, "position": self.position, "maps": maps, "shown": dict(self.shown)}

    @classmethod
    def of(cls, tensors: Mapping[str, Any], device: torch.device) -> RollingState:
        """What `tensors` told, others among them."""
        maps = {key: MapState(**state).apply(lambda x: x.to(device)) for key, state in tensors.get("maps", {}).items()}
        shown = {key: codes.to(device) for key, codes in tensors.get("shown", {}).items()}
        keys, values, position = (tensors[name].to(device) for name in ("keys", "values", "position"))
        return cls(keys, values, position, maps, shown)

    def restart(self, first: Tensor) -> RollingState:
        """Start new episodes where `first` (B,) is True."""
        maps = {key: state.restart(first) for key, state in self.maps.items()}
        shown = {key: codes * ~first.unsqueeze(-1) for key, codes in self.shown.items()}
        return RollingState(self.keys, self.values, torch.where(first, 0, self.position), maps, shown)

    def rows(self, index: Tensor) -> RollingState:
        """The environments at `index` (N,)."""
        maps = {key: state.apply(lambda x: x[index]) for key, state in self.maps.items()}
        shown = {key: codes[index] for key, codes in self.shown.items()}
        return RollingState(self.keys[:, index], self.values[:, index], self.position[index], maps, shown)


class RollingCache(KeyValueCache):
    """One step for a batch of environments that are at different steps of their episodes.

    Keys carry their rotation by absolute position and attention depends on distances only, so a ring may hold them in any order.
    """

    def __init__(self, state: RollingState) -> None:
        self.before = state
        self.position = state.position
        self.keys, self.values = state.keys.clone(), state.values.clone()
        self.window = state.keys.shape[3]
        self.rows = torch.arange(len(self.position), device=self.position.device)
        self.slot = self.position % self.window

    def update(self, keys: Tensor, values: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        self.keys[layer, self.rows, :, self.slot] = keys[:, :, 0].to(self.keys.dtype)
        self.values[layer, self.rows, :, self.slot] = values[:, :, 0].to(self.values.dtype)
        return self.keys[layer], self.values[layer]

    def mask(self) -> Tensor:
        """(B, 1, 1, W): slots written in this episode."""
        slots = torch.arange(self.window, device=self.position.device)
        return (slots[None] <= self.position[:, None])[:, None, None]

    def state(self) -> RollingState:
        return replace(self.before, keys=self.keys, values=self.values, position=self.position + 1)


def rolling_step(dynamics: Dynamics, tokens: Tensor, state: RollingState) -> tuple[Tensor, RollingState]:
    """tokens (B, D) -> h (B, D), and the state with this step taken in, maps and what was shown apart."""
    cache = RollingCache(state)
    h = dynamics(tokens.unsqueeze(1), cache.mask(), state.position.unsqueeze(1), cache)
    return h.squeeze(1).float(), cache.state()
