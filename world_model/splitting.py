"""Tensor parallelism's layout: which weights of the decoder are split over the ranks of a group, and along which dimension.

It is the plan that Transformers gives for the decoder (Shoeybi et al. 2019): the matrices into the heads and into the MLP are
split by their outputs, those out of them by their inputs, so that each rank has some of the heads and a part of the MLP's width.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn
from transformers import Qwen3Config

from envs.errors import UserError
from world_model.config import ModelConfig
from world_model.dynamics import mlp_width

DECODER = "dynamics.decoder."
DIMENSION = {"colwise": 0, "rowwise": 1}  # of a weight (outputs, inputs) that a style of the plan splits
PARTIAL = "replicated_with_grad_allreduce"
PLAN: dict[str, str] = Qwen3Config.base_model_tp_plan


def split_dimensions(model: nn.Module) -> dict[str, int]:
    """{name of a parameter of a world model that is split: along which dimension}; the others every rank has whole."""
    return {name: DIMENSION[style] for name, style in _styles(model).items() if style in DIMENSION}


def partial_gradients(model: nn.Module) -> set[str]:
    """Names of parameters that every rank has whole and uses for its own heads alone, so that it finds a part of their gradients:
    what normalises queries and keys."""
    return {name for name, style in _styles(model).items() if style == PARTIAL}


def _styles(model: nn.Module) -> dict[str, str]:
    """{name of a parameter: how the plan treats it}, of those that it names."""
    names = [name for name, _ in model.named_parameters()]
    return {name: style for module, style in PLAN.items() for name in names if fnmatchcase(name, f"{DECODER}{module}.weight")}


def share_of(whole: Tensor, dimension: int, rank: int, ranks: int) -> Tensor:
    """The part of a split weight (a view) that is of `rank` of the `ranks` of a group."""
    return whole.chunk(ranks, dimension)[rank]


def keep_share(model: nn.Module, ranks: int) -> None:
    """Leave a world model what one of `ranks` ranks has of it, the first: what a pass of it keeps is what theirs keep."""
    parameters = dict(model.named_parameters())
    for name, dimension in split_dimensions(model).items():
        parameters[name].data = share_of(parameters[name].data, dimension, 0, ranks)


def check_split(config: ModelConfig, ranks: int) -> None:
    """Refuse decoders that cannot be split over so many ranks.

    Raises:
        UserError: which size, and what to give in its place.
    """
    if config.heads % ranks or mlp_width(config) % ranks:
        raise UserError(
            f"sharding.tensor_parallel={ranks} splits the decoder's heads and its MLP's width evenly: give a number that divides "
            f"model.heads={config.heads} and model.width * model.mlp_ratio = {mlp_width(config)}"
        )


def autotp_settings(ranks: int) -> dict[str, Any]:
    """The plan as DeepSpeed's AutoTP is told of it."""
    kinds = {"colwise": "column", "rowwise": "row"}
    specs = [
        {"patterns": [re.escape(f"model.{DECODER}{module}.weight").replace(r"\*", r"\d+") + "$"], "partition_type": kinds[style]}
        for module, style in PLAN.items()
        if style in kinds
    ]
    return {"autotp_size": ranks, "partition_config": {"use_default_specs": False, "layer_specs": specs}}
