"""Linear layers laid out anew for many products with the same weights, as an imagined rollout makes them on a CPU.

PyTorch hands every product of float32 matrices to a BLAS that arranges the weights anew each time, and shares out small ones
badly over threads. oneDNN arranges them once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

SMALLEST = 1 << 15  # weights of a layer, below which there is nothing to gain


@contextmanager
def packed(model: nn.Module, rows: int) -> Iterator[None]:
    """Within, the large linear layers of `model` multiply by such copies of their weights, which must not change meanwhile.

    Results are the same up to rounding. Nothing is done where gradients are wanted, under autocast, on other devices, for models
    that are compiled or partitioned, and where PyTorch has no oneDNN.

    Args:
        rows: of the inputs, for which the layout is chosen.
    """
    layers = [] if torch.is_grad_enabled() or torch.is_autocast_enabled("cpu") or not _available() else list(_layers(model))
    try:
        for layer in layers:
            layer.forward = _product(layer, rows)  # type: ignore  # of this object alone
        yield
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)


def _available() -> bool:
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _layers(model: nn.Module) -> Iterator[nn.Linear]:
    if any(part._compiled_call_impl is not None for part in model.modules()):  # it would be compiled again at every change
        return
    for layer in model.modules():
        if type(layer) is not nn.Linear or layer.weight.numel() < SMALLEST:
            continue
        weight = layer.weight
        whole = weight.shape == (layer.out_features, layer.in_features)  # ZeRO-3 leaves an empty tensor of partitioned weights
        real = type(weight.data) is Tensor  # shapes alone, as `job=plan` traces them, have no layout
        if real and whole and weight.device.type == "cpu" and weight.dtype == torch.float32:
            yield layer


def _product(layer: nn.Linear, rows: int) -> Callable[[Tensor], Tensor]:
    weight, bias = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), rows), layer.bias

    def forward(x: Tensor) -> Tensor:
        found: Tensor = torch.ops.mkldnn._linear_pointwise(x.contiguous(), weight, bias, "none", [], "")
        return found

    return forward
