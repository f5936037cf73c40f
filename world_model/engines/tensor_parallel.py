"""Tensor parallelism under ZeRO stage 0 to 2: a group of ranks shares each matrix product of the decoder (DeepSpeed's AutoTP).

It concerns the training pass alone, which is what gradients, optimiser states and activations are for. In it the ranks of a group
put their batches together and each computes some of the heads and a part of the MLP's width; the rest of the model they compute
alike. Acting and imagination make calls of their own on each rank, as its environments need them, so every rank keeps the decoder
whole for them, refreshed after each update; all other weights are the same in both. Groups are ranks that follow each other, and
what is said of N processes of data parallelism holds for N groups.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from world_model.batch import ModelOutput, Sequences
from world_model.config import ShardingConfig
from world_model.dynamics import RecordingCache
from world_model.engines.deepspeed import MOMENTS, DeepSpeedEngine
from world_model.math import forked
from world_model.model import WorldModel
from world_model.splitting import autotp_settings, partial_gradients, share_of, split_dimensions


class TensorParallelEngine(DeepSpeedEngine):
    """As `DeepSpeedEngine`; weights and optimiser states are gathered to be saved, and every process calls what gathers them.

    Ranks of a group draw the same random numbers in a training pass, and average their gradients of what they hold whole: kernels
    that add in any order, as some of a GPU's do, would else let those weights drift apart.

    What it cannot do `check_sharding` and `check_partitioning` say.
    """

    def __init__(self, build: Callable[[], WorldModel], device: torch.device, config: ShardingConfig) -> None:
        self.ranks, self.device = config.tensor_parallel, device
        super().__init__(build, device, config)
        from deepspeed.utils import groups

        self.engine.first_dataloader_check.remove()  # it would pickle the first batch to see that the group's ranks all have it
        self.whole.to(device)
        self.group = groups.get_tensor_model_parallel_group()
        self.index, self.leader = dist.get_rank(self.group), groups.get_tensor_model_parallel_src_rank()
        dimensions, own = split_dimensions(self.whole), dict(self.model.named_parameters())
        # Of every split weight: this rank's share, the whole, and the dimension it is split along.
        self._split = [
            (own[name], whole, dimensions[name]) for name, whole in self.whole.named_parameters() if name in dimensions
        ]
        self._dimensions = {id(share): dimension for share, _, dimension in self._split}
        partial = partial_gradients(self.whole)
        for name, parameter in own.items():
            if parameter.requires_grad and name not in dimensions:
                parameter.register_hook(self._sum if name in partial else self._mean)

    def _built(self, build: Callable[[], WorldModel], config: ShardingConfig) -> WorldModel:
        self.whole = build()
        model = beside(self.whole)
        names = split_dimensions(self.whole)
        for name, parameter in self.whole.named_parameters():
            if name in names:
                parameter.requires_grad_(False)
        return model

    def _settings(self, config: ShardingConfig) -> dict[str, Any]:
        return {**super()._settings(config), "tensor_parallel": autotp_settings(config.tensor_parallel)}

    def train_step(self, batch: Sequences, norms: bool = False) -> tuple[ModelOutput, dict[str, float]]:
        """One update, on the batches of all. The output is of this process's own batch, but for the losses and metrics, which are
        those of its group."""
        output, found = super().train_step(batch, norms)
        self._refresh()
        return self._own(output), found

    def _forward(self, batch: Sequences) -> tuple[Tensor, ModelOutput]:
        with self._same_draws():
            return super()._forward(self._of_group(batch))

    def inference_copy(self) -> WorldModel:
        return self.whole

    def shapes(self) -> dict[str, torch.Size]:
        return {name: value.shape for name, value in self.whole.state_dict().items()}

    def weights(self) -> dict[str, Tensor]:
        return self.whole.state_dict()

    @torch.no_grad()
    def load_weights(self, weights: dict[str, Tensor]) -> None:
        self.whole.load_state_dict(weights)
        for share, whole, dimension in self._split:
            share.copy_(share_of(whole, dimension, self.index, self.ranks))
        if self.stage > 0:
            self.engine.optimizer.refresh_fp32_params()

    def optimizer_state(self) -> dict[str, Any]:
        """As `DeepSpeedEngine.optimizer_state`; every process calls it at stage 0, too."""
        state = super().optimizer_state()
        if self.stage == 0:
            whole = {index: self._whole_moments(index, own) for index, own in state["state"].items()}
            return {**state, "state": whole}
        return state

    def load_optimizer_state(self, state: dict[str, Any]) -> None:
        shares = {index: self._own_moments(index, own) for index, own in state["state"].items()}
        super().load_optimizer_state({**state, "state": shares})

    # -- of a batch ------------------------------------------------------------------------------------------------------

    def _of_group(self, batch: Sequences) -> Sequences:
        """The batches of the group's ranks, one after the other."""
        whole = batch.apply(self._gather)
        whole.steps = None if batch.steps is None else batch.steps * self.ranks  # the mean is over groups now
        return whole

    def _own(self, output: ModelOutput) -> ModelOutput:
        """What of a pass over the group's batch is of this process's rows."""
        count = len(output.z) // self.ranks
        rows = slice(self.index * count, (self.index + 1) * count)
        context = RecordingCache()
        context.keys = [self._own_heads(x) for x in output.context.keys]
        context.values = [self._own_heads(x) for x in output.context.values]
        context.maps = {key: state.apply(lambda x: x[rows]) for key, state in output.context.maps.items()}
        context.recalled = {key: x[rows] for key, x in output.context.recalled.items()}
        context.shown = {key: x[rows] for key, x in output.context.shown.items()}
        return replace(output, z=output.z[rows], h=output.h[rows], context=context)

    def _own_heads(self, x: Tensor) -> Tensor:
        """Keys or values of this rank's heads for the group's rows -> those of all heads for this rank's rows, (B, heads, T, head
        width)."""
        sent = x.unflatten(0, (self.ranks, -1)).contiguous()  # (ranks, B, heads / ranks, T, head width)
        received = torch.empty_like(sent)
        dist.all_to_all_single(received, sent, group=self.group)
        return received.movedim(0, 1).flatten(1, 2)

    @contextmanager
    def _same_draws(self) -> Iterator[None]:
        """In here all ranks of the group draw the same numbers, from a seed that its first one draws."""
        seed = torch.randint(1 << 62, (1,)).to(self.device)
        dist.broadcast(seed, self.leader, self.group)
        with forked(self.device):
            torch.manual_seed(int(seed.item()))
            yield

    # -- of the state ----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _refresh(self) -> None:
        """Bring the whole decoder up to date."""
        for share, whole, dimension in self._split:
            whole.copy_(self._gather(share, dimension))

    def _gather(self, x: Tensor, dimension: int = 0) -> Tensor:
        """What each rank of the group has, in one tensor."""
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(self.ranks)]
        dist.all_gather(parts, x.detach().contiguous(), group=self.group)
        return torch.cat(parts, dimension)

    def _sum(self, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=self.group)
        return total

    def _mean(self, gradient: Tensor) -> Tensor:
        return self._sum(gradient) / self.ranks

    def _total_norm(self) -> Tensor:
        return self._norms_of([self._parameters])[0]

    def _norms(self) -> dict[str, float]:
        parts = self.model.parts()
        return {f"grad_norm/{part}": norm for part, norm in zip(parts, self._norms_of(parts.values()).tolist(), strict=True)}

    def _norms_of(self, groups: Any) -> Tensor:
        """Norms of the gradients of groups of parameters, of which this rank has shares."""
        squares = torch.stack([torch.stack([self._square(p) for p in own]).sum() for own in groups])
        dist.all_reduce(squares, group=self.group)
        return squares.sqrt()

    def _square(self, parameter: nn.Parameter) -> Tensor:
        """What this rank adds to the sum of squares over its group."""
        gradient = self._gradient(parameter)
        if gradient is None:
            return torch.zeros((), device=self.device)
        square = gradient.float().square().sum()
        return square if id(parameter) in self._dimensions else square / self.ranks

    def _moment(self, parameter: nn.Parameter, name: str) -> Tensor:
        moment, dimension = super()._moment(parameter, name), self._dimensions.get(id(parameter))
        return moment if dimension is None else self._gather(moment, dimension)

    def _whole_moments(self, index: int, own: dict[str, Tensor]) -> dict[str, Tensor]:
        dimension = self._dimensions.get(id(self._parameters[index]))
        if dimension is None:
            return own
        return {name: self._gather(value, dimension) if name in MOMENTS else value for name, value in own.items()}

    def _own_moments(self, index: int, whole: dict[str, Tensor]) -> dict[str, Tensor]:
        dimension = self._dimensions.get(id(self._parameters[index]))
        if dimension is None:
            return whole
        shares = {name: share_of(whole[name], dimension, self.index, self.ranks).contiguous() for name in MOMENTS}
        return whole | shares


def beside(whole: WorldModel) -> WorldModel:
    """A model whose modules and parameters are those of `whole` themselves; of the decoder's modules, and of its weights that are
    to be split, it has copies."""
    dimensions = split_dimensions(whole)
    shared = {id(parameter): parameter for name, parameter in whole.named_parameters() if name not in dimensions}
    model = copy.copy(whole)
    model._modules = {**whole._modules, "dynamics": copy.deepcopy(whole.dynamics, shared)}
    return model
