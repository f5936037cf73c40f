"""Every scheduler in a real run: it is told what it asks for and nothing else, and goes on after a stop."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agent.config import RunConfig
from agent.trainer import Trainer
from curriculum import CURRICULA, CurriculumConfig
from curriculum.box import BoxCurriculum
from curriculum.config import ImaginedSuccessConfig, LevelReplayConfig
from envs.tasks import Outcome
from hierarchy.config import HierarchyConfig
from tests.agent.test_resume import assert_same_run, stop_and_resume
from tests.agent.tiny import DOORKEY, play, tiny_config

OBSTACLES = dict(id="Strata-Obstacles-v0", box={"density": [0.0, 0.3], "size": [5, 6]}, cells=2, max_episode_steps=10)


def config_of(name: str, **level_replay: object) -> RunConfig:
    curriculum = CurriculumConfig(
        name=name,
        level_replay=LevelReplayConfig(levels=8, fill=0.25, **level_replay),  # type: ignore[arg-type]
        imagined_success=ImaginedSuccessConfig(every=2, starts=2, horizon=3),
    )
    box = isinstance(CURRICULA[name], type) and issubclass(CURRICULA[name], BoxCurriculum)
    config = replace(tiny_config(OBSTACLES if box else DOORKEY, holdout=False), curriculum=curriculum)
    return replace(config, hierarchy=director(config.hierarchy)) if name == "reachability" else config


def director(flat: HierarchyConfig) -> HierarchyConfig:
    return replace(flat, name="director", period=2, horizon=4)


def listen(trainer: Trainer) -> tuple[list[Mapping[str, Mapping[str, float]]], list[Outcome]]:
    """What a run's scheduler is told from now on: signals, outcomes."""
    told: list[Mapping[str, Mapping[str, float]]] = []
    heard: list[Outcome] = []
    observe, update = trainer.curriculum.observe, trainer.curriculum.update

    def overhear(signals: Mapping[str, Mapping[str, float]]) -> None:
        told.append(signals)
        observe(signals)

    def overhear_outcomes(outcomes: Sequence[Outcome]) -> None:
        heard.extend(outcomes)
        update(outcomes)

    trainer.curriculum.observe = overhear  # type: ignore[method-assign]
    trainer.curriculum.update = overhear_outcomes  # type: ignore[method-assign]
    return told, heard


@pytest.mark.parametrize("name", CURRICULA)
def test_a_scheduler_is_told_what_it_asks_for_and_nothing_else(name: str, tmp_path: Path):
    trainer = Trainer(config_of(name), tmp_path)
    told, heard = listen(trainer)
    try:
        play(trainer, 96)
        curriculum = trainer.curriculum
        signals = {key for entry in told for found in entry.values() for key in found} | {k for o in heard for k in o.signals}
        of_episodes = {"value_error", "regret"} if name == "level_replay" else set()
        assert signals == curriculum.required_signals | of_episodes
        assert heard and all(np.isfinite(list(outcome.signals.values())).all() for outcome in heard)
        assert all(set(entry) <= set(trainer.tasks.ids) for entry in told)
        assert json.loads(json.dumps(curriculum.state_dict())) == curriculum.state_dict()
        assert trainer.metrics()[f"curriculum/p/{trainer.tasks.hardest.id}"] >= 0
    finally:
        trainer.envs.close()


@pytest.mark.parametrize(("name", "keys"), [("level_replay", {"robust": True}), ("imagined_success", {}), ("adr", {})])
def test_a_resumed_run_goes_on_with_the_same_tasks(name: str, keys: dict[str, Any], tmp_path: Path):
    config = config_of(name, **keys)
    whole = Trainer(config, tmp_path / "whole")
    play(whole, 96)
    torch_state = torch.get_rng_state()
    resumed = stop_and_resume(config, tmp_path / "resumed", 96)
    play(resumed, 128)
    torch.set_rng_state(torch_state)
    play(whole, 128)
    assert_same_run(resumed, whole)
    for trainer in (resumed, whole):
        trainer.envs.close()


def test_an_episode_that_is_only_judged_is_not_sampled_for_training(tmp_path: Path):
    trainer = Trainer(config_of("level_replay", robust=True), tmp_path)
    try:
        play(trainer, 240)
        held = trainer.replay.held_out
        assert len(trainer.curriculum.levels) >= 2 and held is not None and held.count.sum() > 0  # type: ignore[attr-defined]
        assert int(trainer.replay._streams.count.sum()) + int(held.count.sum()) >= 240
    finally:
        trainer.envs.close()


def test_a_level_that_is_kept_out_of_training_is_not_kept_for_replay(tmp_path: Path):
    config = config_of("level_replay")
    trainer = Trainer(replace(config, train=replace(config.train, validation=0.5, validation_after=0)), tmp_path)
    try:
        play(trainer, 240)
        levels = trainer.curriculum.levels  # type: ignore[attr-defined]
        takes = trainer.replay.holdout.takes
        assert len(levels) >= 2 and not any(takes(trainer.tasks.ids[task], seed, 10**9) for task, seed in levels)
        assert trainer.timer.seconds["curriculum"] > 0, "its cost is counted"
    finally:
        trainer.envs.close()
