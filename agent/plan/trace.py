"""How much one update keeps in memory, found by running it on shapes: no weight and no activation is ever allocated."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.utils._python_dispatch import TorchDispatchMode

from agent.build import make_policy
from agent.config import RunConfig
from agent.learner import real_trajectory
from envs.spaces.actions import no_actions
from envs.spaces.specs import EnvSpec
from hierarchy.base import Hierarchy, Learning
from world_model.batch import ModelOutput, Sequences
from world_model.imagination import ImaginationEnv
from world_model.memory import parameter_sizes, split_parameters
from world_model.model import WorldModel
from world_model.splitting import keep_share
from world_model.starts import choose_starts
from world_model.symbols import SymbolTable


@dataclass(frozen=True)
class Trace:
    """What one update of a config needs, whatever it is sharded over.

    Attributes:
        batch: sequences of that update.
        sizes: elements of every trained parameter of the world model.
        split: whether tensor parallelism splits it.
        frozen: bytes of its other parameters and its buffers, whole on every rank.
        policy: bytes of the policy's parameters, their gradients and Adam's moments.
        activations: bytes that the world model's pass keeps for its backward pass, with tensor parallelism on its group's batch.
        policy_activations: bytes that a minibatch of the policy keeps for its backward pass.
        cache_element: bytes of one number of a cache of keys and values in imagination.
        maps: bytes of the maps of a state's grids.
        groups: codes of a state.
        view: numbers that a policy sees beside them.
    """

    batch: int
    sizes: tuple[int, ...]
    split: tuple[bool, ...]
    frozen: int
    policy: int
    activations: int
    policy_activations: int
    cache_element: int
    maps: int
    groups: int
    view: int


def trace(config: RunConfig, spec: EnvSpec, batches: Sequence[int], shapes_only: bool = True) -> list[Trace]:
    """Trace one update on each number of sequences of `batches`, of `train.length` steps, the tables of symbols full.

    With `shapes_only` off everything is really computed, on the CPU: what the figures are checked against.
    """
    settings = replace(config.model, compile=None)
    if config.model.pretrained:  # their weights come from files
        shapes_only = False
    with on_shapes() if shapes_only else nullcontext():
        model = WorldModel(spec, settings)
        hierarchy = make_policy(config, model)
        for module in model.modules():
            if isinstance(module, SymbolTable):
                module.count.fill_(module.size)
        imagined = StillImagination if shapes_only else ImaginationEnv
        found = [_trace(config, model, hierarchy, batch, imagined) for batch in batches]
        ranks = config.sharding.tensor_parallel
        if ranks > 1:
            keep_share(model, ranks)
            found = [replace(x, activations=_pass(model, ranks * x.batch, config.train.length)[2]) for x in found]
        return found


class StillImagination(ImaginationEnv):
    """Rollouts in which nothing moves, of the right shapes: what the decoder does in them is kept for no backward pass."""

    def _advance(self, action: Tensor) -> None:
        self._step_index += 1


def _trace(config: RunConfig, model: WorldModel, hierarchy: Hierarchy, batch: int, imagined: type[ImaginationEnv]) -> Trace:
    sequences, output, activations = _pass(model, batch, config.train.length)
    starts = choose_starts(output, sequences, config.hierarchy.starts)
    real = real_trajectory(model, output, sequences, torch.zeros(sequences.reward.shape))
    imagination = imagined(model, config.hierarchy.horizon, starts.step.numel())
    policy_activations = max(_each(hierarchy.learn(imagination, starts, real), model, hierarchy))
    rest = [p for p in model.parameters() if not p.requires_grad] + list(model.buffers())
    acting = [p for p in hierarchy.parameters() if p.requires_grad]
    return Trace(
        batch=batch,
        sizes=tuple(parameter_sizes(model)),
        split=tuple(split_parameters(model)),
        frozen=nbytes(rest),
        policy=nbytes([*hierarchy.parameters(), *hierarchy.buffers()]) + 3 * nbytes(acting),
        activations=activations,
        policy_activations=policy_activations,
        cache_element=output.context.keys[0].element_size(),
        maps=sum(nbytes([x[0, 0] for x in (m.seen, m.pose)]) for m in output.context.maps.values()),
        groups=model.latents.groups,
        view=model.seen_width,
    )


def _pass(model: WorldModel, batch: int, length: int) -> tuple[Sequences, ModelOutput, int]:
    """A training pass over so many sequences, and the bytes that it keeps."""
    sequences, count = _blank(model, batch, length), SavedBytes(model)
    with count.watch():
        output: ModelOutput = model(sequences)
    return sequences, output, count.total


class SavedBytes:
    """Counts what autograd keeps for a backward pass: every storage once, the modules' own parameters and buffers left out."""

    def __init__(self, *modules: nn.Module) -> None:
        own = [x for module in modules for x in (*module.parameters(), *module.buffers())]
        self._own = {x.untyped_storage()._cdata for x in own}
        self._kept: dict[int, torch.UntypedStorage] = {}  # held on to: a storage that was freed would lend its place to another

    @property
    def total(self) -> int:
        return sum(storage.nbytes() for storage in self._kept.values())

    def watch(self) -> AbstractContextManager[Any]:
        return saved_tensors_hooks(self._pack, lambda kept: kept)

    def _pack(self, saved: Tensor) -> Tensor:
        storage = saved.untyped_storage()
        if storage._cdata not in self._own:
            self._kept[storage._cdata] = storage
        return saved


def _each(learning: Iterator[Learning], *modules: nn.Module) -> Iterator[int]:
    """Bytes kept for the backward pass of every step of the policy."""
    while True:
        count = SavedBytes(*modules)
        with count.watch():
            step = next(learning, None)
        if step is None:
            return
        yield count.total


class _Answer(TorchDispatchMode):
    """Where a program looks at one number of a tensor that is only a shape: it is 1, or true."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default and isinstance(args[0], FakeTensor):
            dtype = args[0].dtype
            return True if dtype == torch.bool else 1.0 if dtype.is_floating_point else 1
        return func(*args, **(kwargs or {}))


@contextmanager
def on_shapes() -> Iterator[None]:
    """In here the parameters of new modules are shapes without memory, and so is everything that is computed from them."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)

    def without_memory(module: nn.Module, name: str, parameter: nn.Parameter) -> Any:
        with mode:
            return nn.Parameter(torch.empty_like(parameter), requires_grad=parameter.requires_grad)

    hook = register_module_parameter_registration_hook(without_memory)
    try:
        with _Answer(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor", UserWarning)  # copies of a critic
            yield
    finally:
        hook.remove()


def _blank(model: WorldModel, batch: int, length: int) -> Sequences:
    """Sequences (B, T) of zeros."""
    spec = model.spec
    obs = {leaf.key: np.zeros((batch, length, *leaf.shape), leaf.dtype) for leaf in spec.observations}
    action = no_actions(spec.action, batch * length).reshape(batch, length, *spec.action.shape)
    never = torch.zeros(batch, length, dtype=torch.bool)
    return Sequences(model.tokenize(obs), torch.as_tensor(action), torch.zeros(batch, length), never, never, never)


def nbytes(tensors: list[Any]) -> int:
    """Bytes of tensors, by their shapes."""
    return sum(x.numel() * x.element_size() for x in tensors)
