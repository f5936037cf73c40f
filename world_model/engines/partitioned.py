"""ZeRO stage 3: the weights themselves are partitioned over the processes, from the moment that each is made.

Large matrices come together only while a pass needs them; those of up to `sharding.persistence` numbers stay whole on every
process. Acting and imagination make many small passes, so by default (`sharding.gather=rollout`) every process keeps a whole copy
of the model for them, refreshed after each update, which is once per rollout in imagination: what is saved is three quarters of
the memory of training (gradients and optimiser states). With `gather=step` there is no copy: they use the partitioned module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from world_model.batch import ModelOutput, Sequences
from world_model.config import ShardingConfig
from world_model.engines.deepspeed import PLAIN_LINEAR, DeepSpeedEngine, average_running, together
from world_model.memory import LARGEST_BUCKET
from world_model.model import WorldModel

AT_ONCE = 1 << 26  # numbers that are gathered at once to refresh the copy


class PartitionedEngine(DeepSpeedEngine):
    """As `DeepSpeedEngine`, under stage 3.

    What it cannot do `check_partitioning` says.
    """

    def __init__(self, build: Callable[[], WorldModel], device: torch.device, config: ShardingConfig) -> None:
        super().__init__(build, device, config)
        self.whole: WorldModel | None = None
        self.is_whole = config.gather == "rollout"
        if self.is_whole:
            with torch.random.fork_rng():  # it is overwritten at once: its first weights are no draws of the run
                self.whole = build().to(device)
            self.whole.requires_grad_(False)
            share_buffers(self.model, self.whole)  # this way round: the copy's modules have no hooks of DeepSpeed's
            self._refresh()
        self._find_parameters()

    def _find_parameters(self) -> None:
        """Have modules that use a parameter of another module, as of attention's projections, gather it in every pass, not only
        in those that DeepSpeed starts."""
        if self.whole is None:
            for module in self.model.modules():
                module._parameters._in_forward = True  # type: ignore[attr-defined]

    def _built(self, build: Callable[[], WorldModel], config: ShardingConfig) -> WorldModel:
        import deepspeed

        settings = {"train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": 3, **PLAIN_LINEAR}}
        with deepspeed.zero.Init(config_dict_or_path=settings), _Gathering():
            return build()

    def _bucket(self) -> int:
        return min(sum(parameter.ds_numel for parameter in self._parameters), LARGEST_BUCKET)

    def train_step(self, batch: Sequences, norms: bool = False) -> tuple[ModelOutput, dict[str, float]]:
        loss, output = self.engine(together(batch))
        self.engine.backward(loss)
        of_parts = self._norms() if norms else {}
        self.engine.step()
        average_running(self.model)
        self._refresh()
        self._find_parameters()
        return output, {"grad_norm": float(self.engine.get_global_grad_norm()), **of_parts}

    def inference_copy(self) -> WorldModel:
        return self.model if self.whole is None else self.whole

    def shapes(self) -> dict[str, torch.Size]:
        parameters: dict[str, Any] = dict(self.model.named_parameters())
        return {
            name: parameters[name].ds_shape if name in parameters else value.shape
            for name, value in self.model.state_dict().items()
        }

    def weights(self) -> dict[str, Tensor]:
        """All weights; where there is no whole copy they are gathered one by one, on the CPU of rank 0 alone."""
        if self.whole is not None:
            return self.whole.state_dict()
        found = dict(self.model.state_dict())
        for name, parameter in self.model.named_parameters():
            with self._gathered([parameter]):
                found[name] = parameter.detach().cpu().clone() if self.rank == 0 else torch.empty(0)
        return found if self.rank == 0 else {}

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Take up weights, which every process is given."""
        for path, module in self.model.named_modules():
            prefix = f"{path}." if path else ""
            names = [*module._parameters, *module._buffers]
            own = {name: weights[prefix + name] for name in names if prefix + name in weights}
            with self._gathered(list(module.parameters(recurse=False)), changed=True):
                module.load_state_dict(own, strict=False)
        self.engine.optimizer.refresh_fp32_params()
        self._refresh()

    @torch.no_grad()
    def _refresh(self) -> None:
        """Bring the whole copy up to date."""
        if self.whole is None:
            return
        for pairs in _chunks(zip(self.model.parameters(), self.whole.parameters(), strict=True)):
            with self._gathered([parameter for parameter, _ in pairs]):
                for parameter, copy in pairs:
                    copy.copy_(parameter)

    def _gathered(self, parameters: list[nn.Parameter], changed: bool = False) -> Any:
        """The parameters whole, inside; with `changed` what rank 0 makes of them is kept."""
        import deepspeed

        return deepspeed.zero.GatheredParameters(parameters, modifier_rank=0 if changed else None)

    def _shards(self) -> list[Tensor]:
        return list(self.engine.optimizer.fp32_partitioned_groups_flat)

    def _link_shards(self) -> None:
        """Here parameters find their own part by themselves."""

    def _set_moment(self, parameter: Any, value: Tensor, name: str) -> None:
        from deepspeed.utils import safe_set_local_optimizer_state

        share = parameter.ds_tensor.numel()
        padded = nn.functional.pad(value.flatten(), (0, share * dist.get_world_size() - value.numel()))
        safe_set_local_optimizer_state(parameter, padded.narrow(0, share * self.rank, share).to(parameter.device), name)


def share_buffers(model: nn.Module, other: nn.Module) -> None:
    """Let a model have the buffers, and all modules without parameters, of another one of its kind: tables, codebooks and running
    means that either of them takes in are then both's."""
    model._buffers = other._buffers
    for (name, own), others in zip(list(model.named_children()), list(other.children()), strict=True):
        if next(own.parameters(), None) is None:
            setattr(model, name, others)
        else:
            share_buffers(own, others)


def _chunks(pairs: Iterator[tuple[nn.Parameter, nn.Parameter]]) -> Iterator[list[tuple[nn.Parameter, nn.Parameter]]]:
    """Pairs of parameters in lists of up to `AT_ONCE` numbers."""
    chunk: list[tuple[nn.Parameter, nn.Parameter]] = []
    size = 0
    for pair in pairs:
        if chunk and size + pair[1].numel() > AT_ONCE:
            yield chunk
            chunk, size = [], 0
        chunk.append(pair)
        size += pair[1].numel()
    if chunk:
        yield chunk


class _Gathering(TorchFunctionMode):
    """Inside, what changes a partitioned parameter in place (`nn.init.zeros_`) finds it whole, and every process then has what
    rank 0 made of it. DeepSpeed partitions parameters as soon as the module that holds them is made; ours, and those of
    Transformers, are initialised after that."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "").endswith("_") and not func.__name__.endswith("__"):
            given = [*args, *kwargs.values()]
            partitioned = [x for x in given if isinstance(x, nn.Parameter) and hasattr(x, "ds_id") and not x.numel()]
            if partitioned:
                import deepspeed

                with deepspeed.zero.GatheredParameters(partitioned, modifier_rank=0):
                    return func(*args, **kwargs)
        return func(*args, **kwargs)
