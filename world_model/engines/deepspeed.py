"""DeepSpeed: the same training on one process or many, optimiser states (stage 1) and gradients (stage 2) sharded over them.

The processes are those that torchrun started; without a launcher the run is a group of one. Each brings its own batch and
gradients are averaged, so N processes with equal numbers of valid steps take the update that one process takes on all their
batches together. The gradient norm is clipped after averaging. Symbol tables and running means are buffers: it is for the
caller to keep them equal.
"""

from __future__ import annotations

import os
import warnings
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from envs.errors import UserError
from world_model.engines.base import evaluate, make_optimizer
from world_model.gradients import gradient_norms
from world_model.model import ModelOutput, Sequences, WorldModel

STAGES = (0, 1, 2)
MOMENTS = ("exp_avg", "exp_avg_sq")  # AdamW's state of a parameter, beside its step count
LARGEST_BUCKET = 500_000_000  # gradients that are reduced at once: DeepSpeed's default


class DeepSpeedEngine:
    """AdamW with gradient clipping in float32, as `LocalEngine`, under ZeRO stage 0 to 2.

    The weights are whole on every process after each step, so acting and imagination use the module itself. Optimiser states are
    saved in the layout of `torch.optim.AdamW`: a run can be resumed at another stage, on another number of processes or by
    `LocalEngine`. `optimizer_state` communicates from stage 1 on: every process calls it.

    Raises:
        UserError: if the stage is none of these, DeepSpeed does not serve the device, or a launcher left out what others need.
    """

    def __init__(self, model: WorldModel, device: torch.device, stage: int) -> None:
        if stage not in STAGES:
            raise UserError(f"sharding.stage={stage} is not supported: weights stay whole on every process; choose 0, 1 or 2")
        deepspeed = _import_deepspeed(device)
        _join_processes(deepspeed)
        config = model.config
        self.model, self.stage = model.to(device), stage
        self.optimizer = make_optimizer(model)
        self._sizes = [len(group["params"]) for group in self.optimizer.param_groups]
        # In the order of the states that are saved.
        self._parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        bucket = min(sum(parameter.numel() for parameter in self._parameters), LARGEST_BUCKET)
        settings = {
            "train_micro_batch_size_per_gpu": 1,  # it has to be given, but is only counted with: train_step is handed its batches
            "gradient_clipping": config.grad_clip,
            "steps_per_print": None,
            # Stage 2 allocates a buffer of a whole bucket, however small the model.
            "zero_optimization": {"stage": stage, "reduce_bucket_size": bucket},
        }
        self.engine, *_ = deepspeed.initialize(model=_LossFirst(model), optimizer=self.optimizer, config=settings)

    def train_step(self, batch: Sequences, norms: bool = False) -> tuple[ModelOutput, dict[str, float]]:
        """One update. The output and its losses are of this process's batch, the gradient norms of all of them.

        From stage 1 on `norms` gathers the gradients: every process asks for them at the same update.
        """
        loss, output = self.engine(batch)
        self.engine.backward(loss)
        of_parts = self._norms() if norms else {}
        if self.stage == 0:  # DeepSpeed keeps no norm here; the gradients are averaged by now
            norm = nn.utils.get_total_norm([p.grad for p in self._parameters if p.grad is not None])
            self.engine.step()
        else:
            self.engine.step()
            norm = self.engine.get_global_grad_norm()
        return output, {"grad_norm": float(norm), **of_parts}

    def validate(self, batch: Sequences) -> ModelOutput:
        return evaluate(self.model, batch)

    def _norms(self) -> dict[str, float]:
        """`grad_norm/PART` of every part, after averaging and before clipping."""
        from deepspeed.utils import safe_get_full_grad

        gradient = safe_get_full_grad if self.stage else (lambda parameter: parameter.grad)
        found = gradient_norms({part: [gradient(p) for p in own] for part, own in self.model.parts().items()})
        return {f"grad_norm/{part}": norm.item() for part, norm in found.items()}

    def inference_copy(self) -> WorldModel:
        return self.model

    def weights(self) -> dict[str, Tensor]:
        return self.model.state_dict()

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        self.model.load_state_dict(weights)
        if self.stage > 0:  # each process steps on a copy of its share
            self.engine.optimizer.refresh_fp32_params()

    def optimizer_state(self) -> dict[str, Any]:
        """As `torch.optim.AdamW.state_dict` of an unsharded model: plain values and whole tensors."""
        if self.stage == 0:
            return self.optimizer.state_dict()
        from deepspeed.utils import lazy_init_hp_params_optimizer_state, safe_get_full_optimizer_state

        groups = self._groups()
        if not self.optimizer.state:  # nothing has been learned yet
            return {"state": {}, "param_groups": groups}
        sharded = self.engine.optimizer
        for parameters, shard in zip(sharded.bit16_groups, sharded.single_partition_of_fp32_groups, strict=True):
            lazy_init_hp_params_optimizer_state(parameters, shard, self.optimizer.state)  # DeepSpeed does so for the first alone
        step = next(iter(self.optimizer.state.values()))["step"]
        states = {
            index: {"step": step.clone()} | {name: safe_get_full_optimizer_state(parameter, name) for name in MOMENTS}
            for index, parameter in enumerate(self._parameters)
        }
        return {"state": states, "param_groups": groups}

    def load_optimizer_state(self, state: dict[str, Any]) -> None:
        """Take up the moments of `state`; learning rate and the like stay those of the config."""
        states: dict[int, dict[str, Tensor]] = state["state"]
        if self.stage == 0:
            groups = self.optimizer.state_dict()["param_groups"]
            self.optimizer.load_state_dict({"state": states, "param_groups": groups})
        elif states:
            self._load_shards(states)

    def _load_shards(self, states: dict[int, dict[str, Tensor]]) -> None:
        from deepspeed.utils import lazy_init_hp_params_optimizer_state, safe_set_full_optimizer_state

        sharded = self.engine.optimizer
        step = max(own["step"] for own in states.values())
        for parameters, shard in zip(sharded.bit16_groups, sharded.single_partition_of_fp32_groups, strict=True):
            self.optimizer.state[shard] = {"step": step.clone()} | {name: torch.zeros_like(shard) for name in MOMENTS}
            lazy_init_hp_params_optimizer_state(parameters, shard, self.optimizer.state)
        for index, own in states.items():  # a parameter that never had a gradient has none: its moments are zero
            for name in MOMENTS:
                safe_set_full_optimizer_state(self._parameters[index], own[name].to(self._parameters[index].device), name)

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


def _import_deepspeed(device: torch.device) -> Any:
    """DeepSpeed, bound to the device's kind: it chooses one for the whole process when it is imported."""
    os.environ.setdefault("DS_ACCELERATOR", device.type)
    import deepspeed

    chosen = deepspeed.accelerator.get_accelerator().device_name()
    if chosen != device.type:
        raise UserError(f"device={device.type} does not go with DS_ACCELERATOR={chosen}: unset it, or use device={chosen}")
    # A helper for tensor parallelism, which nothing here calls. DeepSpeed would compile it as soon as processes meet: it takes a
    # minute and a C++ compiler, and the lock of a killed build would make every later run wait for ever.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)  # DeepSpeed's own calls
    return deepspeed


def _join_processes(deepspeed: Any) -> None:
    """Meet the processes that a launcher started, or be a group of one, without a port that others could hold."""
    os.environ.setdefault("LOCAL_RANK", "0")
    if dist.is_initialized():
        return
    backend = deepspeed.accelerator.get_accelerator().communication_backend_name()
    if "WORLD_SIZE" not in os.environ:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
        return
    try:
        dist.init_process_group(backend)
    except ValueError as error:  # it names the variable
        raise UserError(f"sharding=deepspeed: WORLD_SIZE is set, but {error}; use torchrun, or unset WORLD_SIZE") from error
