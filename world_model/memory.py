"""How much memory the world model's training state takes on each process, as arithmetic: nothing is allocated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from torch import nn

from world_model.splitting import split_dimensions

FLOAT = 4  # bytes: weights, gradients and optimiser states are float32
LARGEST_BUCKET = 1 << 25  # gradients that DeepSpeed reduces at once; stage 3 keeps room for so many


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes on one process, that which holds most, between a backward pass and its optimiser step.

    Attributes:
        parameters: the weights that training passes use.
        gradients: after they were averaged over the processes.
        optimizer: AdamW's two moments, and under ZeRO 1 to 3 the copy of its own share that each process steps on.
        buckets: where gradients are put together to be averaged.
        copy: of the weights that are not whole, for acting and imagination (stage 3 with `gather=rollout`, tensor parallelism).
        offloaded: of parameters and optimizer, what is in the CPU's memory in place of the accelerator's.
    """

    parameters: int
    gradients: int
    optimizer: int
    buckets: int = 0
    copy: int = 0
    offloaded: int = 0

    @property
    def total(self) -> int:
        """All of it, wherever it is."""
        return self.parameters + self.gradients + self.optimizer + self.buckets + self.copy


def predict(
    sizes: Sequence[int],
    stage: int | None,
    processes: int = 1,
    persistence: int = 100_000,
    gather: str = "rollout",
    offload: str = "none",
    ranks: int = 1,
    split: Sequence[bool] = (),
) -> TrainingMemory:
    """Memory of a world model's training state on each process (Rajbhandari et al. 2020, with AdamW in float32).

    Args:
        sizes: numbers in each trained parameter, in the model's order (`parameter_sizes`).
        stage: of ZeRO, 0 to 3; None for `sharding=local`.
        processes: over which it is sharded.
        persistence, gather, offload: as in the `sharding` config group.
        ranks: that share each matrix product of the decoder, `sharding.tensor_parallel`, at stages 0 to 2.
        split: which of `sizes` they share out (`split_parameters`).

    Padding of shards to equal lengths is left out: it is a few numbers a parameter. So is what a pass gathers for a moment.

    Raises:
        ValueError: a stage that there is none of, or fewer than one process.
    """
    if stage not in (None, 0, 1, 2, 3) or processes < 1:
        raise ValueError(f"there is no stage {stage} on {processes} processes")
    if ranks > 1:
        own = [size // ranks if shared else size for size, shared in zip(sizes, split, strict=True)]
        found = predict(own, stage, processes // ranks, offload=offload)
        return replace(found, copy=FLOAT * sum(size for size, shared in zip(sizes, split, strict=True) if shared))
    whole = FLOAT * sum(sizes)
    if not stage:
        return TrainingMemory(whole, whole, 2 * whole)
    share = FLOAT * sum(-(-size // processes) for size in sizes)
    optimizer = 3 * share
    moved = optimizer if offload != "none" else 0
    if stage < 3:
        return TrainingMemory(whole, FLOAT * _most_gradients(sizes, processes), optimizer, offloaded=moved)
    persistent = FLOAT * sum(size for size in sizes if size <= persistence)
    return TrainingMemory(
        parameters=share + persistent,
        gradients=share,
        optimizer=optimizer,
        buckets=min(whole, FLOAT * LARGEST_BUCKET),
        copy=whole if gather == "rollout" else 0,
        offloaded=moved + (share if offload == "all" else 0),
    )


def _most_gradients(sizes: Sequence[int], processes: int) -> int:
    """Stages 1 and 2 cut the row of all gradients into equal shares; a gradient that is cut is kept whole on both sides."""
    share, ends = -(-sum(sizes) // processes), list(accumulate(sizes))
    starts = [end - size for end, size in zip(ends, sizes, strict=True)]
    held = [
        sum(
            size
            for size, start, end in zip(sizes, starts, ends, strict=True)
            if start < (rank + 1) * share and end > rank * share
        )
        for rank in range(processes)
    ]
    return max(held)


def parameter_sizes(model: nn.Module) -> list[int]:
    """Numbers in each parameter of a model that is trained."""
    return [parameter.numel() for parameter in model.parameters() if parameter.requires_grad]


def split_parameters(model: nn.Module) -> list[bool]:
    """Of the same parameters of a world model, whether tensor parallelism splits them."""
    names = split_dimensions(model)
    return [name in names for name, parameter in model.named_parameters() if parameter.requires_grad]
