"""Small runs in two processes, for `tests/agent/test_processes.py`:

    python -m torch.distributed.run --standalone --nproc_per_node 2 -m tests.agent.processes_run FOLDER

Each process writes what it found to `FOLDER/rank_N.pt`. `FOLDER/one` holds the checkpoint of a run of one process.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from agent.checkpoint import CheckpointStore, resolve
from agent.checkpointing import restore, save
from agent.config import RunConfig
from agent.processes import Processes
from agent.trainer import Trainer
from tests.agent.tiny import DOORKEY, play, tiny_config
from world_model.config import ShardingConfig

SAVED, UPDATES, FEW = 96, 20, 3  # env steps of all processes; updates after that
EVERY = 8  # env steps per update


def config_of(stage: int, **sharding: Any) -> RunConfig:
    train = dict(random_steps=64, update_every=EVERY)
    config = tiny_config(DOORKEY, train=train, num_envs=4)
    model = replace(config.model, ensemble=2)
    return replace(config, model=model, sharding=ShardingConfig("deepspeed", stage, persistence=300, **sharding))


def state_of(trainer: Trainer) -> dict[str, Any]:
    """What has to be the same in all processes."""
    return {
        "model": {name: value.clone() for name, value in trainer.agent.model.state_dict().items()},
        "hierarchy": {name: value.clone() for name, value in trainer.agent.hierarchy.state_dict().items()},
        "steps": [trainer.env_steps, trainer.learner.updates],
        "tracker": {name: list(task.recent_success) for name, task in trainer.tracker.tasks.items()},
    }


def played(trainer: Trainer) -> list[tuple[str, int | None]]:
    return [(task.id, task.seed) for task in trainer.collector.playing]


def go_on(trainer: Trainer, updates: int = UPDATES) -> dict[str, Any]:
    """So many more updates: what every one of them logged, which tasks are played then, and where it all ends."""
    logged = play(trainer, trainer.env_steps + updates * EVERY)
    return {"updates": logged, "tasks": played(trainer), "state": state_of(trainer)}


def resumed(config: RunConfig, folder: Path, processes: Processes, path: Path) -> Trainer:
    trainer = Trainer(config, folder, processes)
    restore(trainer, path)
    return trainer


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    logging.getLogger("agent").setLevel(logging.ERROR)
    processes = Processes.join(torch.device("cpu"))
    config, run = config_of(3), folder / "run"
    trainer = Trainer(config, run, processes)
    play(trainer, SAVED)
    found: dict[str, Any] = {"tasks": played(trainer), "saved": state_of(trainer)}
    found["obs"] = {key: torch.from_numpy(value) for key, value in trainer.collector.obs.items()}
    path = save(trainer, CheckpointStore(run / "checkpoints"))
    found["straight"] = go_on(trainer)
    torch.manual_seed(12345)  # another process would not have this one's random state
    found["resumed"] = go_on(resumed(config, run, processes, path))
    found["other_stage"] = go_on(resumed(config_of(1), run, processes, path), FEW)
    one = resumed(config_of(3, gather="step"), folder / "one", processes, resolve(folder / "one"))
    found["dealt"] = [len(one.replay), one.replay.episodes, one.replay.steps]
    found["of_one"] = go_on(one, FEW)
    of_one = save(one, CheckpointStore(folder / "one" / "checkpoints"))
    found["stored"] = one.replay.episodes
    found["dealt_again"] = resumed(config_of(3, gather="step"), folder / "one", processes, of_one).replay.episodes
    config = config_of(1, tensor_parallel=2)  # the last: DeepSpeed keeps its groups for the rest of the process
    shared = resumed(config, run, processes, path)
    found["first_shared"] = go_on(shared, 1)
    path = save(shared, CheckpointStore(folder / "shared" / "checkpoints"))
    found["shared"] = go_on(shared, FEW)
    torch.manual_seed(12345)
    found["shared_resumed"] = go_on(resumed(config, run, processes, path), FEW)
    torch.save(found, folder / f"rank_{processes.rank}.pt")
    processes.leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
