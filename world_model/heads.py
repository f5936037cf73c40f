"""Heads on the decoder's output: priors of the next latent groups, reward, continuation."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from world_model.config import ModelConfig
from world_model.embedding import BlockEmbedding
from world_model.latents import LatentBlock, code_levels
from world_model.mapping import is_mapped
from world_model.math import symexp_bins, two_hot_loss, two_hot_mean
from world_model.networks import mlp


class TwoHotHead(nn.Module):
    """A scalar as a distribution over symexp-spaced bins; zero-initialised, so that it starts by predicting zero."""

    bins: Tensor

    def __init__(self, width: int, config: ModelConfig) -> None:
        super().__init__()
        self.net = mlp([width, config.hidden, config.bins], zero_last=True)
        self.register_buffer("bins", symexp_bins(config.bins, config.bin_limit), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Expected value (...,) of features (..., width)."""
        return two_hot_mean(self.net(x), self.bins)

    def positive(self, x: Tensor) -> Tensor:
        """Probability (...,) of a value above zero."""
        return self.net(x).float().softmax(-1)[..., len(self.bins) // 2 + 1 :].sum(-1)

    def loss(self, x: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy (...,) against targets (...,)."""
        return two_hot_loss(self.net(x), target, self.bins)


class FlatPrior(nn.Module):
    """Logits of a block's next groups from the history and from the present codes; ragged groups are padded with -inf.

    The history was made for all that is foretold; what a block is now counts most for what it is next, so it is told directly.
    """

    def __init__(self, block: LatentBlock, width: int, config: ModelConfig) -> None:
        super().__init__()
        self.groups, self.classes = block.groups, block.max_classes
        self.embed = BlockEmbedding(block, config.symbol_width)
        self.net = mlp([width + self.groups * config.symbol_width, config.hidden, self.groups * self.classes])
        exists = torch.arange(self.classes)[None] < torch.tensor(block.classes)[:, None]  # (groups, C)
        self.register_buffer("padding", torch.zeros(exists.shape).masked_fill(~exists, -1e9), persistent=False)

    def forward(self, features: Tensor, codes: Tensor, used: int) -> Tensor:
        """features (..., width), present codes (..., groups) -> logits (..., groups, C); the classes in use do not matter."""
        x = torch.cat([features, self.embed(codes).flatten(-2)], -1)
        return self.net(x).unflatten(-1, (self.groups, self.classes)) + self.padding


class GridPrior(nn.Module):
    """Logits of a grid's next cells: every next cell looks at all present cells, and at the history.

    Most of a grid's next view is its present view moved: attention whose queries come from the history (which holds the action)
    learns where each cell comes from once, for all symbols; what comes into view is left to the history.
    """

    def __init__(self, block: LatentBlock, width: int, config: ModelConfig) -> None:
        super().__init__()
        self.groups, self.classes = block.groups, block.max_classes
        self.key_width, self.cell = config.symbol_width, config.cell_width
        self.embed = BlockEmbedding(block, self.cell)
        self.query = nn.Linear(width, self.groups * self.key_width)
        self.place = nn.Parameter(torch.randn(self.groups, self.key_width))
        self.content = nn.Linear(self.cell, self.key_width)
        self.history = nn.Linear(width, self.groups * self.cell)
        self.norm = nn.LayerNorm(2 * self.cell)  # fused on the CPU, as RMSNorm is not; this is the widest tensor of the model
        self.hidden = nn.Linear(2 * self.cell, 2 * self.cell)
        self.out = nn.Linear(2 * self.cell, self.classes)

    def forward(self, features: Tensor, codes: Tensor, used: int) -> Tensor:
        """features (..., width), present codes (..., groups) -> logits (..., groups, used) of the codes given out so far."""
        cells = self.embed(codes)  # (..., G, cell)
        query = self.query(features).unflatten(-1, (self.groups, self.key_width)) / math.sqrt(self.key_width)  # (..., G, key)
        key = self.content(cells) + self.place  # (..., G, key)
        weight = (query @ key.transpose(-1, -2)).softmax(-1)  # (..., G next, G present)
        history = self.history(features).unflatten(-1, (self.groups, self.cell))
        x = self.norm(torch.cat([weight @ cells, history], -1))
        return F.linear(F.silu(self.hidden(x)), self.out.weight[:used], self.out.bias[:used])


class MapPrior(nn.Module):
    """Logits of a grid's next cells from what its map holds for each of them (see `GridMap`), and from the history.

    What moves into place is known from the map, for all symbols alike; what it hides, what an action changes and what was never
    seen is left to the history. One hidden layer a cell, whose inputs from the map are looked up.
    """

    offsets: Tensor

    def __init__(self, block: LatentBlock, width: int, config: ModelConfig) -> None:
        super().__init__()
        self.groups, self.classes, self.hidden = block.groups, block.max_classes, 2 * config.cell_width
        self.seen = nn.Embedding(2 * (self.classes + 1), self.hidden)  # the last codes, then the last other ones
        self.history = nn.Linear(width, self.groups * self.hidden)
        self.out = nn.Linear(self.hidden, self.classes)
        self.register_buffer("offsets", torch.tensor([0, self.classes + 1]), persistent=False)

    def forward(self, features: Tensor, recalled: Tensor, used: int) -> Tensor:
        """features (..., width), recalled (..., groups, 2) -> logits (..., groups, used) of the codes given out so far."""
        seen = F.embedding_bag((recalled + self.offsets).flatten(0, -2), self.seen.weight, mode="sum")
        # Imagination asks for this at every step: to write over what is not looked at again saves it fresh pages of memory.
        x = self.history(features).unflatten(-1, (self.groups, self.hidden))
        x = x.add_(seen.view(x.shape)) if x.dtype == seen.dtype else x + seen.view(x.shape)
        x = F.silu(x, inplace=not torch.is_grad_enabled())
        return F.linear(x, self.out.weight[:used], self.out.bias[:used])


class OrderedPrior(nn.Module):
    """Logits of an ordered block's next levels: a Gaussian round a mean that moves from the present level, plus free logits.

    Numbers mostly change by a little. Neighbouring levels share what is learned, where a free categorical would learn each alone.
    """

    levels: Tensor

    def __init__(self, block: LatentBlock, width: int, config: ModelConfig) -> None:
        super().__init__()
        self.groups, self.classes = block.groups, block.max_classes
        self.net = mlp([width, config.hidden, config.hidden, self.groups * (2 + self.classes)], zero_last=True)
        self.register_buffer("levels", code_levels(torch.arange(self.classes), self.classes), persistent=False)

    def forward(self, features: Tensor, codes: Tensor, used: int) -> Tensor:
        """features (..., width), present codes (..., groups) -> logits (..., groups, C)."""
        out = self.net(features).unflatten(-1, (self.groups, 2 + self.classes))
        mean = code_levels(codes, self.classes) + out[..., 0]  # (..., groups)
        spread = F.softplus(out[..., 1]) * (4 / self.classes) + 0.5 / self.classes  # at least a quarter of a level
        gaussian = -0.5 * ((self.levels - mean.unsqueeze(-1)) / spread.unsqueeze(-1)).square()
        return gaussian + out[..., 2:]


def make_prior(block: LatentBlock, width: int, config: ModelConfig) -> nn.Module:
    """The prior that suits a block: by a map for grids that have one, by attention for what else has a layout, ordered for
    numbers, flat for the rest."""
    if block.ordered:
        return OrderedPrior(block, width, config)
    if config.maps and is_mapped(block):
        return MapPrior(block, width, config)
    return (GridPrior if block.layout else FlatPrior)(block, width, config)
