"""The smallest runs there are, and environments whose behaviour is known by heart."""

from __future__ import annotations

from dataclasses import fields
from itertools import count
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces

from agent.config import DreamConfig, EvalConfig, ReplayConfig, RunConfig, TrainConfig
from agent.loggers import LoggerConfig
from agent.trainer import Trainer
from envs.config import EnvConfig
from hierarchy.config import ActorCriticConfig, HierarchyConfig
from world_model.config import ModelConfig

DOORKEY = dict(suite="doorkey", tasks=["DoorKey-5x5", "DoorKey-6x6"], kwargs={"max_steps": 20}, reward="sign")
CARTPOLE = dict(id="CartPole-v1", success="return>=475", holdout=False)
LINE = dict(id="tests.envs.odd:Line-v0", kwargs={"size": 2, "goal": 3, "cut": 5}, holdout=False)

QUIET = LoggerConfig(console=False, progress=False, wandb="off", report=False)
MODEL = ModelConfig(
    width=32, layers=1, heads=2, hidden=32, window=8, symbol_width=4, cell_width=8, learned_groups=4, learned_classes=4
)


PACES = [field.name for field in fields(TrainConfig) if field.name.startswith("update_every")]


def tiny_config(env: dict[str, Any], seed: int = 1, train: dict[str, Any] | None = None, **env_keys: Any) -> RunConfig:
    """A run of four environments that begins to learn after 32 steps and updates after every eighth, all the way."""
    settings = dict(env_steps=96, random_steps=32, warmup_updates=2, batch=4, length=8)
    settings |= dict(log_every=16, checkpoint_every=48, threads=1)
    settings |= dict.fromkeys(PACES, (train or {}).get("update_every", 8))
    return RunConfig(
        seed=seed,
        device="cpu",
        env=EnvConfig(**({"num_envs": 4} | env | env_keys)),
        model=MODEL,
        hierarchy=HierarchyConfig(horizon=3, starts=2, actor_critic=ActorCriticConfig(hidden=16, symbol_width=4)),
        logger=QUIET,
        train=TrainConfig(**(settings | (train or {}))),
        eval=EvalConfig(episodes=2, video=False),
        dream=DreamConfig(horizon=3, episodes=1, samples=2, film=False),
        replay=ReplayConfig(capacity=4000, episodes_per_shard=3),
    )


def play(trainer: Trainer, until: int) -> list[dict[str, float]]:
    """Train to `until` env steps without log lines and checkpoints; answers what every update logged."""
    logged: list[dict[str, float]] = []
    add = trainer.averager.add

    def record(values: Any, weight: float = 1.0) -> None:
        logged.append({name: float(value) for name, value in values.items()})
        add(values, weight)

    trainer.averager.add = record  # type: ignore[method-assign]
    if not trainer.collector.playing:
        trainer.collector.start()
    while trainer.env_steps < until:
        trainer.step()
    trainer.averager.add = add  # type: ignore[method-assign]
    return logged


def files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, byte for byte."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def same_tensors(left: Any, right: Any) -> bool:
    """Whether two nests of dicts and lists hold the same tensors, bit for bit, and the same values."""
    if isinstance(left, torch.Tensor):
        return isinstance(right, torch.Tensor) and left.dtype == right.dtype and torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same_tensors(value, right[key]) for key, value in left.items())
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(same_tensors(a, b) for a, b in zip(left, right, strict=True))
    return bool(left == right)


class Drift(gym.Env[Any, Any]):
    """No two episodes are alike, whatever the seed: what it shows (`shows`) or pays (`pays`) is a number never used before.

    Beside the number it shows the steps taken, if it has a `clock`. Episodes are cut after `limit` steps, which a test may change
    between an episode and its replay.
    """

    limit = 6
    numbers = count(1)

    def __init__(self, shows: bool = True, pays: bool = False, clock: bool = True) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = spaces.Discrete(2)
        self._shows, self._pays, self._clock = shows, pays, clock

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._steps, self._number = 0, next(self.numbers)
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._steps += 1
        reward = self._number * 1e-3 if self._pays else 0.0
        return self._observe(), reward, False, self._steps >= self.limit, {}

    def _observe(self) -> np.ndarray:
        return np.array([self._number if self._shows else 0, self._steps if self._clock else 0], np.float32)


class Wage(gym.Env[Any, Any]):
    """Action 1 pays 5, action 0 costs 2, and ends the episode (`quits`); else it ends after `limit` steps.

    It shows a number that its seed decides, and the steps taken.
    """

    def __init__(self, limit: int = 3, quits: bool = False) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = spaces.Discrete(2)
        self._limit, self._quits = limit, quits

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._steps, self._number = 0, int(self.np_random.integers(1000))
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._steps += 1
        ended = self._steps >= self._limit or (self._quits and action == 0)
        return self._observe(), (-2.0, 5.0)[int(action)], ended, False, {}

    def _observe(self) -> np.ndarray:
        return np.array([self._number, self._steps], np.float32)


class Phases(gym.Env[Any, Any]):
    """Shows a number n below `numbers` that its seed decides; ends after 1 + n % 7 steps, paying 1 if n is even."""

    def __init__(self, numbers: int = 10**6) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)
        self.action_space = spaces.Discrete(2)
        self._numbers = numbers

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._steps, self._number = 0, int(self.np_random.integers(self._numbers))
        return np.array([self._number], np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._steps += 1
        ended = self._steps == 1 + self._number % 7
        return np.array([self._number], np.float32), float(ended and self._number % 2 == 0), ended, False, {}


class Endless(gym.Env[Any, Any]):
    """Pays 1 a step and never ends. Infos: `steps` taken, `alive`."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(0, np.inf, (1,), np.float32)
        self.action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._steps += 1
        return np.full(1, self._steps, np.float32), 1.0, False, False, {"steps": self._steps, "alive": True}


for _name in ("Drift", "Wage", "Phases", "Endless"):
    gym.register(f"{_name}-v0", entry_point=f"{__name__}:{_name}")
