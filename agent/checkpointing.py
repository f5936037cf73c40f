"""What a run saves of itself, and how it takes it up again."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from agent.agent import AgentState
from agent.checkpoint import CheckpointStore, TrainingState, load_meta, load_training, load_weights, resolve
from agent.replay_settings import make_writer
from agent.sequences import pack_open_episodes, unpack_open_episodes
from agent.shards import ShardReader, set_aside
from agent.trainer import Trainer, broken_down
from envs.errors import UserError
from envs.spaces.specs import EnvSpec
from world_model.dynamics import RollingState
from world_model.engines.base import Engine
from world_model.model import WorldModel

log = logging.getLogger(__name__)

FORMAT = 1


def split_weights(weights: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The weights of a checkpoint -> (world model, hierarchy)."""
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "hierarchy": {}}
    for name, value in weights.items():
        part, _, rest = name.partition(".")
        parts.setdefault(part, {})[rest] = value
    return parts["model"], parts["hierarchy"]


def save(trainer: Trainer, store: CheckpointStore) -> Path:
    """Write everything that the run needs to go on as if it had never stopped.

    Raises:
        UserError: if training has broken down: bad checkpoints must not follow, and in the end remove, the last good one.
    """
    weights = {f"model.{name}": value for name, value in trainer.engine.weights().items()}
    weights |= {f"hierarchy.{name}": value for name, value in trainer.agent.hierarchy.state_dict().items()}
    for name, value in weights.items():
        if not torch.isfinite(value).all():
            raise broken_down(f"the weight {name}", trainer.env_steps, trainer.folder)
    trainer.writer.flush()
    meta = {
        "format": FORMAT,
        "spec": trainer.envs.spec.to_dict(),
        "config": asdict(trainer.config),
        "env_steps": trainer.env_steps,
    }
    return store.save(trainer.env_steps, weights, meta, _training_state(trainer))


def _training_state(trainer: Trainer) -> TrainingState:
    acting = trainer.collector.state
    cache = acting.cache
    tensors: dict[str, Any] = {
        "model_optimizer": trainer.engine.optimizer_state(),
        "policy_optimizer": trainer.learner.optimizer.state_dict(),
        "acting": {
            "keys": cache.keys,
            "values": cache.values,
            "position": cache.position,
            "h": acting.h,
            "policy": dict(acting.policy),
        },
        "rewards": trainer.reward.state_dict(),
        "torch_rng": torch.get_rng_state(),
    }
    if trainer.device.type != "cpu":
        tensors["device_rng"] = torch.get_device_module(trainer.device).get_rng_state(*_which(trainer.device))
    state = {
        "env_steps": trainer.env_steps,
        "updates": trainer.learner.updates,
        "owed": trainer.owed,
        "seconds": trainer.seconds(),
        "next_log": trainer.next_log,
        "next_checkpoint": trainer.next_checkpoint,
        "logged": trainer.logged,
        "curriculum": trainer.curriculum.state_dict(),
        "numbers": [task.params.get("numbers") for task in trainer.collector.playing],
        "tracker": trainer.tracker.state_dict(),
        "timer": trainer.timer.state_dict(),
        "health": trainer.health.state_dict(),
        "evaluation": trainer.evaluation.state_dict(),
        "task_rng": trainer.task_rng.bit_generator.state,
        "replay_rng": trainer.replay_rng.bit_generator.state,
        "shards": list(trainer.writer.names),
        "history": trainer.replay.history.state_dict() if trainer.replay.history is not None else {},
        "episodes": trainer.replay.episodes,
        "tasks": list(trainer.tasks.ids),
        "num_envs": trainer.envs.num_envs,
        "faults": trainer.envs.faults.state_dict(),
    }
    return TrainingState(tensors, state, pack_open_episodes(trainer.collector.open_episodes()))


def spec_of(meta: dict[str, Any], path: Path) -> EnvSpec:
    """What a checkpoint's agent observes and does.

    Raises:
        UserError: if this version does not read it.
    """
    if meta.get("format") != FORMAT:
        raise UserError(f"the checkpoint {path} is of format {meta.get('format')}, this version reads {FORMAT}: give another one")
    try:
        return EnvSpec.from_dict(meta["spec"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"the checkpoint {path} is damaged: agent.json holds no spec ({error}); give another one") from error


def check_spec(meta: dict[str, Any], spec: EnvSpec, path: Path) -> None:
    """Refuse a checkpoint whose agent was made for other observations or actions, and what is no checkpoint of ours."""
    if spec_of(meta, path).unnamed() != spec.unnamed():
        raise UserError(
            f"the checkpoint {path} is of an agent for other observations or actions; give the environment it was trained on"
        )


def load_agent_weights(model: torch.nn.Module, hierarchy: torch.nn.Module, path: Path) -> None:
    """Put a checkpoint's weights into modules of the same shape.

    Raises:
        UserError: if it is a checkpoint of another model.
    """
    for module, weights, group in zip((model, hierarchy), split_weights(load_weights(path)), ("model", "hierarchy"), strict=True):
        _load_module(module, weights, group, path)


def load_pretrained(engine: Engine, model: WorldModel, folder: Path) -> None:
    """Start from the world model of a run folder or checkpoint: weights, symbol tables and codebooks; the rest stays fresh.

    Raises:
        UserError: there is none, or it is of another model or for another environment.
    """
    path = resolve(folder)
    check_spec(load_meta(path), model.spec, path)
    _load_module(model, split_weights(load_weights(path))[0], "model", path)
    engine.load_weights(model.state_dict())
    log.info("the world model starts from %s", path)


def _load_module(module: torch.nn.Module, weights: dict[str, Tensor], group: str, path: Path) -> None:
    own = module.state_dict()
    wrong = [name for name in own if name not in weights or weights[name].shape != own[name].shape]
    wrong += [name for name in weights if name not in own]
    if wrong:
        raise UserError(
            f"the checkpoint {path} is of another model: {group} weight '{wrong[0]}' and {len(wrong) - 1} more do not fit; "
            f"use the {group}= options that it was trained with (see its agent.json)"
        )
    module.load_state_dict(weights)


def restore(trainer: Trainer, path: Path) -> None:
    """Continue from a checkpoint: same counters, replay, curriculum, random states and episodes under way."""
    check_spec(load_meta(path), trainer.envs.spec, path)
    training = load_training(path)
    state, tensors = training.state, training.tensors
    if tuple(state["tasks"]) != trainer.tasks.ids:
        raise UserError(f"the checkpoint {path} was trained on the tasks {', '.join(state['tasks'])}; resume with the same tasks")
    load_agent_weights(trainer.agent.model, trainer.agent.hierarchy, path)
    trainer.engine.load_weights(trainer.agent.model.state_dict())
    trainer.engine.load_optimizer_state(_retuned(tensors["model_optimizer"], trainer.engine.optimizer_state()))
    optimizer = trainer.learner.optimizer
    optimizer.load_state_dict(_retuned(tensors["policy_optimizer"], optimizer.state_dict()))
    trainer.learner.updates = int(state["updates"])
    trainer.owed, trainer.seconds_before = float(state["owed"]), float(state["seconds"])
    trainer.next_log, trainer.next_checkpoint = int(state["next_log"]), int(state["next_checkpoint"])
    trainer.logged = int(state["logged"])
    trainer.curriculum.load_state_dict(state["curriculum"])
    trainer.tracker.load_state_dict(state["tracker"])
    trainer.envs.faults.load_state_dict(state.get("faults", {}))
    trainer.timer.load_state_dict(state["timer"])
    trainer.health.load_state_dict(state.get("health", {}))
    trainer.evaluation.load_state_dict(state.get("evaluation", {}), int(state["env_steps"]))
    trainer.task_rng.bit_generator.state = state["task_rng"]
    trainer.replay_rng.bit_generator.state = state["replay_rng"]
    _restore_replay(trainer, state)
    if "rewards" in tensors:
        trainer.reward.load_state_dict(tensors["rewards"])
    _restore_acting(trainer, training)
    torch.set_rng_state(tensors["torch_rng"])
    if "device_rng" in tensors and trainer.device.type != "cpu":
        torch.get_device_module(trainer.device).set_rng_state(tensors["device_rng"], *_which(trainer.device))


def _retuned(saved: dict[str, Any], fresh: dict[str, Any]) -> dict[str, Any]:
    """An optimiser's saved state under the settings of `fresh`: a learning rate given anew when resuming counts."""
    same = "param_groups" in fresh and len(saved.get("param_groups", ())) == len(fresh["param_groups"])
    return {**saved, "param_groups": fresh["param_groups"]} if same else saved


def _which(device: torch.device) -> list[torch.device]:
    """What the random state functions of a device's module take beside the state: MPS has one device only."""
    return [] if device.type == "mps" else [device]


def _restore_replay(trainer: Trainer, state: dict[str, Any]) -> None:
    folder = trainer.folder / "replay"
    reader = ShardReader(folder, trainer.envs.spec, trainer.config.replay.synthetic, trainer.writer.remote)
    same = state["num_envs"] == trainer.envs.num_envs
    trainer.replay.load(reader.episodes(state["shards"], newest_records=2 * trainer.config.replay.capacity), same_rows=same)
    trainer.replay.episodes = int(state["episodes"])
    forget_later_shards(trainer, state["shards"])  # only now: what cannot be read is refused before anything on disk changes
    if trainer.replay.history is not None:
        trainer.replay.history.load_state_dict(state.get("history", {}))


def forget_later_shards(trainer: Trainer, known: Sequence[str]) -> None:
    """Put aside the replay shards that were written after the checkpoint, and write on after the `known` ones."""
    folder = trainer.folder / "replay"
    for moved in set_aside(folder, known, trainer.writer.remote):
        half = ".tmp" in moved.suffixes
        why = "is half written, as its writer was killed" if half else "was written after the checkpoint"
        log.info("replay shard %s %s: kept aside", moved.name, why)
    trainer.writer = make_writer(trainer.config, folder, trainer.envs.spec)
    trainer.replay.on_episode = trainer.writer.add


def _restore_acting(trainer: Trainer, training: TrainingState) -> None:
    acting = training.tensors["acting"]
    if training.state["num_envs"] == trainer.envs.num_envs:
        cache = RollingState(*(acting[name].to(trainer.device) for name in ("keys", "values", "position")))
        policy = {name: value.to(trainer.device) for name, value in acting["policy"].items()}
        agent_state = AgentState(cache, acting["h"].to(trainer.device), policy)
        episodes = unpack_open_episodes(training.arrays)
    else:
        log.info("env.num_envs changed since the checkpoint: the episodes under way start anew")
        agent_state, episodes = trainer.agent.initial_state(trainer.envs.num_envs), []
    for note in trainer.collector.resume(
        episodes, int(training.state["env_steps"]), agent_state, training.state.get("numbers", ())
    ):
        log.warning(note)
    trainer.replay.steps = int(training.state["env_steps"])  # episodes that no longer fit into memory count too
