"""Gradient norms of the parts of a network: which part learns, and which does not."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

NAMES = {"modalities": "encoder", "priors": "prior", "maps": "motion", "reward_head": "reward", "continue_head": "cont"}


def part_of(name: str, keys: dict[str, str]) -> str:
    """The part of the world model that the parameter `name` belongs to: `encoder/KEY`, `embedding`, `dynamics`, `prior/KEY`,
    `motion/KEY`, `reward`, `cont`, or else the name of its top module. `keys` tells the modality of a submodule."""
    head, _, rest = name.partition(".")
    if head.startswith("embed_"):
        return "embedding"
    key = keys.get(rest.removeprefix("of.").partition(".")[0])  # maps keep theirs one step further down
    return NAMES.get(head, head) + (f"/{key}" if key is not None else "")


def parts(names: Iterable[tuple[str, str]], parameters: dict[str, nn.Parameter]) -> dict[str, list[nn.Parameter]]:
    """{part: its trained parameters}, from pairs (parameter name, part)."""
    found: dict[str, list[nn.Parameter]] = {}
    for name, part in names:
        if parameters[name].requires_grad:
            found.setdefault(part, []).append(parameters[name])
    return found


def gradient_norms(groups: dict[str, list[Tensor | None]]) -> dict[str, Tensor]:
    """{part: Euclidean norm of its gradients}; what has no gradient counts as zero."""
    norms = {}
    for part, gradients in groups.items():
        present = [gradient for gradient in gradients if gradient is not None]
        norms[part] = nn.utils.get_total_norm(present) if present else torch.zeros(())
    return norms


def hierarchy_parts(hierarchy: nn.Module) -> dict[str, list[nn.Parameter]]:
    """As `parts`, of a hierarchy: the first two names of a parameter, as in `policy/actor`."""
    parameters = dict(hierarchy.named_parameters())
    return parts(((name, "/".join(name.split(".")[:2])) for name in parameters), parameters)
