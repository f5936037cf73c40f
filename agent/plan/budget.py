"""Bytes per rank of a run, for a ZeRO stage and a number of ranks: arithmetic on what a trace found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from agent.config import RunConfig
from agent.plan.trace import Trace
from world_model.memory import TrainingMemory, predict

STAGES = (0, 1, 2, 3)
FLOAT, INDEX = 4, 8  # bytes of a float32 and an int64


@dataclass(frozen=True)
class Budget:
    """Bytes that one rank needs on its device.

    Attributes:
        stage: of ZeRO. ranks: how many there are.
        model: training state of the world model.
        frozen: its weights that are not trained, and its buffers.
        policy: parameters, gradients and optimiser states of the policy, which every rank has whole.
        activations: kept for the backward pass of the world model, and the maps of all steps, or of those before them.
        imagination: caches, states and policy's activations of an imagined rollout; it comes after that backward pass.
        acting: rolling cache of the environments that the rank steps.
    """

    stage: int
    ranks: int
    model: TrainingMemory
    frozen: int
    policy: int
    activations: int
    imagination: int
    acting: int

    @property
    def total(self) -> int:
        """The most that is needed at once: a backward pass and imagination follow each other."""
        own = self.model.total - self.model.offloaded + self.frozen
        return own + self.policy + self.acting + max(self.activations, self.imagination)

    def to_dict(self, limit: int) -> dict[str, Any]:
        """Plain data: every part in bytes, `total`, and whether it fits into `limit` bytes."""
        parts = asdict(self)
        return {**parts.pop("model"), **parts, "total": self.total, "fits": self.total <= limit}


def imagination_bytes(config: RunConfig, found: Trace) -> int:
    """What one imagined rollout holds: N = B * S states, H steps.

    The maps of every step of the sequences, and of every state before and after a step; the context (B, T) of every layer, and
    the same again with room for S * H more; a mask (H, B, S, T + S * H); states of H + 1 steps, first one by one, then stacked; a
    minibatch's activations of the policy.
    """
    model, train, hierarchy = config.model, config.train, config.hierarchy
    batch, length, horizon = found.batch, train.length, hierarchy.horizon
    states, more = batch * hierarchy.starts, hierarchy.starts * horizon
    maps = found.maps * (batch * length + 2 * states)
    caches = 2 * model.layers * batch * (length + length + more) * model.width * found.cache_element
    mask = horizon * states * (length + more)
    rollout = 2 * (horizon + 1) * states * (found.groups * INDEX + found.view * FLOAT)
    return maps + caches + mask + rollout + found.policy_activations


def acting_bytes(config: RunConfig, found: Trace) -> int:
    """Keys and values of the last W steps of every environment, and its maps."""
    model = config.model
    return 2 * model.layers * config.env.num_envs * model.window * model.width * FLOAT + config.env.num_envs * found.maps


def share_of_batch(config: RunConfig, ranks: int) -> int:
    """Sequences that each rank trains on: `train.batch` is that of all together."""
    return -(-config.train.batch // ranks)


def budgets(config: RunConfig, traces: Mapping[int, Trace]) -> list[Budget]:
    """One for every number of ranks of `traces` and every stage that `sharding.tensor_parallel` goes with; each rank steps
    `env.num_envs` environments of its own."""
    keys = config.sharding
    answer = []
    for ranks, found in traces.items():
        imagination, acting = imagination_bytes(config, found), acting_bytes(config, found)
        together = found.batch * keys.tensor_parallel  # sequences of a training pass
        steps = max(config.train.length, config.train.burn_in + 1)
        activations = found.activations + 2 * found.maps * together * steps  # maps one by one, then stacked
        for stage in STAGES if keys.tensor_parallel == 1 else STAGES[:3]:
            own = predict(
                found.sizes, stage, ranks, keys.persistence, keys.gather, keys.offload, keys.tensor_parallel, found.split
            )
            answer.append(Budget(stage, ranks, own, found.frozen, found.policy, activations, imagination, acting))
    return answer


def smallest(found: Sequence[Budget], limit: int) -> Budget | None:
    """The first that fits into `limit` bytes: fewest ranks, then the lowest stage, which communicates least."""
    fitting = [budget for budget in found if budget.total <= limit]
    return min(fitting, key=lambda budget: (budget.ranks, budget.stage), default=None)
