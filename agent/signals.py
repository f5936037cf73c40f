"""Per-task signals for curricula: what a scheduler asks for, from the training pass of an update."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agent.imagined_success import check_rule
from envs.config import EnvConfig
from envs.errors import UserError
from hierarchy.base import Hierarchy
from world_model.batch import ModelOutput, Sequences
from world_model.config import ModelConfig
from world_model.model import WorldModel

Signals = dict[str, dict[str, float]]  # task id -> signal -> value

OF_EPISODES = frozenset({"value_error", "regret"})
SIGNALS = {
    "disagreement": "how far the model's ensemble is apart about the next step, in variances of what it foretells",
    "model_loss": "nats a step by which what comes next surprises the world model, on the batches that it trains on",
    "value_error": "mean size of an episode's advantages, at its end (Outcome.signals)",
    "regret": "mean of their positive part, at its end (Outcome.signals)",
    "imagined_success": "success of the present policy in imagination, from stored starts of episodes",
    "reach": "share of the manager's goals that the worker reaches in imagination, of hierarchies that have goals",
}
"""What a scheduler may ask for in `Curriculum.required_signals`."""


def check_signals(required: frozenset[str], config: ModelConfig, hierarchy: Hierarchy, env: EnvConfig) -> None:
    """Refuse a scheduler whose signals there are none of.

    Raises:
        UserError: an unknown signal, or one that the model, the hierarchy or the environment is not set up for.
    """
    for name in sorted(required):
        if name not in SIGNALS:
            raise UserError(f"the curriculum asks for the signal '{name}', which is unknown; there are: {', '.join(SIGNALS)}")
    if "disagreement" in required and not config.ensemble:
        raise UserError("the curriculum asks for the model's disagreement: give it an ensemble, as model.ensemble=5")
    if "reach" in required and "reach" not in hierarchy.gives:
        raise UserError("the curriculum asks how many goals are reached, and this hierarchy has none: give hierarchy=director")
    if "imagined_success" in required:
        check_rule(env)


def check_values(required: frozenset[str], model: WorldModel, hierarchy: Hierarchy, device: torch.device) -> None:
    """Refuse a scheduler that asks how wrong values are where there are none.

    Raises:
        UserError: the hierarchy values no states.
    """
    if required & OF_EPISODES:
        z = torch.zeros(1, model.latents.groups, dtype=torch.int64, device=device)
        if hierarchy.value(z, torch.zeros(1, model.seen_width, device=device)) is None:
            raise UserError(
                "the curriculum asks how wrong values are, and this hierarchy has none in the unit of returns: "
                "give hierarchy=flat, or hierarchy.manager.reward=sum"
            )


def check_gathering(required: frozenset[str], whole: bool) -> None:
    """Refuse a scheduler whose signals take model passes that only some processes make, where weights are gathered for each.

    Raises:
        UserError: there is no process with a `whole` model.
    """
    alone = sorted(required & (OF_EPISODES | {"imagined_success"}))
    if alone and not whole:
        raise UserError(f"the curriculum asks for {', '.join(alone)}, which takes a whole model: give sharding.gather=rollout")


def told_by(told: Mapping[str, Tensor], required: frozenset[str], task: Tensor, ids: tuple[str, ...]) -> Signals:
    """Means over the imagined rollouts of each task of what a hierarchy told of them (`Hierarchy.told`).

    Args:
        task: (N,), index into `ids` of the task in which each rollout began.
    """
    found: Signals = {}
    for name in sorted(required & told.keys()):
        for index, value in _means(told[name], told[name].isfinite(), task).items():
            found.setdefault(ids[index], {})[name] = value
    return found


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
    recalled = {key: x[:, :-1] for key, x in output.context.recalled.items()}
    with model.autocast():
        errors = model.surprise(output.h[:, :-1], output.z[:, :-1], after, recalled)
    there = model.latents.present(after)
    return torch.stack([(nats * there[key] if key in there else nats).float() for key, nats in errors.items()]).sum(0)


def _means(values: Tensor, valid: Tensor, task: Tensor) -> dict[int, float]:
    """{task index: mean of its valid values}, all of one shape."""
    return {int(index): float(values[valid & (task == index)].mean()) for index in task[valid].unique()}
