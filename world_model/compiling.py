"""torch.compile, by config."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable

import torch
from torch import nn

from envs.errors import UserError

COMPILERS = ("g++", "c++", "clang++")  # as inductor looks for them


def check_compiler(backend: str | None, device: torch.device) -> None:
    """Inductor writes C++ for CPUs.

    Raises:
        UserError: there is nothing to compile it.
    """
    if backend != "inductor" or device.type != "cpu":
        return
    wanted = (os.environ["CXX"],) if os.environ.get("CXX") else COMPILERS
    if not any(shutil.which(name) for name in wanted):
        raise UserError(
            f"model.compile=inductor needs a C++ compiler on a CPU ({' or '.join(wanted)}), and there is none: install one, "
            "or set model.compile=null"
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
