"""The loop of `job=pretrain`: sample, learn, look at held-out episodes, log, checkpoint; and how it is gone on with."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agent.build import build_agent, burn_in, choose_device
from agent.checkpoint import CheckpointStore, TrainingState, load_meta, load_training
from agent.checkpointing import FORMAT, check_spec, load_agent_weights, load_pretrained
from agent.config import RunConfig
from agent.health import Health
from agent.learner import Learner
from agent.loggers import MetricLogger
from agent.metrics import Averager
from agent.pretrain.data import StoredData, data_folders, load_data, read_folder
from agent.progress import Progress
from agent.remote import RemoteShards
from agent.replay import SampleMix
from agent.rewards import check_sizes
from agent.sequences import Episode
from agent.settings import check_ranges
from agent.timing import PhaseTimer
from envs import make_task_space
from envs.errors import UserError
from envs.make import infer_spec

log = logging.getLogger(__name__)

LOOKS = 4  # batches of held-out sequences in a validation loss, the same every time
OVERFIT = 1.1  # times the lowest validation loss at which a warning is due


def check_pretraining(config: RunConfig) -> None:
    """Refuse what cannot be learned from before anything is read.

    Raises:
        UserError: numbers out of range.
    """
    check_ranges(config)
    pretrain = config.pretrain
    for key in ("updates", "log_every", "checkpoint_every"):
        if getattr(pretrain, key) < 1:
            raise UserError(f"pretrain.{key}={getattr(pretrain, key)} is too few: give 1 or more")


class Pretrainer:
    """One pretraining: stored episodes, the world model that learns from them, and counters."""

    def __init__(self, config: RunConfig, folder: Path, resumed: Path | None = None) -> None:
        check_pretraining(config)
        check_sizes(config.env)
        folders = data_folders(config.pretrain.data)
        self.config, self.folder = config, folder
        self.device = choose_device(config.device)
        torch.manual_seed(config.seed)
        self.rng = np.random.default_rng((config.seed, 8))
        self.spec = infer_spec(config.env, make_task_space(config.env))
        self.agent, self.engine = build_agent(config, self.spec, self.device)
        self.learner = Learner(self.engine, self.agent.hierarchy, config.hierarchy, config.train.batch, self.device)
        self.timer, self.averager = PhaseTimer(), Averager()
        self.health = Health(self.agent.model.latents, config.pretrain.log_every)
        self.seconds_before = 0.0
        self.lowest: tuple[float, int] | None = None  # validation loss, and after how many updates
        self.validated: dict[str, float] = {}  # what the last look at held-out episodes answered
        self.stopping = False
        self._began = time.perf_counter()
        if resumed is not None:
            self._restore(resumed)
        elif config.train.pretrained:
            load_pretrained(self.engine, self.agent.model, Path(config.train.pretrained))
        with self.timer("reading"):
            self.data = self._read(folders, grow=resumed is None)
        self.mix = SampleMix(
            recent=0.0,
            rewarded=config.replay.rewarded,
            rewarded_cap=config.replay.rewarded_cap,
            before=burn_in(config, self.agent.model),
        )

    def _read(self, folders: Sequence[Path | RemoteShards], grow: bool) -> StoredData:
        episodes = chain.from_iterable(read_folder(folder, self.spec, self.config) for folder in folders)
        data = load_data(self.config, self.spec, episodes, self._take_in if grow else None)
        lost = data.training.steps + data.training.episodes - len(data.training)
        if lost > 0:
            log.warning(
                "replay.capacity=%d is full: the first %d observations of pretrain.data are not learned from",
                self.config.replay.capacity,
                lost,
            )
        return data

    def _take_in(self, episode: Episode) -> None:
        """Let symbol tables, codebooks and statistics grow by what is learned from, and by nothing else."""
        self.agent.model.tokenize(episode.obs, grow=True)

    @property
    def updates(self) -> int:
        return self.learner.updates

    @property
    def finished(self) -> bool:
        return self.updates >= self.config.pretrain.updates

    def seconds(self) -> float:
        """Seconds of the whole pretraining."""
        return self.seconds_before + time.perf_counter() - self._began

    def run(self, logger: MetricLogger, progress: Progress, save: Callable[[], Path]) -> None:
        """Learn until `pretrain.updates`, or until `stopping` is set; `save` writes a checkpoint."""
        train, pretrain = self.config.train, self.config.pretrain
        while not self.finished and not self.stopping:
            with self.timer("sampling"):
                batch = self.data.training.sample(train.batch, train.length, self.rng, self.mix)
            due = (self.updates + 1) % pretrain.log_every == 0 or self.updates + 1 == pretrain.updates
            self.averager.add(self.learner.update(batch, self.timer, policy=False, look=due))
            progress.update(self.updates, self.updates)
            if due:
                logger.log(self.updates, self.metrics())
            if self.updates % pretrain.checkpoint_every == 0 and not self.finished:
                with self.timer("checkpoint"):
                    save()
        self.seconds_before = self.seconds()
        self._began = time.perf_counter()

    def metrics(self) -> dict[str, float]:
        """Everything worth logging since the last log step.

        Raises:
            UserError: training broke down.
        """
        values = self.averager.pop()
        losses, norms = ({n.removeprefix(p): v for n, v in values.items() if n.startswith(p)} for p in ("model/", "gradients/"))
        # Without the held-out loss: the way out of overfitting is another one here, see `warn_of_overfitting`.
        values |= self.health.look(losses, None, norms, self.learner.codes) | self.validate()
        for name, value in values.items():
            if not np.isfinite(value):
                raise UserError(
                    f"{name} is not finite after {self.updates} updates: training broke down; resume={self.folder} goes on from "
                    "the last good checkpoint, best with a lower model.lr"
                )
        values |= {f"model/{name}": value for name, value in self.agent.model.pop_metrics().items()}
        return values | self.timer.metrics() | {"updates": float(self.updates), "seconds": self.seconds()}

    def validate(self) -> dict[str, float]:
        """`validation/NAME`: means over sequences of held-out episodes, the same ones every time; empty where there are none."""
        held_out, train = self.data.validation, self.config.train
        if held_out is None:
            return {}
        rng = np.random.default_rng((self.config.seed, 9))
        length = min(train.length, len(held_out))
        looks = Averager()
        with self.timer("validation"):
            for _ in range(LOOKS):
                looks.add(self.learner.validate(held_out.sample(train.batch, length, rng, self.mix)))
        self.validated = looks.pop()
        total = self.validated["validation/total"]
        if self.lowest is None or total < self.lowest[0]:
            self.lowest = total, self.updates
        return self.validated

    def summary(self) -> dict[str, Any]:
        """`summary.json`. Its objective, to be maximised, is the negative validation loss."""
        lowest = {"loss": self.lowest[0], "updates": self.lowest[1]} if self.lowest else None
        loss = self.validated.get("validation/total")
        return {
            "env_steps": 0,
            "updates": self.updates,
            "wall_seconds": self.seconds_before,
            "tasks": {},
            "steps_to_threshold": {},
            "seconds_to_threshold": {},
            "data": {"episodes": self.data.episodes, "steps": self.data.steps, "held_out": self.data.held_out},
            "validation": self.validated,
            "lowest_validation": lowest,
            "objective": 0.0 if loss is None else -loss,
        }

    def warn_of_overfitting(self) -> None:
        """Say so where the held-out episodes were foretold better at an earlier time."""
        last = self.validated.get("validation/total")
        if last is not None and self.lowest is not None and last > OVERFIT * self.lowest[0]:
            log.warning(
                "the world model overfits: its loss on held-out episodes was %.3g after %d updates and is %.3g now; give more "
                "episodes, or fewer pretrain.updates",
                self.lowest[0],
                self.lowest[1],
                last,
            )

    # -- checkpoints -----------------------------------------------------------------------------------------------------

    def save(self, store: CheckpointStore) -> Path:
        """Write a checkpoint like those of training, with a policy that has learned nothing.

        Raises:
            UserError: if training broke down: a bad checkpoint must not follow the last good one.
        """
        weights = dict(self._weights())
        for name, value in weights.items():
            if not torch.isfinite(value).all():
                raise UserError(f"the weight {name} is not finite after {self.updates} updates: give a lower model.lr")
        meta = {
            "format": FORMAT,
            "spec": self.spec.to_dict(),
            "config": asdict(self.config),
            "env_steps": 0,
            "updates": self.updates,
        }
        tensors = {"model_optimizer": self.engine.optimizer_state(), "torch_rng": torch.get_rng_state()}
        state = {
            "updates": self.updates,
            "seconds": self.seconds(),
            "rng": self.rng.bit_generator.state,
            "timer": self.timer.state_dict(),
            "health": self.health.state_dict(),
            "lowest": self.lowest,
            "validated": self.validated,
        }
        return store.save(self.updates, weights, meta, TrainingState(tensors, state))

    def _weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        for name, value in self.engine.weights().items():
            yield f"model.{name}", value
        for name, value in self.agent.hierarchy.state_dict().items():
            yield f"hierarchy.{name}", value

    def _restore(self, path: Path) -> None:
        check_spec(load_meta(path), self.spec, path)
        training = load_training(path)
        state = training.state
        load_agent_weights(self.agent.model, self.agent.hierarchy, path)
        self.engine.load_weights(self.agent.model.state_dict())
        self.engine.load_optimizer_state(training.tensors["model_optimizer"])
        self.learner.updates = int(state["updates"])
        self.seconds_before = float(state["seconds"])
        self.timer.load_state_dict(state["timer"])
        self.health.load_state_dict(state["health"])
        self.lowest = (float(state["lowest"][0]), int(state["lowest"][1])) if state["lowest"] else None
        self.validated = dict(state["validated"])
        self.rng.bit_generator.state = state["rng"]
        torch.set_rng_state(training.tensors["torch_rng"])
