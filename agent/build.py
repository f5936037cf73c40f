"""From a `RunConfig` to the parts of an agent."""

from __future__ import annotations

import os

import torch

from agent.agent import Agent
from agent.config import RunConfig
from envs.errors import UserError
from envs.spaces.specs import EnvSpec
from hierarchy import Hierarchy, make_hierarchy
from hierarchy.planner import make_planner
from world_model.compiling import check_compiler
from world_model.engines import check_partitioning, make_engine
from world_model.engines.base import Engine
from world_model.engines.joining import launched_processes
from world_model.model import WorldModel


def choose_device(name: str) -> torch.device:
    """`auto` takes the first accelerator there is, else the CPU. Each of several processes has the accelerator of its number.

    Raises:
        UserError: if the named device does not exist here, or several processes were to share one accelerator.
    """
    try:
        found = torch.accelerator.current_accelerator(check_available=True) if name == "auto" else torch.device(name)
        device = found or torch.device("cpu")
        if device.type != "cpu" and launched_processes() > 1:
            if name != "auto" and device.index is not None:
                raise UserError(f"device={name} is one for {launched_processes()} processes: give device={device.type}")
            device = torch.device(device.type, int(os.environ.get("LOCAL_RANK", "0")))
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"device={name} is not available here; use device=auto, or device=cpu") from error
    return device


def gathered_agent(config: RunConfig, engine: Engine, agent: Agent, wanted: bool) -> Agent:
    """`agent` with a whole model of its own where it is `wanted`, and as it is elsewhere; every process calls it."""
    weights = engine.weights()
    if not wanted:
        return agent
    with torch.random.fork_rng():  # these first weights are no draws of the run
        model = WorldModel(agent.model.spec, config.model)
    model.poses = agent.model.poses
    model.load_state_dict(weights)
    model.to(agent.device)
    return Agent(model, agent.hierarchy, agent.device, make_planner(agent.hierarchy, model, config.hierarchy))


def make_policy(config: RunConfig, model: WorldModel) -> Hierarchy:
    """The hierarchy that the config names, and the model showing it what it asks for."""
    hierarchy = make_hierarchy(config.hierarchy, model.latents, model.view_width, model.spec.action)
    model.poses = hierarchy.poses
    return hierarchy


def burn_in(config: RunConfig, model: WorldModel) -> int:
    """Records that come along before each sequence, of which only maps are made."""
    return config.train.burn_in if model.maps.names else 0


def build_agent(config: RunConfig, spec: EnvSpec, device: torch.device) -> tuple[Agent, Engine]:
    """A fresh agent and the engine that trains its world model. Seed torch first."""
    check_partitioning(config.sharding, config.model)
    check_compiler(config.model.compile, device)
    engine = make_engine(config.sharding, lambda: WorldModel(spec, config.model), device)
    model = engine.inference_copy()
    hierarchy = make_policy(config, model).to(device)
    return Agent(model, hierarchy, device, make_planner(hierarchy, model, config.hierarchy)), engine
