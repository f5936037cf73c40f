"""Per-task signals for curricula: what a scheduler asks for, from the training pass of an update."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from envs.errors import UserError
from world_model.config import ModelConfig
from world_model.model import ModelOutput, Sequences, WorldModel

Signals = dict[str, dict[str, float]]  # task id -> signal -> value

SIGNALS = ("disagreement",)


def check_signals(required: frozenset[str], config: ModelConfig) -> None:
    """Refuse a scheduler whose signals there are none of.

    Raises:
        UserError: an unknown signal, or one that the model is not set up for.
    """
    for name in sorted(required):
        if name not in SIGNALS:
            raise UserError(f"the curriculum asks for the signal '{name}', which is unknown; there are: {', '.join(SIGNALS)}")
    if "disagreement" in required and not config.ensemble:
        raise UserError("the curriculum asks for the model's disagreement: give it an ensemble, as model.ensemble=5")


@torch.no_grad()
def task_signals(
    required: frozenset[str],
    model: WorldModel,
    output: ModelOutput,
    batch: Sequences,
    task: NDArray[np.integer[Any]],
    ids: tuple[str, ...],
) -> Signals:
    """Means over the steps of each task in a batch; tasks that are not in it are left out.

    Args:
        required: names of the signals that are computed.
        output, batch: a training pass and its sequences (B, T).
        task: (B, T), index into `ids`.
    """
    found: Signals = {}
    if "disagreement" in required:
        apart = model.disagreement(output.h)
        for index, value in _means(apart, ~batch.last, torch.as_tensor(task, device=apart.device)).items():
            found.setdefault(ids[index], {})["disagreement"] = value
    return found


def _means(values: Tensor, valid: Tensor, task: Tensor) -> dict[int, float]:
    """{task index: mean of its valid values}, of (B, T) each."""
    return {int(index): float(values[valid & (task == index)].mean()) for index in task[valid].unique()}
