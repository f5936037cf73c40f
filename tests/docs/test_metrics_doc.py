"""docs/metrics.md: every curve that a run logs is there, and every curve that is there is logged."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from agent.config import RunConfig
from agent.loggers import MetricLogger
from agent.metrics_file import read_metrics
from agent.progress import Progress
from agent.trainer import Trainer
from curriculum import CURRICULA
from envs.faults import FAULTS, FaultError, FaultLedger
from tests.agent.test_any_space import AnySpace
from tests.agent.test_goals import director
from tests.agent.tiny import DOORKEY, QUIET, tiny_config
from tests.curriculum.test_schedulers import feed, scheduler

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (`[^|]*`) \|", PAGE, re.MULTILINE)
NAMES = [name for row in ROWS for name in re.findall(r"`([^`]*)`", row)]
ELSEWHERE = {  # what takes processes, or stored episodes, to be logged: where it stands in the code
    "acting/updates_behind": "agent/acting/collector.py",
    "acting/updates_behind_most": "agent/acting/collector.py",
    "acting/actors_replaced": "agent/acting/collector.py",
    "time/reading": "agent/pretrain/pretrainer.py",
}


def pattern(name: str) -> re.Pattern[str]:
    """What a name of the page stands for: of a placeholder in capitals anything but a slash."""
    return re.compile("/".join("[^/]+" if part.isupper() else re.escape(part) for part in name.split("/")))


PATTERNS = {name: pattern(name) for name in NAMES}


def undocumented(keys: set[str]) -> list[str]:
    return sorted(key for key in keys if not any(each.fullmatch(key) for each in PATTERNS.values()))


class Everything(AnySpace):
    """Shows a part of every kind, one of which may be missing; its infos have a number."""

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = spaces.Dict(
            {
                "see": spaces.Box(0, 255, (24, 24, 3), np.uint8),
                "cells": spaces.MultiDiscrete(np.full((3, 3), 4)),
                "at": spaces.Box(-1.0, 1.0, (2,)),
                "say": spaces.Text(8),
            }
        )

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return (*super().step(action)[:-1], {"steps": self._steps})

    def _observe(self) -> Any:
        shown = super()._observe()
        return shown if self._steps % 2 else {key: value for key, value in shown.items() if key != "at"}


gym.register("Everything-v0", entry_point=f"{__name__}:Everything")
EVERYTHING: dict[str, Any] = dict(
    id=f"{__name__}:Everything-v0",
    holdout=False,
    report=["steps"],
    modalities={"at": "vector:optional"},
    rewards={"task": {"kind": "environment"}, "new": {"kind": "count", "key": "cells"}},
)


def watched(config: RunConfig) -> RunConfig:
    """With an ensemble, evaluations on the way, and a look at health and held-out episodes after every update."""
    train = replace(config.train, validation=0.5, validation_after=0, look_every=1)
    looks = replace(config.eval, every=48, every_episodes=1)
    held = replace(config.hierarchy.actor_critic, entropy_target=0.5)
    explored = replace(config.hierarchy, explore=0.1, actor_critic=held)
    return replace(config, train=train, eval=looks, model=replace(config.model, ensemble=2), hierarchy=explored)


def keys_of(config: RunConfig, folder: Path) -> set[str]:
    """The names in the `metrics.jsonl` of a run that is trained and not evaluated in the end."""
    trainer, logger = Trainer(config, folder), MetricLogger(QUIET, folder)
    try:
        trainer.run(logger, Progress(config.train.env_steps, "cpu", enabled=False), lambda: folder)
    finally:
        logger.close()
        trainer.envs.close()
    return {key for row in read_metrics(folder) for key in row}


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    return keys_of(watched(tiny_config(EVERYTHING)), tmp_path_factory.mktemp("flat") / "run")


@pytest.fixture(scope="module")
def directed(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Of a director with everything that it can log, under a curriculum that asks how many goals are reached."""
    config = watched(director(DOORKEY, train={"env_steps": 192}))
    chosen = replace(config.curriculum, name="reachability")
    return keys_of(replace(config, curriculum=chosen), tmp_path_factory.mktemp("director") / "run")


@pytest.fixture(scope="module")
def others() -> set[str]:
    """What every scheduler logs, and broken environments do."""
    found: set[str] = set()
    for name in CURRICULA:
        own = scheduler(name)
        feed(own, 12)
        found |= {f"curriculum/{key}" for key in own.metrics()}
    robust = scheduler("level_replay")
    robust.config.level_replay.robust = True
    found |= {f"curriculum/{key}" for key in robust.metrics()}
    ledger = FaultLedger(allowed=len(FAULTS))
    for kind in FAULTS:
        ledger.drop(FaultError(kind, ""), 0, "task")
    return found | set(ledger.metrics())


def test_every_curve_of_a_flat_run_is_on_the_page(flat: set[str]) -> None:
    assert {"model/motion/cells", "policy/explored", "reward/new"} <= flat
    assert undocumented(flat) == []


def test_every_curve_of_a_director_is_on_the_page(directed: set[str]) -> None:
    assert {"goal/heard", "manager/disagreement", "worker/entropy_weight"} <= directed
    assert undocumented(directed) == []


def test_what_every_scheduler_logs_and_every_fault_is_on_the_page(others: set[str]) -> None:
    assert {"curriculum/brier", "curriculum/judged_steps", "env/faults/timeout"} <= others
    assert undocumented(others) == []


def test_every_curve_on_the_page_is_logged(flat: set[str], directed: set[str], others: set[str]) -> None:
    logged = flat | directed | others
    silent = {name for name, each in PATTERNS.items() if not any(each.fullmatch(key) for key in logged)}
    assert silent == set(ELSEWHERE)
    for name, path in ELSEWHERE.items():
        assert re.search(f'"({name}|{name.removeprefix("time/")})"', (ROOT / path).read_text(encoding="utf-8")), name


def test_a_curve_that_is_not_on_the_page_is_told_apart() -> None:
    wrong = {"policy/invented", "model/prior", "model/prior/a/b", "worker/advantage_share", "nowhere", "train/success"}
    assert undocumented(wrong | {"model/prior/image", "env_steps"}) == sorted(wrong)
    assert len(NAMES) == len(set(NAMES)) > 100


def test_the_files_and_keys_it_names_are_there() -> None:
    paths = re.findall(r"`((?:agent|curriculum|envs|hierarchy|world_model)/[\w/]+(?:\.py|/))`", PAGE)
    assert len(paths) > 30 and [path for path in paths if not (ROOT / path).exists()] == []
    groups = "acting|curriculum|env|eval|hierarchy|model|pretrain|replay|train"
    keys = re.findall(rf"`((?:{groups})(?:\.[a-z]\w*)+)", PAGE)
    assert len(keys) > 50
    for key in keys:
        value: Any = RunConfig()
        for part in key.split("."):
            assert hasattr(value, part), key
            value = getattr(value, part)
