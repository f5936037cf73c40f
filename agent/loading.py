"""A trained agent, from the folder of its run."""

from __future__ import annotations

from pathlib import Path

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from agent.agent import Agent
from agent.build import build_agent, choose_device
from agent.checkpoint import load_meta, resolve
from agent.checkpointing import load_agent_weights, spec_of
from agent.config import RunConfig
from envs.errors import UserError


def load_agent(folder: Path | str, device: str = "auto") -> Agent:
    """The agent of a run folder, or of one of its checkpoints, without its optimiser, replay or environments.

    Raises:
        UserError: if the folder holds no whole checkpoint that this version reads.
    """
    path = resolve(folder)
    meta = load_meta(path)
    spec = spec_of(meta, path)
    saved = {group: meta.get("config", {}).get(group, {}) for group in ("model", "hierarchy")}
    try:
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(RunConfig), saved))
    except OmegaConfBaseException as error:
        raise UserError(f"the checkpoint {path} was made by another version: {str(error).splitlines()[0]}") from error
    assert isinstance(config, RunConfig)
    agent, _ = build_agent(config, spec, choose_device(device))
    load_agent_weights(agent.model, agent.hierarchy, path)
    return agent
