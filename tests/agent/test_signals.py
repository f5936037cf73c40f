"""What schedulers are told of tasks by the training pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from agent.signals import check_signals, task_signals
from agent.trainer import Trainer
from envs.errors import UserError
from tests.agent.tiny import tiny_config
from tests.world_model.conftest import SPEC, random_sequences
from tests.world_model.conftest import tiny_config as tiny_model
from world_model.config import ModelConfig
from world_model.model import WorldModel

DISAGREEMENT = frozenset({"disagreement"})


def test_a_tasks_disagreement_is_the_mean_over_its_steps_ends_left_out():
    torch.manual_seed(0)
    model = WorldModel(SPEC, tiny_model(ensemble=2))
    batch = random_sequences(model, 2, 6, ends={0: 2})
    task = np.array([[0, 0, 0, 2, 2, 2], [2, 2, 2, 2, 2, 2]])
    with torch.no_grad():
        output = model(batch)
        apart = model.disagreement(output.h)
    found = task_signals(DISAGREEMENT, model, output, batch, task, ("easy", "absent", "hard"))
    assert list(found) == ["easy", "hard"]
    assert found["easy"]["disagreement"] == pytest.approx(float(apart[0, :2].mean()))
    assert found["hard"]["disagreement"] == pytest.approx(float(torch.cat([apart[0, 3:], apart[1]]).mean()))
    assert task_signals(frozenset(), model, output, batch, task, ("easy", "absent", "hard")) == {}


def test_a_tasks_model_loss_is_how_far_the_next_codes_surprise_ends_left_out():
    torch.manual_seed(0)
    model = WorldModel(SPEC, tiny_model())
    batch = random_sequences(model, 2, 6, ends={0: 2})
    task = np.array([[0, 0, 0, 2, 2, 2], [2, 2, 2, 2, 2, 2]])
    with torch.no_grad():
        output = model(batch)
        nats = sum(model.surprise(output.h[:, :-1], output.z[:, :-1], output.z[:, 1:]).values())
    found = task_signals(frozenset({"model_loss"}), model, output, batch, task, ("easy", "absent", "hard"))
    assert isinstance(nats, torch.Tensor) and list(found) == ["easy", "hard"]
    assert found["easy"]["model_loss"] == pytest.approx(float(nats[0, :2].mean()))
    assert found["hard"]["model_loss"] == pytest.approx(float(torch.cat([nats[0, 3:], nats[1]]).mean()))


def test_a_scheduler_is_told_what_it_asks_for_at_every_update(tmp_path: Path):
    config = tiny_config(dict(suite="doorkey", tasks=["DoorKey-5x5"], num_envs=2))
    trainer = Trainer(replace(config, model=replace(config.model, ensemble=2)), tmp_path)
    told: list[Mapping[str, Mapping[str, float]]] = []

    def observe(signals: Mapping[str, Mapping[str, float]]) -> None:
        told.append(signals)

    trainer.curriculum.observe = observe  # type: ignore[method-assign]
    try:
        trainer.collector.start()
        while trainer.env_steps < config.train.random_steps:
            trainer.step()
        assert told == [], "nobody asked"
        trainer.learner.required_signals = DISAGREEMENT
        trainer.update(policy=False)
    finally:
        trainer.envs.close()
    assert len(told) == 1 and set(told[0]) <= set(trainer.tasks.ids)
    assert all(signals["disagreement"] > 0 for signals in told[0].values())


@pytest.mark.parametrize(
    ("required", "says"),
    [
        ({"mood"}, "the signal 'mood', which is unknown"),
        ({"disagreement"}, r"give it an ensemble, as model\.ensemble=5"),
    ],
)
def test_signals_that_there_are_none_of_are_refused(required: set[str], says: str):
    with pytest.raises(UserError, match=says):
        check_signals(frozenset(required), ModelConfig())
