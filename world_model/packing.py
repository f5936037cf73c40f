"""Layers that go by copies of their weights for a while, as in an imagined rollout on a CPU: many products of a few rows.

PyTorch hands every product of float32 matrices to a BLAS that arranges the weights anew each time, and shares out small ones
badly over threads. oneDNN arranges them once. Norms pass over their inputs fewer times than PyTorch's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

SMALLEST = 1 << 15  # weights of a layer, below which there is nothing to gain
Product = Callable[[Tensor], Tensor]


@contextmanager
def packed(parts: Iterable[nn.Module], rows: int) -> Iterator[None]:
    """Within, the large linear layers of `parts` multiply by such copies of their weights, which must not change meanwhile.

    Norms go by `direction`. Results are the same up to rounding. Parts that are not `packable` are left alone.

    Args:
        rows: of the inputs, for which the layout is chosen.
    """
    changed: dict[nn.Module, Product] = {}
    for layer in [layer for part in parts if packable(part) for layer in part.modules()]:
        if type(layer) is nn.Linear and layer.weight.numel() >= SMALLEST:
            changed[layer] = packed_linear(layer.weight, rows, layer.bias)
        elif type(layer) is nn.RMSNorm and layer.elementwise_affine:
            changed[layer] = _norm(layer)
    try:
        for layer, forward in changed.items():
            layer.forward = forward  # of this object alone
        yield
    finally:
        for layer in changed:
            vars(layer).pop("forward", None)


def packable(part: nn.Module) -> bool:
    """Whether copies of its weights may stand in for them: not where gradients are wanted, under autocast, on other devices, in
    models that are compiled or partitioned, of shapes alone as `job=plan` traces them, and where PyTorch has no oneDNN.
    """
    if torch.is_grad_enabled() or torch.is_autocast_enabled("cpu") or not _available():
        return False
    if any(module._compiled_call_impl is not None for module in part.modules()):  # it would be compiled again at every change
        return False
    weights = list(part.parameters())
    if any(hasattr(weight, "ds_id") for weight in weights):  # partitioned by ZeRO-3: reading `layer.weight` would gather it
        return False
    return all(
        type(weight.data) is Tensor and weight.device.type == "cpu" and weight.dtype == torch.float32 for weight in weights
    )


def packed_linear(weight: Tensor, rows: int, bias: Tensor | None = None) -> Product:
    """The product of x (..., in) with the transpose of `weight` (out, in), laid out for so many rows of x."""
    layout = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), rows)

    def product(x: Tensor) -> Tensor:
        found: Tensor = torch.ops.mkldnn._linear_pointwise(x.contiguous(), layout, bias, "none", [], "")
        return found

    return product


def direction(x: Tensor, least: Tensor) -> Tensor:
    """x (..., D) over the root of its sum of squares, so that RMSNorm is this times its gain times the root of D.

    `least` (see `least_length`) keeps what is nearly zero small.
    """
    return x / torch.linalg.vector_norm(x, dim=-1, keepdim=True).hypot_(least)


def least_length(width: int, epsilon: float) -> Tensor:
    """(), which `direction` takes for an RMSNorm over `width` numbers with this epsilon."""
    return torch.tensor((width * epsilon) ** 0.5)


def _norm(layer: nn.RMSNorm) -> Product:
    gain = layer.weight * layer.weight.numel() ** 0.5
    least = least_length(layer.weight.numel(), torch.finfo(gain.dtype).eps if layer.eps is None else layer.eps)
    return lambda x: direction(x, least).mul_(gain)


def _available() -> bool:
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
