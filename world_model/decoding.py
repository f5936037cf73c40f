"""The decoder's cached steps in an imagined rollout on a CPU, with all that does not change meanwhile worked out beforehand.

The same function as `Dynamics` with a cache, up to rounding. There a step of a small decoder spends much of its time between its
matrix products: on rotations and masks that every step asks for anew, on projections one by one, on the gains of norms.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer

from world_model.dynamics import Dynamics, KeyValueCache
from world_model.packing import Product, direction, least_length, packed_linear


class Layer(NamedTuple):
    """What a layer does, with the gains of its norms folded in.

    Attributes:
        project: to queries, keys and values. out: of its attention. widen: gates, then what they let through. narrow: back.
        cos, sin: (H, B, S, 2, 1, head width), rotations of queries and of keys.
    """

    project: Product
    out: Product
    widen: Product
    narrow: Product
    cos: Tensor
    sin: Tensor


class RolloutDecoder:
    """Steps of B sequences from S starts each, by a decoder that is `packing.packable` and whose weights do not change."""

    def __init__(self, dynamics: Dynamics, positions: Tensor, mask: Tensor) -> None:
        """Take over a decoder.

        Args:
            positions: (B, S) int64, of the first step.
            mask: (H, B, 1, S, K) bool, which keys each of H steps looks at.
        """
        horizon, batch, _, count, _ = mask.shape
        self.heads, self.head_width, self.rows = dynamics.heads, dynamics.head_dim, batch * count
        decoder = dynamics.decoder
        self.least, self.least_of_head = (
            least_length(width, decoder.config.rms_norm_eps) for width in (decoder.norm.weight.numel(), self.head_width)
        )
        steps = positions + torch.arange(horizon, device=positions.device)[:, None, None]  # (H, B, S)
        rotation = decoder.rotary_emb(decoder.norm.weight, steps.flatten(0, 1))
        self.cos, self.sin = (x.view(horizon, batch, count, 1, 1, self.head_width) for x in rotation)
        self.layers = [self._layer(layer) for layer in decoder.layers]
        self.gain = decoder.norm.weight * decoder.norm.weight.numel() ** 0.5
        self.mask = torch.zeros(mask.shape, device=mask.device).masked_fill_(~mask, -torch.inf)

    def _layer(self, layer: Qwen3DecoderLayer) -> Layer:
        attention, mlp, half = layer.self_attn, layer.mlp, self.head_width // 2
        projections = torch.cat([attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight])
        root = projections.shape[1] ** 0.5  # of vectors of unit length, which `direction` makes, to those of unit mean square
        gains = torch.stack([attention.scaling * attention.q_norm.weight, attention.k_norm.weight]) * self.head_width**0.5
        gains = gains.unsqueeze(1)  # (2, 1, width): of queries and of keys
        sign = torch.ones(self.head_width, device=gains.device)
        sign[:half] = -1.0
        widen = torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]) * layer.post_attention_layernorm.weight * root
        return Layer(
            project=packed_linear(projections * layer.input_layernorm.weight * root, self.rows),
            out=packed_linear(attention.o_proj.weight, self.rows),
            widen=packed_linear(widen, self.rows),
            narrow=packed_linear(mlp.down_proj.weight, self.rows),
            cos=self.cos * gains,
            sin=self.sin * sign * gains.roll(half, -1),
        )

    def step(self, index: int, tokens: Tensor, cache: KeyValueCache) -> Tensor:
        """tokens (B, S, D) of step `index` -> h (B, S, D). The cache takes in their keys and values."""
        batch, count, _ = tokens.shape
        x = tokens
        for number, layer in enumerate(self.layers):
            both, value = layer.project(direction(x, self.least)).tensor_split([2 * self.heads * self.head_width], -1)
            both = direction(both.unflatten(-1, (2, self.heads, self.head_width)), self.least_of_head)
            turned = both.roll(self.head_width // 2, -1).mul_(layer.sin[index])
            query, key = both.mul_(layer.cos[index]).add_(turned).movedim(1, 3).unbind(1)  # (B, heads, S, width)
            keys, values = cache.update(key, value.unflatten(-1, (self.heads, self.head_width)).transpose(1, 2), number)
            weight = (query @ keys.mT).add_(self.mask[index, ..., : keys.shape[2]]).softmax(-1)
            x = x + layer.out((weight @ values).transpose(1, 2).reshape(batch, count, -1))
            gate, up = layer.widen(direction(x, self.least)).chunk(2, -1)
            x = x + layer.narrow(F.silu(gate).mul_(up))
        return direction(x, self.least) * self.gain
