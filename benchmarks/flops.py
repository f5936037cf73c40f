"""How much arithmetic a computation does, and how fast this machine can do arithmetic at best."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count


def count_flops(work: Callable[[], Any]) -> int:
    """Floating-point operations of the matrix products in `work`, forward and backward: a multiply-add counts two.

    Convolutions and attention are matrix products too; elementwise work, lookups and the optimiser are not counted, as is usual
    when utilisation is quoted.
    """
    with FlopCounterMode(display=False, custom_mapping=_CPU_ATTENTION) as counter:
        work()
    return int(counter.get_total_flops())


def matmul_peak(sizes: Sequence[int] = (512, 1024, 2048), seconds: float = 1.0, device: str | torch.device = "cpu") -> float:
    """FLOP/s of the fastest square fp32 matrix product, on the threads that torch is set to.

    Args:
        sizes: lengths of the sides; the best of them counts.
        seconds: how long each size is repeated; the quickest counts: nothing makes arithmetic run faster than it can.
        device: where.
    """
    return max(2 * size**3 / shortest_seconds(_product(size, device), seconds, device) for size in sizes)


def shortest_seconds(work: Callable[[], Any], seconds: float, device: str | torch.device = "cpu") -> float:
    """Seconds of the quickest repetition of `work`, repeated for about `seconds`, after one that is not timed."""
    finish(device)
    work()
    finish(device)
    shortest = float("inf")
    end = time.perf_counter() + seconds
    while True:
        start = time.perf_counter()
        work()
        finish(device)
        now = time.perf_counter()
        shortest = min(shortest, now - start)
        if now >= end:
            return shortest


def _product(size: int, device: str | torch.device) -> Callable[[], torch.Tensor]:
    left, right = (torch.randn(size, size, device=device) for _ in range(2))
    out = torch.empty(size, size, device=device)
    return lambda: torch.mm(left, right, out=out)


def finish(device: str | torch.device) -> None:
    """An accelerator works asynchronously: wait until it is done."""
    if torch.device(device).type != "cpu":
        torch.accelerator.synchronize()


def _attention(query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


def _attention_backward(grad: Any, query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> int:
    return int(sdpa_backward_flop_count(grad, query, key, value))


# The counter knows the attention kernels of accelerators only: without these, attention on the CPU would count nothing.
_CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
