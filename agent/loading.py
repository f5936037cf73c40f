"""A trained agent, from the folder of its run."""

from __future__ import annotations

import logging
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from agent.agent import Agent
from agent.build import build_agent, choose_device
from agent.checkpoint import load_meta, resolve
from agent.checkpointing import check_spec, load_agent_weights, spec_of
from agent.config import BEFORE, RunConfig
from envs import make_task_space
from envs.errors import UserError
from envs.make import infer_spec

log = logging.getLogger(__name__)


def load_agent(folder: Path | str, device: str = "auto", config: RunConfig | None = None) -> Agent:
    """The agent of a run folder, or of one of its checkpoints, without its optimiser, replay or environments.

    Args:
        folder: where it is.
        device: where it shall compute.
        config: builds it by these settings, and for this environment; by those it was trained with where not given.

    Raises:
        UserError: no whole checkpoint that this version reads, or one of another model or for another environment.
    """
    path = resolve(folder)
    meta = load_meta(path)
    spec = spec_of(meta, path)
    if config is None:
        config = trained_config(meta, path, ("model", "hierarchy"))
    else:
        check_spec(meta, infer_spec(config.env, make_task_space(config.env)), path)
    agent, _ = build_agent(config, spec, choose_device(device))
    load_agent_weights(agent.model, agent.hierarchy, path)
    return agent


def trained_config(meta: dict[str, Any], path: Path, groups: tuple[str, ...]) -> RunConfig:
    """The config that a checkpoint's agent was trained with, as far as `groups` go; the rest by default.

    Raises:
        UserError: a value that this version does not take.
    """
    saved = saved_groups(meta, path, groups)
    try:
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(RunConfig), saved))
    except OmegaConfBaseException as error:
        raise UserError(f"the checkpoint {path} was made by another version: {str(error).splitlines()[0]}") from error
    assert isinstance(config, RunConfig)
    return config


def saved_groups(meta: dict[str, Any], path: Path, groups: tuple[str, ...]) -> dict[str, Any]:
    """Groups of the config stored in a checkpoint, as `of_this_version` reads them."""
    config = meta.get("config")
    saved = {group: config[group] for group in groups if group in config} if isinstance(config, dict) else {}
    return of_this_version(saved, f"the checkpoint {path}")


def of_this_version(saved: Any, name: str) -> dict[str, Any]:
    """A config that another version may have saved; keys that this one does not have are left out, with a warning."""
    for path, value in BEFORE.items():
        group, _, key = path.partition(".")
        if isinstance(saved.get(group), dict):
            saved[group] = {key: value, **saved[group]}
    known, gone = known_keys(saved, RunConfig)
    if gone:
        log.warning("%s was made by another version: it is read without its keys %s", name, ", ".join(gone))
    return known


def known_keys(saved: dict[str, Any], schema: type, prefix: str = "") -> tuple[dict[str, Any], list[str]]:
    """What of a nested config a dataclass has fields for, and the full names of the keys it has none for."""
    types = get_type_hints(schema)
    names = {field.name for field in fields(schema)}
    known: dict[str, Any] = {}
    gone: list[str] = []
    for name, value in saved.items():
        if name not in names:
            gone.append(prefix + name)
        elif is_dataclass(types[name]) and isinstance(value, dict):
            known[name], below = known_keys(value, types[name], f"{prefix}{name}.")
            gone += below
        else:
            known[name] = value
    return known, gone
