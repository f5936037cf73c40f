"""Engines: how a world model is trained on one process or many, chosen by `sharding=`."""

from __future__ import annotations

from collections.abc import Callable

import torch

from envs.errors import UserError
from world_model.config import ModelConfig, ShardingConfig
from world_model.engines.base import Engine
from world_model.engines.joining import launched_processes
from world_model.engines.local import LocalEngine
from world_model.model import WorldModel
from world_model.splitting import check_split

STAGES = (0, 1, 2, 3)
GATHER = ("rollout", "step")
OFFLOAD = ("none", "optimizer", "all")


def make_engine(config: ShardingConfig, build: Callable[[], WorldModel], device: torch.device) -> Engine:
    """The engine named by `config.engine`, with the model that `build` makes; DeepSpeed is imported only where it is asked for.

    Raises:
        UserError: if there is none of that name, or settings that do not go together.
    """
    check_sharding(config)
    if config.engine == "local":
        return LocalEngine(build(), device)
    if config.stage == 3:
        from world_model.engines.partitioned import PartitionedEngine

        return PartitionedEngine(build, device, config)
    if config.tensor_parallel > 1:
        from world_model.engines.tensor_parallel import TensorParallelEngine

        return TensorParallelEngine(build, device, config)
    from world_model.engines.deepspeed import DeepSpeedEngine

    return DeepSpeedEngine(build, device, config)


def check_sharding(config: ShardingConfig) -> None:
    """Refuse settings that do not go together.

    Raises:
        UserError: which, and what to give in their place.
    """
    if config.engine not in ("local", "deepspeed"):
        raise UserError(f"sharding.engine '{config.engine}' is unknown; choose local or deepspeed")
    if config.stage not in STAGES:
        raise UserError(f"sharding.stage={config.stage} is unknown; choose one of {', '.join(map(str, STAGES))}")
    for key, value, known in (("gather", config.gather, GATHER), ("offload", config.offload, OFFLOAD)):
        if value not in known:
            raise UserError(f"sharding.{key}={value} is unknown; choose one of {', '.join(known)}")
    if config.persistence < 0:
        raise UserError(f"sharding.persistence={config.persistence} is too few: give 0 or more numbers")
    if config.engine == "local":
        if launched_processes() > 1:
            raise UserError("sharding=local trains in one process: give sharding=zero1, say, or start the run without a launcher")
        if config.offload != "none":
            raise UserError(f"sharding.offload={config.offload} is DeepSpeed's: give sharding=zero1 to zero3")
    elif config.offload == "all" and config.stage < 3:
        raise UserError("sharding.offload=all moves partitioned weights: give sharding=zero3, or sharding.offload=optimizer")
    elif config.offload == "optimizer" and config.stage == 0:
        raise UserError("sharding.offload=optimizer needs sharded optimiser states: give sharding=zero1, zero2 or zero3")
    check_tensor_parallel(config)


def check_tensor_parallel(config: ShardingConfig) -> None:
    """Refuse numbers of ranks that cannot share the decoder.

    Raises:
        UserError: says why, and what to give in its place.
    """
    ranks, processes = config.tensor_parallel, launched_processes()
    if ranks < 1:
        raise UserError(f"sharding.tensor_parallel={ranks} is too few: give 1 for none, or how many processes share the decoder")
    if ranks == 1:
        return
    if config.engine == "local":
        raise UserError(f"sharding.tensor_parallel={ranks} is DeepSpeed's: give sharding=zero0 to zero2")
    if config.stage == 3:
        raise UserError(
            f"sharding.tensor_parallel={ranks} does not go with sharding=zero3, which shares out the same weights: give zero2, "
            "or sharding.tensor_parallel=1"
        )
    if processes % ranks:
        raise UserError(
            f"sharding.tensor_parallel={ranks} needs groups of {ranks} processes, which {processes} do not make up: start a "
            f"multiple of {ranks}, or give a divisor of {processes}"
        )


def check_partitioning(sharding: ShardingConfig, model: ModelConfig) -> None:
    """Refuse models whose weights cannot be partitioned as is asked for.

    Raises:
        UserError: which part of it, and what to give in its place.
    """
    if sharding.tensor_parallel > 1:
        check_split(model, sharding.tensor_parallel)
        if model.compile is not None:
            raise UserError(
                "sharding.tensor_parallel splits modules that model.compile has compiled whole: give sharding.tensor_parallel=1, "
                "or model.compile=null"
            )
    if sharding.engine == "local" or sharding.stage < 3:
        return
    if model.pretrained:
        raise UserError("sharding=zero3 partitions no pretrained encoder: give sharding=zero2, or model.pretrained={}")
    if model.compile is not None:
        raise UserError(
            "sharding=zero3 gathers weights as modules are called, which model.compile does not see: give sharding=zero2"
        )


__all__ = ["Engine", "LocalEngine", "check_partitioning", "check_sharding", "make_engine"]
