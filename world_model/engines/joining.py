"""Meeting the processes that a launcher started (torchrun, or DeepSpeed's own)."""

from __future__ import annotations

import os
from datetime import timedelta

import torch
import torch.distributed as dist

from envs.errors import UserError

PATIENCE = timedelta(days=1)  # others wait for rank 0 while it evaluates; who dies is noticed at once all the same


def launched_processes() -> int:
    """How many processes a launcher started; 1 without one."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def is_launched() -> bool:
    """Whether a launcher started this process, be it the only one."""
    return bool(os.environ.get("WORLD_SIZE"))


def is_first_process() -> bool:
    """Whether this is the process that speaks for all that a launcher started, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def join_processes(device: torch.device) -> None:
    """Meet the processes that a launcher started, or be a group of one, without a port that others could hold.

    Raises:
        UserError: a launcher left out what the others need to be found.
    """
    os.environ.setdefault("LOCAL_RANK", "0")
    if dist.is_initialized():
        return
    if device.index is not None:
        torch.accelerator.set_device_index(device.index)
    backend = dist.get_default_backend_for_device(device)
    if not is_launched():
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
        return
    try:
        dist.init_process_group(backend, timeout=PATIENCE if backend == "gloo" else None)
    except ValueError as error:  # it names the variable
        raise UserError(f"WORLD_SIZE is set, but {error}; use torchrun, or unset WORLD_SIZE") from error
