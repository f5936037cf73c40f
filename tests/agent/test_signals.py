"""What schedulers are told of tasks by the training pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agent.foresight import Foresight
from agent.imagined_success import success_probability
from agent.signals import check_signals, check_values, task_signals, told_by
from agent.trainer import Trainer
from agent.value_error import value_errors
from envs.config import EnvConfig
from envs.errors import UserError
from hierarchy.base import Hierarchy
from tests.agent.tiny import tiny_config
from tests.world_model.conftest import SPEC, random_sequences
from tests.world_model.conftest import tiny_config as tiny_model
from world_model.config import ModelConfig
from world_model.heads import TwoHotHead
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
        recalled = {key: x[:, :-1] for key, x in output.context.recalled.items()}
        nats = sum(model.surprise(output.h[:, :-1], output.z[:, :-1], output.z[:, 1:], recalled).values())
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
    ("required", "env", "says"),
    [
        ({"mood"}, {}, "the signal 'mood', which is unknown"),
        ({"disagreement"}, {}, r"give it an ensemble, as model\.ensemble=5"),
        ({"reach"}, {}, "this hierarchy has none: give hierarchy=director"),
        ({"imagined_success"}, {"success": "info:won"}, r"give env\.success=positive_reward"),
        ({"imagined_success"}, {"rewards": {"steps": {"kind": "environment"}}}, r"and env\.rewards=\{\}"),
    ],
)
def test_signals_that_there_are_none_of_are_refused(required: set[str], env: dict[str, Any], says: str):
    with pytest.raises(UserError, match=says):
        check_signals(frozenset(required), ModelConfig(), Hierarchy(), EnvConfig(**env))


def test_what_a_hierarchy_tells_of_rollouts_becomes_means_over_the_tasks_they_began_in():
    told = {"reach": torch.tensor([1.0, 0.0, torch.nan, 0.5]), "mood": torch.ones(4)}
    found = told_by(told, frozenset({"reach", "model_loss"}), torch.tensor([0, 0, 2, 1]), ("easy", "middle", "hard"))
    assert found == {"easy": {"reach": 0.5}, "middle": {"reach": 0.5}}


def test_values_are_asked_for_only_where_there_are_any():
    model = WorldModel(SPEC, tiny_model())
    with pytest.raises(UserError, match=r"hierarchy\.manager\.reward=sum"):
        check_values(frozenset({"regret"}), model, Hierarchy(), torch.device("cpu"))
    check_values(frozenset({"reach"}), model, Hierarchy(), torch.device("cpu"))


def test_value_errors_are_generalised_advantages():
    """Rewards 0, 1; values 0.5, 0.2; it terminates; gamma 0.5, lambda 0.5.

    Deltas: 0 + 0.5 * 0.2 - 0.5 = -0.4 and 1 - 0.2 = 0.8; advantages -0.4 + 0.25 * 0.8 = -0.2 and 0.8.
    """
    nothing = np.zeros(2)
    paid, value, returns = np.array([0.0, 1.0]), np.array([0.5, 0.2]), np.array([0.5, 1.0])
    foresight = Foresight(nothing, nothing, paid, value, returns, nothing, nothing)
    found = value_errors(foresight, gamma=0.5, lmbda=0.5)
    assert found == pytest.approx({"value_error": 0.5, "regret": 0.4})


def test_imagined_success_is_to_end_and_to_end_well():
    """Ends with probability 0.5, paying with 0.2; else with 0.5 in the next step, paying surely; the rest runs out of time."""
    p = success_probability(torch.tensor([[0.5, 0.5]]), torch.tensor([[0.2, 1.0]]))
    assert p.tolist() == pytest.approx([0.5 * 0.2 + 0.5 * 0.5 * 1.0])


def test_the_chance_of_a_positive_reward_is_that_of_the_bins_above_zero():
    head = TwoHotHead(3, ModelConfig(bins=5, hidden=4))
    assert head.positive(torch.zeros(2, 3)).tolist() == pytest.approx([0.4, 0.4])
