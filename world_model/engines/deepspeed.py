"""DeepSpeed: the same training on one process or many, optimiser states (stage 1) and gradients (stage 2) sharded over them.

The processes are those that a launcher started; without one the run is a group of one. Each brings its own batch and gradients
are averaged; losses are means over the valid steps of all, so N processes take the update that one process takes on all their
batches together. The gradient norm is clipped after averaging. Symbol tables and running means are buffers: it is for the caller
to keep them equal. Stage 3, which partitions the weights too, is in `world_model.engines.partitioned`.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from envs.errors import UserError
from world_model.batch import ModelOutput, Sequences
from world_model.config import ModelConfig, ShardingConfig
from world_model.engines.base import evaluate, make_optimizer
from world_model.engines.joining import join_processes
from world_model.gradients import gradient_norms
from world_model.memory import LARGEST_BUCKET
from world_model.model import WorldModel

PLAIN_LINEAR = {"memory_efficient_linear": False}  # else `F.linear` is another one from then on, for everything in the process
MOMENTS = ("exp_avg", "exp_avg_sq")  # AdamW's state of a parameter, beside its step count


class DeepSpeedEngine:
    """AdamW with gradient clipping in float32, as `LocalEngine`, under ZeRO stage 0 to 2.

    The weights are whole on every process after each step, so acting and imagination use the module itself. Optimiser states are
    saved in the layout of `torch.optim.AdamW`: a run can be resumed at another stage, on another number of processes or by
    `LocalEngine`. DeepSpeed's own checkpoints, whose form depends on both, are therefore not written at all. From stage 1 on
    `optimizer_state` communicates: every process calls it, and the first alone is answered with the whole.

    Raises:
        UserError: DeepSpeed does not serve the device, or a launcher left out what others need.
    """

    is_whole = True

    def __init__(self, build: Callable[[], WorldModel], device: torch.device, config: ShardingConfig) -> None:
        deepspeed = import_deepspeed(device)
        join_processes(device)
        self.stage = config.stage
        self.model = self._built(build, config).to(device)
        self.rank = dist.get_rank()
        self.optimizer = make_optimizer(self.model)
        self._sizes = [len(group["params"]) for group in self.optimizer.param_groups]
        # In the order of the states that are saved.
        self._parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        settings = self._settings(config)
        self.engine, *_ = deepspeed.initialize(model=_LossFirst(self.model), optimizer=self.optimizer, config=settings)

    def _built(self, build: Callable[[], WorldModel], config: ShardingConfig) -> WorldModel:
        return build()

    def _settings(self, config: ShardingConfig) -> dict[str, Any]:
        return deepspeed_settings(config, self.model.config, self._bucket())

    def _bucket(self) -> int:
        """Gradients that are reduced at once. Stages 2 and 3 allocate so much, however small the model."""
        return min(sum(parameter.numel() for parameter in self._parameters), LARGEST_BUCKET)

    def train_step(self, batch: Sequences, norms: bool = False) -> tuple[ModelOutput, dict[str, float]]:
        """One update. The output is of this process's batch, its losses' means over the processes and the gradient norms of all.

        From stage 1 on `norms` gathers the gradients: every process asks for them at the same update.
        """
        loss, output = self._forward(together(batch))
        self.engine.backward(loss)
        of_parts = self._norms() if norms else {}
        if self.stage == 0:  # DeepSpeed keeps no norm here; the gradients are averaged by now
            norm = self._total_norm()
            self.engine.step()
        else:
            self.engine.step()
            norm = self.engine.get_global_grad_norm()
        average_running(self.model)
        return output, {"grad_norm": float(norm), **of_parts}

    def _forward(self, batch: Sequences) -> tuple[Tensor, ModelOutput]:
        found: tuple[Tensor, ModelOutput] = self.engine(batch)
        return found

    def validate(self, batch: Sequences) -> ModelOutput:
        return evaluate(self.inference_copy(), batch)

    def _total_norm(self) -> Tensor:
        """Of all gradients, at stage 0."""
        return nn.utils.get_total_norm([p.grad for p in self._parameters if p.grad is not None])

    def _norms(self) -> dict[str, float]:
        """`grad_norm/PART` of every part, after averaging and before clipping."""
        found = gradient_norms({part: [self._gradient(p) for p in own] for part, own in self.model.parts().items()})
        return {f"grad_norm/{part}": norm.item() for part, norm in found.items()}

    def _gradient(self, parameter: nn.Parameter) -> Tensor | None:
        """Averaged, and gathered where gradients are sharded."""
        if self.stage == 0:
            return parameter.grad
        from deepspeed.utils import safe_get_full_grad

        gradient: Tensor | None = safe_get_full_grad(parameter)
        return gradient

    def inference_copy(self) -> WorldModel:
        return self.model

    def shapes(self) -> dict[str, torch.Size]:
        return {name: value.shape for name, value in self.model.state_dict().items()}

    def weights(self) -> dict[str, Tensor]:
        return self.model.state_dict()

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        self.model.load_state_dict(weights)
        if self.stage > 0:  # each process steps on a copy of its share
            self.engine.optimizer.refresh_fp32_params()

    def optimizer_state(self) -> dict[str, Any]:
        """As `torch.optim.AdamW.state_dict` of an unsharded model: plain values and whole tensors, which only rank 0 keeps."""
        if self.stage == 0:
            return self.optimizer.state_dict()
        groups = self._groups()
        if not self.optimizer.state:  # nothing has been learned yet
            return {"state": {}, "param_groups": groups}
        self._link_shards()
        step = next(iter(self.optimizer.state.values()))["step"]
        states: dict[int, dict[str, Tensor]] = {}
        for index, parameter in enumerate(self._parameters):
            moments = {name: self._moment(parameter, name).cpu() for name in MOMENTS}
            if self.rank == 0:
                states[index] = {"step": step.clone()} | moments
        return {"state": states, "param_groups": groups}

    def load_optimizer_state(self, state: dict[str, Any]) -> None:
        """Take up the moments of `state`, whole on every process; learning rate and the like stay those of the config."""
        states: dict[int, dict[str, Tensor]] = state["state"]
        if self.stage == 0:
            groups = self.optimizer.state_dict()["param_groups"]
            self.optimizer.load_state_dict({"state": states, "param_groups": groups})
        elif states:
            step = max(own["step"] for own in states.values())
            for shard in self._shards():
                self.optimizer.state[shard] = {"step": step.clone()} | {name: torch.zeros_like(shard) for name in MOMENTS}
            self._link_shards()
            for index, own in states.items():  # a parameter that never had a gradient has none: its moments are zero
                for name in MOMENTS:
                    self._set_moment(self._parameters[index], own[name], name)

    def _shards(self) -> list[Tensor]:
        """This process's share of the weights, flat, one of every group."""
        return list(self.engine.optimizer.single_partition_of_fp32_groups)

    def _link_shards(self) -> None:
        """Tell every parameter which part of the shards' states is its own: DeepSpeed does so for the first group alone."""
        from deepspeed.utils import lazy_init_hp_params_optimizer_state

        for parameters, shard in zip(self.engine.optimizer.bit16_groups, self._shards(), strict=True):
            lazy_init_hp_params_optimizer_state(parameters, shard, self.optimizer.state)

    def _moment(self, parameter: nn.Parameter, name: str) -> Tensor:
        from deepspeed.utils import safe_get_full_optimizer_state

        moment: Tensor = safe_get_full_optimizer_state(parameter, name)
        return moment

    def _set_moment(self, parameter: nn.Parameter, value: Tensor, name: str) -> None:
        from deepspeed.utils import safe_set_full_optimizer_state

        safe_set_full_optimizer_state(parameter, value.to(parameter.device), name)

    def _groups(self) -> list[dict[str, Any]]:
        """The settings of every group of parameters, and which they are."""
        groups, start = [], 0
        for group, size in zip(self.optimizer.param_groups, self._sizes, strict=True):
            groups.append({**group, "params": list(range(start, start + size))})
            start += size
        return groups


class _LossFirst(nn.Module):
    """The world model, its loss where DeepSpeed looks for it: it hooks the tensors of a tuple, but looks into no dataclass."""

    def __init__(self, model: WorldModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Sequences) -> tuple[Tensor, ModelOutput]:
        output = self.model(batch)
        return output.loss, output


def together(batch: Sequences) -> Sequences:
    """This process's batch, whose losses are to be means over the valid steps of all processes."""
    if dist.get_world_size() == 1:
        return batch
    steps = batch.valid.sum().float()
    dist.all_reduce(steps)
    return replace(batch, steps=steps / dist.get_world_size())


def running_buffers(model: WorldModel) -> Iterator[Tensor]:
    """What a training pass itself keeps a running mean of."""
    if model.ensemble is not None:
        yield model.ensemble.scale


@torch.no_grad()
def average_running(model: WorldModel) -> None:
    """Give every process the mean of what each found on its own batch."""
    if dist.get_world_size() > 1:
        for buffer in running_buffers(model):
            dist.all_reduce(buffer)
            buffer /= dist.get_world_size()


def deepspeed_settings(config: ShardingConfig, model: ModelConfig, bucket: int) -> dict[str, Any]:
    """DeepSpeed's own configuration."""
    zero: dict[str, Any] = {"stage": config.stage, "reduce_bucket_size": max(bucket, 1)}
    if config.stage == 3:
        # No prefetching: it follows the order of the last pass, and held-out and imagined passes are others.
        zero |= {"stage3_param_persistence_threshold": config.persistence, "stage3_prefetch_bucket_size": 0}
        zero |= PLAIN_LINEAR
    if config.offload in ("optimizer", "all"):
        zero["offload_optimizer"] = {"device": "cpu"}
    if config.offload == "all":
        zero["offload_param"] = {"device": "cpu"}
    return {
        "train_micro_batch_size_per_gpu": 1,  # it has to be given, but is only counted with: train_step is handed its batches
        "gradient_clipping": model.grad_clip,
        "steps_per_print": None,
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": False,  # offloaded states are stepped by AdamW itself, which needs no compiler
    }


def import_deepspeed(device: torch.device) -> Any:
    """DeepSpeed, bound to the device's kind: it chooses one for the whole process when it is imported.

    Raises:
        UserError: it is bound to another kind already.
    """
    os.environ.setdefault("DS_ACCELERATOR", device.type)
    import deepspeed

    chosen = deepspeed.accelerator.get_accelerator().device_name()
    if chosen != device.type:
        raise UserError(f"device={device.type} does not go with DS_ACCELERATOR={chosen}: unset it, or use device={chosen}")
    # A helper for tensor parallelism, which nothing here calls. DeepSpeed would compile it as soon as processes meet: it takes a
    # minute and a C++ compiler, and the lock of a killed build would make every later run wait for ever.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.utils.logger.setLevel(logging.ERROR)  # it warns on standard output of what is meant to be so
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)  # DeepSpeed's own calls
    return deepspeed
