"""What a run saves of itself, and how it takes it up again."""

from __future__ import annotations

import heapq
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from agent.agent import AgentState
from agent.checkpoint import CheckpointStore, TrainingState, load_meta, load_training, load_weights, resolve
from agent.replay_settings import make_writer, remote_shards
from agent.sequences import Episode, pack_open_episodes, unpack_open_episodes
from agent.shards import ShardReader, set_aside
from agent.trainer import Trainer, broken_down
from envs.errors import UserError
from envs.spaces.specs import EnvSpec
from world_model.dynamics import RollingState
from world_model.engines.base import Engine
from world_model.model import WorldModel

log = logging.getLogger(__name__)

FORMAT = 1
LATER = (".spelling",)  # ends of the names of buffers that checkpoints of earlier versions have not
GONE = ("trust.",)  # beginnings of the names of buffers of earlier versions that nothing depends on


def split_weights(weights: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The weights of a checkpoint -> (world model, hierarchy)."""
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "hierarchy": {}}
    for name, value in weights.items():
        part, _, rest = name.partition(".")
        parts.setdefault(part, {})[rest] = value
    return parts["model"], parts["hierarchy"]


def save(trainer: Trainer, store: CheckpointStore) -> Path:
    """Write everything that the run needs to go on as if it had never stopped. All processes do so together.

    Raises:
        UserError: if training has broken down: bad checkpoints must not follow, and in the end remove, the last good one; or a
            process could not write its part.
    """
    processes = trainer.processes
    model, optimizer = trainer.engine.weights(), trainer.engine.optimizer_state()
    failed = _attempt(trainer.writer.flush)
    known = known_shards(trainer)
    if processes.rank and failed is None:
        failed = _attempt(lambda: store.save_part(processes.rank, _training_state(trainer)))
    failures = [found for found in processes.gather(failed) if found is not None]
    path: list[str] = []
    if processes.leads and not failures:
        try:
            failed = _attempt(lambda: path.append(str(_save_whole(trainer, store, model, optimizer, known))))
        except UserError:
            processes.broadcast("")  # the others are not to wait for it
            processes.broadcast("training broke down")
            raise
    found = processes.broadcast(path[0] if path else "")
    if not found:
        why = processes.broadcast(failed) or (failures or ["process 0 could not write it"])[0]
        raise UserError(f"no checkpoint could be written ({why}): make room; python run.py resume={trainer.folder} goes on")
    return Path(found)


def _attempt(write: Callable[[], object]) -> str | None:
    """Why something could not be written, if so."""
    try:
        write()
    except (OSError, RuntimeError, SafetensorError) as error:  # of h5py and JSON, of torch, of safetensors
        return str(error).splitlines()[0]
    return None


def _save_whole(
    trainer: Trainer, store: CheckpointStore, model: dict[str, Tensor], optimizer: dict[str, Any], known: dict[str, list[str]]
) -> Path:
    """Rank 0's part: what all have in common, its own training state, and those of the others that are written already."""
    weights = {f"model.{name}": value for name, value in model.items()}
    weights |= {f"hierarchy.{name}": value for name, value in trainer.agent.hierarchy.state_dict().items()}
    for name, value in weights.items():
        if not torch.isfinite(value).all():
            raise broken_down(f"the weight {name}", trainer.env_steps, trainer.folder)
    meta = {
        "format": FORMAT,
        "spec": trainer.envs.spec.to_dict(),
        "config": asdict(trainer.config),
        "env_steps": trainer.env_steps,
        "score": trainer.score,
    }
    training = _training_state(trainer)
    training.tensors |= {"model_optimizer": optimizer, "policy_optimizer": trainer.learner.optimizer.state_dict()}
    training.state["known_shards"] = known
    return store.save(trainer.env_steps, weights, meta, training, trainer.processes.size)


def known_shards(trainer: Trainer) -> dict[str, list[str]]:
    """{folder below `replay`: its shards}, of all processes, and of those that the run had before."""
    found = dict(trainer.left_shards)
    for part in trainer.processes.gather({trainer.part: list(trainer.writer.names)}):
        found |= part
    return found


def _training_state(trainer: Trainer) -> TrainingState:
    acting = trainer.collector.state
    tensors: dict[str, Any] = {
        "acting": {**acting.cache.tensors(), "h": acting.h, "policy": dict(acting.policy)},
        "rewards": trainer.reward.state_dict(),
        "torch_rng": torch.get_rng_state(),
    }
    if trainer.device.type != "cpu":
        tensors["device_rng"] = torch.get_device_module(trainer.device).get_rng_state(*_which(trainer.device))
    state = {
        "processes": trainer.processes.size,
        "dealt": trainer.dealt,
        "env_steps": trainer.env_steps,
        "replay_steps": trainer.replay.steps,
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
    _load_engine(engine, split_weights(load_weights(path))[0], path)
    log.info("the world model starts from %s", path)


def _load_engine(engine: Engine, weights: dict[str, Tensor], path: Path) -> None:
    _check_shapes(engine.shapes(), weights, "model", path)
    engine.load_weights(weights)


def _load_module(module: torch.nn.Module, weights: dict[str, Tensor], group: str, path: Path) -> None:
    weights = {name: value for name, value in weights.items() if not name.startswith(GONE)}
    _check_shapes({name: value.shape for name, value in module.state_dict().items()}, weights, group, path)
    module.load_state_dict(weights)


def _check_shapes(own: dict[str, torch.Size], weights: dict[str, Tensor], group: str, path: Path) -> None:
    found = {name: value.shape for name, value in weights.items()}
    wrong = [name for name in own if found.get(name) != own[name] and (name in found or not name.endswith(LATER))]
    wrong += [name for name in weights if name not in own]
    if wrong:
        raise UserError(
            f"the checkpoint {path} is of another model: {group} weight '{wrong[0]}' and {len(wrong) - 1} more do not fit; "
            f"use the {group}= options that it was trained with (see its agent.json), or the version that made it"
        )


def restore(trainer: Trainer, path: Path) -> None:
    """Continue from a checkpoint: same counters, replay, curriculum, random states and episodes under way. All processes do so
    together; where they are more or fewer than those that saved it, the log says what starts anew."""
    check_spec(load_meta(path), trainer.envs.spec, path)
    processes, whole = trainer.processes, load_training(path)
    state, tensors = whole.state, whole.tensors
    if tuple(state["tasks"]) != trainer.tasks.ids:
        raise UserError(f"the checkpoint {path} was trained on the tasks {', '.join(state['tasks'])}; resume with the same tasks")
    weights, policies = split_weights(load_weights(path))
    _load_engine(trainer.engine, weights, path)
    _load_module(trainer.agent.hierarchy, policies, "hierarchy", path)
    trainer.engine.load_optimizer_state(_retuned(tensors["model_optimizer"], trainer.engine.optimizer_state()))
    optimizer = trainer.learner.optimizer
    optimizer.load_state_dict(_retuned(tensors["policy_optimizer"], optimizer.state_dict()))
    trainer.learner.updates = int(state["updates"])
    trainer.owed, trainer.seconds_before = float(state["owed"]), float(state["seconds"])
    trainer.next_log, trainer.next_checkpoint = int(state["next_log"]), int(state["next_checkpoint"])
    trainer.logged = int(state["logged"])
    trainer.curriculum.load_state_dict(state["curriculum"])
    trainer.tracker.load_state_dict(state["tracker"])
    trainer.evaluation.load_state_dict(state.get("evaluation", {}), int(state["env_steps"]))
    saved = int(state.get("processes", 1))
    own = whole if not processes.rank else load_training(path, processes.rank) if processes.rank < saved else None
    if saved != processes.size:
        log.info(
            "the checkpoint is of %d processes, this run has %d: the episodes stored are dealt out anew, random numbers and "
            "environments of processes that are new start anew, and so do the episodes under way in those that are gone",
            saved, processes.size,
        )  # fmt: skip
    if own is None or saved != processes.size or state.get("dealt"):
        deal_replay(trainer, state)
    else:
        _restore_replay(trainer, own.state)
        _remember_left(trainer, state.get("known_shards", {}))
    if own is None:
        trainer.collector.steps = int(state["env_steps"])
        trainer.collector.start()
        trainer.collector.idle()  # the others meet twice, too
        return
    trainer.health.load_state_dict(own.state.get("health", {}))
    trainer.envs.faults.load_state_dict(own.state.get("faults", {}))
    trainer.timer.load_state_dict(own.state["timer"])
    trainer.task_rng.bit_generator.state = own.state["task_rng"]
    trainer.replay_rng.bit_generator.state = own.state["replay_rng"]
    if "rewards" in own.tensors:
        trainer.reward.load_state_dict(own.tensors["rewards"])
    _restore_acting(trainer, own)
    torch.set_rng_state(own.tensors["torch_rng"])
    if "device_rng" in own.tensors and trainer.device.type != "cpu":
        torch.get_device_module(trainer.device).set_rng_state(own.tensors["device_rng"], *_which(trainer.device))


def _retuned(saved: dict[str, Any], fresh: dict[str, Any]) -> dict[str, Any]:
    """An optimiser's saved state under the settings of `fresh`: a learning rate given anew when resuming counts."""
    same = "param_groups" in fresh and len(saved.get("param_groups", ())) == len(fresh["param_groups"])
    return {**saved, "param_groups": fresh["param_groups"]} if same else saved


def _which(device: torch.device) -> list[torch.device]:
    """What the random state functions of a device's module take beside the state: MPS has one device only."""
    return [] if device.type == "mps" else [device]


def _restore_replay(trainer: Trainer, state: dict[str, Any]) -> None:
    reader = ShardReader(trainer.replay_folder, trainer.envs.spec, trainer.config.replay.synthetic, trainer.writer.remote)
    same = state["num_envs"] == trainer.envs.num_envs
    trainer.replay.load(reader.episodes(state["shards"], newest_records=2 * trainer.config.replay.capacity), same_rows=same)
    trainer.replay.episodes = int(state["episodes"])
    forget_later_shards(trainer, state["shards"])  # only now: what cannot be read is refused before anything on disk changes
    if trainer.replay.history is not None:
        trainer.replay.history.load_state_dict(state.get("history", {}))


def deal_replay(trainer: Trainer, state: dict[str, Any]) -> None:
    """Share out the stored episodes of a run that has, or once had, another number of processes: of M, process r has every M-th
    from the r-th on. New ones are written where its own rank has them."""
    processes, root = trainer.processes, trainer.folder / "replay"
    known: dict[str, list[str]] = state.get("known_shards") or {".": list(state["shards"])}
    for folder in known:
        if not re.fullmatch(r"\.|rank_\d+", folder):
            raise UserError(f"{folder!r} is no replay folder of a run: resume={trainer.folder} from another checkpoint")
    newest, parts = 2 * trainer.config.replay.capacity, []
    for folder in sorted(known):
        remote = remote_shards(trainer.config, folder)
        reader = ShardReader(root / folder, trainer.envs.spec, trainer.config.replay.synthetic, remote)
        parts.append(reader.episodes(known[folder], newest_records=newest))
    by_age = heapq.merge(*parts, key=lambda episode: episode.end_step)  # one shard of each folder in memory at a time
    newest_end = 0

    def watched() -> Iterator[Episode]:
        nonlocal newest_end
        for episode in by_age:
            newest_end = max(newest_end, episode.end_step)
            yield episode

    trainer.replay.load(islice(watched(), processes.rank, None, processes.size), same_rows=False)
    # Steps of a process never fall, whatever the number of processes: stored episodes stay in the order of their ends.
    trainer.replay.steps = max(int(state["env_steps"]) // processes.size, newest_end)
    trainer.dealt = True
    _remember_left(trainer, known)
    forget_later_shards(trainer, known.get(trainer.part, []))


def _remember_left(trainer: Trainer, known: dict[str, list[str]]) -> None:
    """Keep in mind the shards of folders that are no process's now. None goes on before all have read what they need."""
    folders = trainer.processes.gather(trainer.part)
    trainer.left_shards = {folder: names for folder, names in known.items() if folder not in folders}


def forget_later_shards(trainer: Trainer, known: Sequence[str]) -> None:
    """Put aside the replay shards that were written after the checkpoint, and write on after the `known` ones."""
    folder = trainer.replay_folder
    for moved in set_aside(folder, known, trainer.writer.remote):
        half = ".tmp" in moved.suffixes
        why = "is half written, as its writer was killed" if half else "was written after the checkpoint"
        log.info("replay shard %s %s: kept aside", moved.name, why)
    trainer.writer = make_writer(trainer.config, folder, trainer.envs.spec, part=trainer.part)
    trainer.replay.on_episode = trainer.writer.add


def _restore_acting(trainer: Trainer, training: TrainingState) -> None:
    acting = training.tensors["acting"]
    if training.state["num_envs"] == trainer.envs.num_envs:
        cache = RollingState.of(acting, trainer.device)
        policy = {name: value.to(trainer.device) for name, value in acting["policy"].items()}
        agent_state = AgentState(cache, acting["h"].to(trainer.device), policy)
        episodes = unpack_open_episodes(training.arrays)
    else:
        log.info("env.num_envs changed since the checkpoint: the episodes under way start anew")
        agent_state, episodes = trainer.agent.initial_state(trainer.envs.num_envs, exploring=True), []
    for note in trainer.collector.resume(
        episodes, int(training.state["env_steps"]), agent_state, training.state.get("numbers", ())
    ):
        log.warning(note)
    if int(training.state.get("processes", 1)) == trainer.processes.size:  # episodes that no longer fit into memory count too
        trainer.replay.steps = int(training.state.get("replay_steps", training.state["env_steps"]))
