"""Where goals live: in the codes of the world model, compressed by an autoencoder into a code that a manager can choose.

After Director's goal autoencoder (Hafner et al. 2022), over discrete codes: its decoder gives a distribution for every group.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hierarchy.adaptive import AdaptiveScale
from hierarchy.config import GoalConfig
from hierarchy.goal import NO_GOAL, PLACE, Goal, goal_blocks
from hierarchy.goal_rewards import GoalView
from world_model.embedding import LatentEmbedding
from world_model.latents import LatentBlock, LatentSpec, module_name
from world_model.lattice import displaced, displacement
from world_model.math import unimix_logits
from world_model.networks import mlp
from world_model.usage import perplexity

TURN = 0.25  # of the weight of a row or column, that of how one is turned: a step on the way should not be outweighed by it
SMOOTHING = 1e-2  # states' worth of every class, so that none is impossible


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
        width: V, of what a policy sees beside z, less the poses that follow if goals hold places.
        reach: rows and columns that a place may be away.
    """

    index: Tensor
    direction: Tensor
    near: Tensor
    emphasis: Tensor
    counts: Tensor
    exists: Tensor

    def __init__(self, latents: LatentSpec, width: int, config: GoalConfig, reach: int = 8) -> None:
        super().__init__()
        self.config, self.latents, self.width, self.reach = config, latents, width, reach
        self.spec = LatentSpec(goal_blocks(latents, config.history, reach if config.place else 0))
        places = [self.spec.slices[block.key] for block in self.spec.blocks if block.key.startswith(PLACE)]
        self.places = 3 * len(places)  # the last ones of the groups
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
        side = torch.arange(2 * reach + 1)
        self.register_buffer("near", (1 - (side[:, None] - side).abs() / reach).clamp(min=0), persistent=False)
        emphasis = torch.ones(self.groups)
        emphasis[self.groups - self.places :] = config.place
        emphasis[self.groups - self.places :: 3] = config.place * TURN
        self.register_buffer("emphasis", emphasis, persistent=False)

    @property
    def groups(self) -> int:
        return self.spec.groups

    # -- states in -------------------------------------------------------------------------------------------------------

    def poses(self, h: Tensor) -> Tensor:
        """Where on the maps h (..., V + P) says that the view is, (..., P) int64."""
        return h[..., self.width :].round().long()

    def codes(self, z: Tensor, h: Tensor, anchor: Tensor) -> Tensor:
        """What goals speak of, in a state z (..., Z), h (..., V + P), seen from poses (..., P): (..., G).

        The history is told by signs of random projections of it (Charikar 2002): they are learned from, never through.
        """
        parts = [z[..., self.index]]
        if self.config.history:
            parts.append((h[..., : self.width].detach() @ self.direction.T > 0).long())
        if self.places:
            parts.append(self._place(anchor, self.poses(h)))
        return torch.cat(parts, -1) if len(parts) > 1 else parts[0]

    def _place(self, anchor: Tensor, pose: Tensor) -> Tensor:
        """Classes (..., P) of where poses (..., P) are, seen from others; what is farther than `reach` counts as that far."""
        anchor, pose = (x.unflatten(-1, (-1, 3)) for x in torch.broadcast_tensors(anchor, pose))
        way = displacement(anchor, pose)
        sides = way[..., 1:].clamp(-self.reach, self.reach) + self.reach
        return torch.cat([way[..., :1], sides], -1).flatten(-2)

    def ways(self, groups: Tensor) -> Tensor:
        """Where to the places of goals lie (..., G), seen from their anchors: (..., maps, 3) quarter turns, rows, columns."""
        way = groups[..., self.groups - self.places :].unflatten(-1, (-1, 3))
        return torch.cat([way[..., :1], way[..., 1:] - self.reach], -1)

    def ahead(self, goal: Goal, h: Tensor) -> Tensor:
        """The goal's groups (..., G) as they are seen from a state's h (..., V + P): places from there."""
        if not self.places:
            return goal.groups
        there = displaced(goal.anchor.unflatten(-1, (-1, 3)), self.ways(goal.groups)).flatten(-2)
        place = self._place(self.poses(h), there)
        rest = goal.groups[..., : self.groups - self.places]
        return torch.cat([rest.expand(*place.shape[:-1], -1), place], -1)

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
    def encode(self, z: Tensor, h: Tensor, anchor: Tensor, greedy: bool = True) -> Tensor:
        """The code (..., M) of a state seen from poses (..., P); drawn, unless `greedy`."""
        logits = self.code_logits(self.codes(z, h, anchor))
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
    def decode(self, code: Tensor, anchor: Tensor) -> Goal:
        """code (..., M) -> what it stands for, where it was chosen at poses (..., P)."""
        wide = self.exists.shape[1]
        parts = [F.pad(x.float().softmax(-1), (0, wide - x.shape[-1])) for x in self.logits(self.one_hot(code))]
        probability = torch.cat(parts, -2)  # (..., G, C)
        groups = probability.argmax(-1)
        there = torch.ones_like(groups, dtype=torch.bool)
        for key, at in self.spec.presence.items():
            there[..., self.spec.slices[key]] = groups[..., at, None] > 0
        there &= (code != NO_GOAL).all(-1, keepdim=True)
        return Goal(code, probability, groups * there, there, anchor)

    @torch.no_grad()
    def state(self, code: Tensor, z: Tensor) -> Tensor:
        """A goal as codes of the world model (..., Z), readable by every modality: what is static is that of the state z."""
        found = z.clone()
        found[..., self.index] = self.decode(code, code[..., :0]).groups[..., : len(self.index)]
        return self.latents.hide(found)

    # -- what it is learned for ------------------------------------------------------------------------------------------

    @property
    def usual(self) -> Tensor:
        """(G, C): how often each class came lately."""
        counts = (self.counts + SMOOTHING) * self.exists
        return counts / counts.sum(-1, keepdim=True)

    @torch.no_grad()
    def observe(self, z: Tensor, h: Tensor, anchor: Tensor) -> None:
        """Count what comes how often, in real states (..., Z) and (..., V + P) seen from poses (..., P)."""
        codes, there = self.codes(z, h, anchor).flatten(0, -2), self.there(z).flatten(0, -2)
        rows, wide = self.counts.shape
        place = codes + torch.arange(rows, device=codes.device) * wide
        new = torch.zeros(rows * wide, device=codes.device).index_add_(0, place.flatten(), there.float().flatten())
        self.counts.mul_(self.config.decay).add_(new.view(rows, wide))

    def view(self, z: Tensor, h: Tensor, goal: Goal, cont: Tensor) -> GoalView:
        """What goal rewards look at, of segments z (N, K+1, Z), h (N, K+1, V) under one goal each (N, ...)."""
        there = self.there(z) & goal.there.unsqueeze(1)
        agreement = None
        if self.places:
            rest, own = goal.probability.split([self.groups - self.places, self.places], -2)
            own = own.unflatten(-2, (-1, 3))
            sides = F.pad(own[..., 1:, : len(self.near)] @ self.near, (0, own.shape[-1] - len(self.near)))
            agreement = torch.cat([rest, torch.cat([own[..., :1, :], sides], -2).flatten(-3, -2)], -2)
        codes = self.codes(z, h, goal.anchor.unsqueeze(1))
        return GoalView(codes, there, goal.probability, self.usual, cont, agreement, self.emphasis)

    def error(self, one_hot: Tensor, codes: Tensor, there: Tensor) -> Tensor:
        """Cross-entropy (...,) in nats of the codes (..., G), all groups that are there summed up, by their emphasis."""
        total = torch.zeros(codes.shape[:-1], device=codes.device)
        for block, logits in zip(self.spec.blocks, self.logits(one_hot), strict=True):
            part = self.spec.slices[block.key]
            error = F.cross_entropy(logits.flatten(0, -2).float(), codes[..., part].flatten(), reduction="none")
            total = total + (error.view(codes[..., part].shape) * there[..., part] * self.emphasis[part]).sum(-1)
        return total

    @torch.no_grad()
    def novelty(self, z: Tensor, h: Tensor, anchor: Tensor) -> Tensor:
        """How badly states are put back together, in nats per group (...,): Director's exploration reward."""
        codes, there = self.codes(z, h, anchor), self.there(z)
        code = self.code_logits(codes).argmax(-1)
        return self.error(self.one_hot(code), codes, there) / there.sum(-1).clamp(min=1)

    def loss(self, z: Tensor, h: Tensor, anchor: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """What to minimise over states z (N, Z), h (N, V + P), seen from poses (N, P): reconstruction, and a KL to the uniform
        prior that is held at its target; the code is drawn, its gradient passed straight through."""
        codes, there = self.codes(z, h, anchor), self.there(z)
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
