"""Where goals live: in the codes of the world model, compressed by an autoencoder into a code that a manager can choose.

After Director's goal autoencoder (Hafner et al. 2022), over discrete codes: its decoder gives a distribution for every group.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hierarchy.adaptive import AdaptiveScale
from hierarchy.config import GoalConfig
from hierarchy.goal_rewards import GoalView
from world_model.embedding import LatentEmbedding
from world_model.latents import LatentBlock, LatentSpec, module_name
from world_model.math import unimix_logits
from world_model.networks import mlp
from world_model.usage import perplexity

MEMORY = "~memory"  # key of the block that holds the projected history
SMOOTHING = 1e-2  # states' worth of every class, so that none is impossible
NO_GOAL = -1  # in every group of a code: no goal is given


@dataclass
class Goal:
    """Decoded goals of any batch shape (...).

    Attributes:
        code: (..., M) int64, what was chosen; `NO_GOAL` where there is none.
        probability: (..., G, C), of every group.
        groups: (..., G) int64, the likeliest code of every group; 0 where its modality is absent.
        there: (..., G) bool, whether the group's modality is present in the goal.
    """

    code: Tensor
    probability: Tensor
    groups: Tensor
    there: Tensor

    def map(self, change: Callable[[Tensor], Tensor]) -> Goal:
        """The same change made to every part."""
        return Goal(*(change(x) for x in (self.code, self.probability, self.groups, self.there)))

    @classmethod
    def stack(cls, goals: Sequence[Goal]) -> Goal:
        """Goals (N,) that follow each other -> (N, S)."""
        parts = [(goal.code, goal.probability, goal.groups, goal.there) for goal in goals]
        return cls(*(torch.stack(x, 1) for x in zip(*parts, strict=True)))

    def at(self, part: slice) -> Goal:
        """Goals (N, S) -> those at `part` of S."""
        return self.map(lambda x: x[:, part])

    def rows(self) -> Goal:
        """Goals (N, S) -> (N * S,)."""
        return self.map(lambda x: x.flatten(0, 1))

    def each(self) -> Goal:
        """Goals (N,) -> (N, 1), for all steps of a segment."""
        return self.map(lambda x: x.unsqueeze(1))

    def others(self) -> Goal:
        """Goals (N, S), each row with the goals of another one, half of them away."""
        return self.map(lambda x: x.roll(max(len(x) // 2, 1), 0))


def goal_blocks(latents: LatentSpec, history: int) -> tuple[LatentBlock, ...]:
    """What a goal can speak of: blocks that change within an episode, and `history` signs of the projected history."""
    kept = [block for block in latents.blocks if not block.static and not block.silent]
    keys = {block.key for block in kept}
    blocks = [block if block.presence in keys else replace(block, presence="") for block in kept]
    memory = [LatentBlock(MEMORY, "categorical", (2,) * history)] if history else []
    return (*blocks, *memory)


class BlockDecoder(nn.Module):
    """Features (..., width) -> logits (..., groups, C) of one block, -1e9 for classes that a group has not."""

    padding: Tensor

    def __init__(self, block: LatentBlock, width: int, cell: int) -> None:
        super().__init__()
        self.groups, self.classes = block.groups, block.max_classes
        own = cell if block.shared else self.classes  # cells that share their symbols share the last layer
        self.groupwise = nn.Linear(width, self.groups * own)
        self.symbols = nn.Linear(cell, self.classes) if block.shared else None
        exists = torch.arange(self.classes)[None] < torch.tensor(block.classes)[:, None]  # (groups, C)
        self.register_buffer("padding", torch.zeros(exists.shape).masked_fill(~exists, -1e9), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.groupwise(x).unflatten(-1, (self.groups, -1))
        return (x if self.symbols is None else self.symbols(F.silu(x))) + self.padding


class GoalSpace(nn.Module):
    """Goal autoencoder over G groups: encode, decode, draw from the prior, novelty, and what a goal reward needs to know.

    Args:
        latents: of the world model; its static blocks (a mission) are carried along and never part of a goal.
        width: V, of what a policy sees beside z.
    """

    index: Tensor
    direction: Tensor
    counts: Tensor
    exists: Tensor

    def __init__(self, latents: LatentSpec, width: int, config: GoalConfig) -> None:
        super().__init__()
        self.config, self.latents = config, latents
        self.spec = LatentSpec(goal_blocks(latents, config.history))
        M, C, hidden = config.groups, config.classes, config.hidden
        self.embed = LatentEmbedding(self.spec, config.symbol_width, hidden)
        self.encoder = nn.Sequential(nn.RMSNorm(hidden), nn.SiLU(), mlp([hidden, hidden, M * C]))
        self.decoder = nn.Sequential(mlp([M * C, hidden, hidden]), nn.RMSNorm(hidden), nn.SiLU())
        self.blocks = nn.ModuleDict(
            {module_name(block.key): BlockDecoder(block, hidden, config.cell_width) for block in self.spec.blocks}
        )
        self.kl_weight = AdaptiveScale(config.kl_target * M * math.log(C), high=10.0)
        world = [torch.arange(part.start, part.stop) for key, part in latents.slices.items() if key in self.spec.slices]
        self.register_buffer("index", torch.cat(world), persistent=False)  # of the groups in z
        self.register_buffer("direction", torch.randn(config.history, width))
        classes = torch.tensor([n for block in self.spec.blocks for n in block.classes])
        self.register_buffer("exists", torch.arange(int(classes.max()))[None] < classes[:, None], persistent=False)  # (G, C)
        self.register_buffer("counts", torch.zeros(self.exists.shape))

    @property
    def groups(self) -> int:
        return self.spec.groups

    # -- states in -------------------------------------------------------------------------------------------------------

    def codes(self, z: Tensor, h: Tensor) -> Tensor:
        """What goals speak of, in a state z (..., Z), h (..., V): (..., G).

        The history is told by signs of random projections of it (Charikar 2002): they are learned from, never through.
        """
        own = z[..., self.index]
        return torch.cat([own, (h.detach() @ self.direction.T > 0).long()], -1) if self.config.history else own

    def there(self, z: Tensor) -> Tensor:
        """(..., G) bool: the group's modality is present in the state z (..., Z)."""
        found = torch.ones(*z.shape[:-1], self.groups, dtype=torch.bool, device=z.device)
        for key, present in self.latents.present(z).items():
            if key in self.spec.slices:
                found[..., self.spec.slices[key]] = present.unsqueeze(-1)
        return found

    def code_logits(self, codes: Tensor) -> Tensor:
        """codes (..., G) -> log-probabilities (..., M, C') of the goal's code."""
        raw = self.encoder(self.embed(codes)).unflatten(-1, (self.config.groups, self.config.classes))
        return unimix_logits(raw, self.config.unimix)

    @torch.no_grad()
    def encode(self, z: Tensor, h: Tensor, greedy: bool = True) -> Tensor:
        """The code (..., M) of a state; drawn, unless `greedy`."""
        logits = self.code_logits(self.codes(z, h))
        return logits.argmax(-1) if greedy else torch.distributions.Categorical(logits=logits).sample()

    def prior(self, n: int) -> Tensor:
        """Uniformly drawn codes (n, M)."""
        return torch.randint(self.config.classes, (n, self.config.groups), device=self.index.device)

    # -- goals out -------------------------------------------------------------------------------------------------------

    def one_hot(self, code: Tensor) -> Tensor:
        """code (..., M) -> (..., M * C'), zeros for `NO_GOAL`."""
        return (code.unsqueeze(-1) == torch.arange(self.config.classes, device=code.device)).float().flatten(-2)

    def logits(self, one_hot: Tensor) -> list[Tensor]:
        """(..., M * C') -> logits (..., groups, classes) of every block."""
        x = self.decoder(one_hot)
        return [self.blocks[module_name(block.key)](x) for block in self.spec.blocks]

    @torch.no_grad()
    def decode(self, code: Tensor) -> Goal:
        """code (..., M) -> what it stands for."""
        wide = self.exists.shape[1]
        parts = [F.pad(x.float().softmax(-1), (0, wide - x.shape[-1])) for x in self.logits(self.one_hot(code))]
        probability = torch.cat(parts, -2)  # (..., G, C)
        groups = probability.argmax(-1)
        there = torch.ones_like(groups, dtype=torch.bool)
        for key, at in self.spec.presence.items():
            there[..., self.spec.slices[key]] = groups[..., at, None] > 0
        there &= (code != NO_GOAL).all(-1, keepdim=True)
        return Goal(code, probability, groups * there, there)

    @torch.no_grad()
    def state(self, code: Tensor, z: Tensor) -> Tensor:
        """A goal as codes of the world model (..., Z), readable by every modality: what is static is that of the state z."""
        found = z.clone()
        found[..., self.index] = self.decode(code).groups[..., : len(self.index)]
        return self.latents.hide(found)

    # -- what it is learned for ------------------------------------------------------------------------------------------

    @property
    def usual(self) -> Tensor:
        """(G, C): how often each class came lately."""
        counts = (self.counts + SMOOTHING) * self.exists
        return counts / counts.sum(-1, keepdim=True)

    @torch.no_grad()
    def observe(self, z: Tensor, h: Tensor) -> None:
        """Count what comes how often, in real states (..., Z) and (..., V)."""
        codes, there = self.codes(z, h).flatten(0, -2), self.there(z).flatten(0, -2)
        rows, wide = self.counts.shape
        place = codes + torch.arange(rows, device=codes.device) * wide
        new = torch.zeros(rows * wide, device=codes.device).index_add_(0, place.flatten(), there.float().flatten())
        self.counts.mul_(self.config.decay).add_(new.view(rows, wide))

    def view(self, z: Tensor, h: Tensor, goal: Goal, cont: Tensor) -> GoalView:
        """What goal rewards look at, of segments z (N, K+1, Z), h (N, K+1, V) under one goal each (N, ...)."""
        there = self.there(z) & goal.there.unsqueeze(1)
        return GoalView(self.codes(z, h), there, goal.probability, self.usual, cont)

    def error(self, one_hot: Tensor, codes: Tensor, there: Tensor) -> Tensor:
        """Cross-entropy (...,) in nats of the codes (..., G), all groups that are there summed up."""
        total = torch.zeros(codes.shape[:-1], device=codes.device)
        for block, logits in zip(self.spec.blocks, self.logits(one_hot), strict=True):
            part = self.spec.slices[block.key]
            error = F.cross_entropy(logits.flatten(0, -2).float(), codes[..., part].flatten(), reduction="none")
            total = total + (error.view(codes[..., part].shape) * there[..., part]).sum(-1)
        return total

    @torch.no_grad()
    def novelty(self, z: Tensor, h: Tensor) -> Tensor:
        """How badly states are put back together, in nats per group (...,): Director's exploration reward."""
        codes, there = self.codes(z, h), self.there(z)
        code = self.code_logits(codes).argmax(-1)
        return self.error(self.one_hot(code), codes, there) / there.sum(-1).clamp(min=1)

    def loss(self, z: Tensor, h: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """What to minimise over states z (N, Z), h (N, V): reconstruction, and a KL to the uniform prior that is held at its
        target; the code is drawn, its gradient passed straight through."""
        codes, there = self.codes(z, h), self.there(z)
        logits = self.code_logits(codes)  # (N, M, C')
        probability = logits.exp()
        drawn = F.one_hot(torch.distributions.Categorical(probability.detach(), validate_args=False).sample(), logits.shape[-1])
        error = self.error((drawn + probability - probability.detach()).flatten(-2), codes, there).mean()
        kl = (probability * (logits + math.log(logits.shape[-1]))).sum((-1, -2)).mean()
        self.kl_weight.update(kl.detach())
        loss = error + self.kl_weight() * kl
        metrics = {
            "goal/error": error / max(self.groups, 1),
            "goal/kl": kl,
            "goal/kl_weight": self.kl_weight(),
            "goal/perplexity": perplexity(drawn.float().sum(0)).mean(),
        }
        return loss, {name: value.detach() for name, value in metrics.items()}
