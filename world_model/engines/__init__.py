"""Engines: how a world model is trained on one process or many, chosen by `sharding=`."""

from __future__ import annotations

import torch

from envs.errors import UserError
from world_model.config import ShardingConfig
from world_model.engines.base import Engine
from world_model.engines.local import LocalEngine
from world_model.model import WorldModel


def make_engine(config: ShardingConfig, model: WorldModel, device: torch.device) -> Engine:
    """The engine named by `config.engine`; DeepSpeed is imported only where it is asked for.

    Raises:
        UserError: if there is none of that name.
    """
    if config.engine == "local":
        return LocalEngine(model, device)
    if config.engine == "deepspeed":
        from world_model.engines.deepspeed import DeepSpeedEngine

        return DeepSpeedEngine(model, device, config.stage)
    raise UserError(f"sharding.engine '{config.engine}' is unknown; choose local or deepspeed")


__all__ = ["Engine", "LocalEngine", "make_engine"]
