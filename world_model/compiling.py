"""torch.compile, by config."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable

import torch
from torch import nn

from envs.errors import UserError


def check_compiler(backend: str | None, device: torch.device) -> None:
    """Inductor writes C++ for CPUs.

    Raises:
        UserError: there is nothing to compile it.
    """
    if backend != "inductor" or device.type != "cpu" or os.environ.get("TORCH_INDUCTOR_INSTALL_GXX") == "1":  # it gets its own
        return
    wanted = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")  # as inductor looks for it
    if not shutil.which(wanted):
        raise UserError(
            f"model.compile=inductor needs a C++ compiler on a CPU, and there is no {wanted}: install it, name another by the "
            "environment variable CXX, or set model.compile=null"
        )


def compile_parts(parts: Iterable[nn.Module], backend: str) -> None:
    """Compile modules in place; their weights keep their names.

    Raises:
        UserError: torch knows no such backend.
    """
    known = torch.compiler.list_backends(exclude_tags=None)
    if backend not in known:
        raise UserError(f"model.compile={backend} is no backend of torch.compile; choose one of {', '.join(known)}, or null")
    for part in parts:
        part.compile(backend=backend)
