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

SIGNALS = {
    "disagreement": "how far the model's ensemble is apart about the next step, in variances of what it foretells",
    "model_loss": "nats a step by which what comes next surprises the world model, on the batches that it trains on",
}
"""What a scheduler may ask for in `Curriculum.required_signals`."""


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
    steps: dict[str, Tensor] = {}  # (B, T), or (B, T - 1) where it takes what came next to know it
    if "disagreement" in required:
        steps["disagreement"] = model.disagreement(output.h)
    if "model_loss" in required:
        steps["model_loss"] = model_loss(model, output)
    found: Signals = {}
    whose = torch.as_tensor(task, device=output.h.device)
    for name, values in steps.items():
        length = values.shape[1]
        for index, value in _means(values, ~batch.last[:, :length], whose[:, :length]).items():
            found.setdefault(ids[index], {})[name] = value
    return found


def model_loss(model: WorldModel, output: ModelOutput) -> Tensor:
    """(B, T - 1) nats by which the codes of t + 1 surprise the model at t, over all modalities that are there."""
    after = output.z[:, 1:]
    with model.autocast():
        errors = model.surprise(output.h[:, :-1], output.z[:, :-1], after)
    there = model.latents.present(after)
    return torch.stack([(nats * there[key] if key in there else nats).float() for key, nats in errors.items()]).sum(0)


def _means(values: Tensor, valid: Tensor, task: Tensor) -> dict[int, float]:
    """{task index: mean of its valid values}, of (B, T) each."""
    return {int(index): float(values[valid & (task == index)].mean()) for index in task[valid].unique()}
