"""torch.compile, by config."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from envs.errors import UserError


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
