"""Bytes per rank of a run, for a ZeRO stage and a number of ranks: arithmetic on what a trace found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from agent.config import RunConfig
from agent.plan.trace import Trace

STAGES = (0, 1, 2, 3)
FLOAT, INDEX = 4, 8  # bytes of a float32 and an int64


@dataclass(frozen=True)
class Shards:
    """The world model's own bytes on one rank.

    Attributes:
        optimizer: Adam's moments and, where they are sharded, the rank's own copy of the weights that it steps.
    """

    parameters: int
    gradients: int
    optimizer: int


@dataclass(frozen=True)
class Budget:
    """Bytes that one rank needs on its device.

    Attributes:
        stage: of ZeRO. ranks: how many there are.
        model: parameters, gradients and optimiser states of the world model; frozen weights and buffers are with the parameters.
        policy: the same of the policy, which every rank has whole.
        activations: kept for the backward pass of the world model.
        imagination: caches, states and policy's activations of an imagined rollout; it comes after that backward pass.
        acting: rolling cache of the environments that the rank steps.
    """

    stage: int
    ranks: int
    model: Shards
    policy: int
    activations: int
    imagination: int
    acting: int

    @property
    def total(self) -> int:
        """The most that is needed at once: a backward pass and imagination follow each other."""
        own = self.model.parameters + self.model.gradients + self.model.optimizer
        return own + self.policy + self.acting + max(self.activations, self.imagination)

    def to_dict(self, limit: int) -> dict[str, Any]:
        """Plain data: every part in bytes, `total`, and whether it fits into `limit` bytes."""
        parts = asdict(self)
        return {**parts.pop("model"), **parts, "total": self.total, "fits": self.total <= limit}


def shard(sizes: Sequence[int], stage: int, ranks: int, persistent: int = 0) -> Shards:
    """Parameters of so many elements each, float32 under AdamW, over `ranks` ranks (Rajbhandari et al. 2020).

    Stage 0 shards nothing, 1 the optimiser, 2 gradients too, 3 parameters too, but for those of fewer than `persistent` elements.
    """
    whole = sum(sizes)
    part = math.ceil(whole / ranks)
    small = sum(size for size in sizes if size < persistent)
    return Shards(
        parameters=FLOAT * (small + math.ceil((whole - small) / ranks) if stage == 3 else whole),
        gradients=FLOAT * (part if stage >= 2 else whole),
        optimizer=FLOAT * (3 * part if stage else 2 * whole),
    )


def imagination_bytes(config: RunConfig, found: Trace) -> int:
    """What one imagined rollout holds: N = B * S states, H steps.

    The context (B, T) of every layer, and the same again with room for S * H more; a mask (H, B, S, T + S * H); states of H + 1
    steps, first one by one, then stacked; a minibatch's activations of the policy.
    """
    model, train, hierarchy = config.model, config.train, config.hierarchy
    batch, length, horizon = train.batch, train.length, hierarchy.horizon
    states, more = batch * hierarchy.starts, hierarchy.starts * horizon
    caches = 2 * model.layers * batch * (length + length + more) * model.width * found.cache_element
    mask = horizon * states * (length + more)
    rollout = 2 * (horizon + 1) * states * (found.groups * INDEX + found.view * FLOAT)
    return caches + mask + rollout + found.policy_activations


def acting_bytes(config: RunConfig) -> int:
    """Keys and values of the last W steps of every environment."""
    model = config.model
    return 2 * model.layers * config.env.num_envs * model.window * model.width * FLOAT


def budgets(config: RunConfig, found: Trace) -> list[Budget]:
    """One for every stage and number of ranks of `plan.world_sizes`; `train.batch` and `env.num_envs` are each rank's own."""
    imagination, acting = imagination_bytes(config, found), acting_bytes(config)
    answer = []
    for ranks in config.plan.world_sizes:
        for stage in STAGES:
            own = shard(found.sizes, stage, ranks)
            own = Shards(own.parameters + found.frozen, own.gradients, own.optimizer)
            answer.append(Budget(stage, ranks, own, found.policy, found.activations, imagination, acting))
    return answer


def smallest(found: Sequence[Budget], limit: int) -> Budget | None:
    """The first that fits into `limit` bytes: fewest ranks, then the lowest stage, which communicates least."""
    fitting = [budget for budget in found if budget.total <= limit]
    return min(fitting, key=lambda budget: (budget.ranks, budget.stage), default=None)
