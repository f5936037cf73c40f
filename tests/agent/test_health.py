"""When a warning is due, in hand-made histories; and that each is given once."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from agent.health import HALF, PATIENCE, USUAL, Health, explodes, is_dead, overfits
from agent.trainer import Trainer
from envs.spaces.specs import ActionSpec, EnvSpec, ModalitySpec
from tests.agent.tiny import tiny_config
from world_model.batch import Sequences
from world_model.config import ModelConfig
from world_model.latents import LatentBlock, LatentSpec
from world_model.model import WorldModel

FALLING = [2.0 - 0.05 * i for i in range(2 * HALF)]
NOISE = [0.01 * (-1) ** i for i in range(2 * HALF)]
VECTOR = LatentBlock("state", "vector", (8, 8), learned=True, ordered=True)
IMAGE = LatentBlock("view", "image", (16,) * 4, layout=(2, 2))


def rising(by: float) -> list[float]:
    """Noisily level for the older half, then higher by the share `by`."""
    return [2.0 * (1 + by * (i >= HALF)) + NOISE[i] for i in range(2 * HALF)]


def test_a_held_out_loss_that_rises_while_the_training_loss_falls_is_overfitting():
    assert overfits(FALLING, rising(0.2))


@pytest.mark.parametrize(
    ("training", "validation"),
    [
        (FALLING, FALLING),  # both fall
        (rising(0.2), rising(0.2)),  # both rise: the data have changed
        (FALLING, rising(0.05)),  # a rise of 5 % is within what counts as level
        (FALLING[1:], rising(0.2)[1:]),  # one look too few
        (FALLING, [2.0 + 3.0 * (i % 4 == 0) + 0.3 * (i >= HALF) for i in range(2 * HALF)]),  # 11 % up, but noise has as much
    ],
    ids=["both fall", "both rise", "a small rise", "too few looks", "noise"],
)
def test_nothing_else_is(training: list[float], validation: list[float]):
    assert not overfits(training, validation)


def test_a_gradient_is_dead_after_three_silent_looks_unless_its_head_has_learned():
    assert is_dead([1.0, 0.0, 0.0, 1e-9]) and is_dead([0.0] * 3, loss=0.5)
    assert not is_dead([0.0, 0.0]) and not is_dead([0.0, 0.0, 1e-3])
    assert not is_dead([0.0] * 3, loss=0.001)


def test_a_gradient_explodes_when_it_is_a_hundred_times_the_usual_twice_in_a_row_or_not_finite():
    usual = [1.0] * USUAL
    assert explodes([*usual, 101.0, 102.0])
    assert not explodes([*usual, 101.0]) and not explodes([*usual, 101.0, 1.0]) and not explodes([*usual, 99.0, 500.0])
    assert not explodes([1.0] * 5 + [200.0, 200.0])  # what is usual is not known yet
    assert explodes([1.0, math.inf]) and explodes([math.nan])


def test_every_warning_is_given_once_with_the_way_out(caplog: pytest.LogCaptureFixture):
    health = Health(LatentSpec((VECTOR, IMAGE)), 25)
    one = torch.zeros(2, 8)
    one[:, 3] = 100.0
    seen = torch.zeros(1, 16)
    seen[0, 5] = 400.0
    norms = {"dynamics": 0.0, "reward": 0.0, "prior/state": 5.0}
    with caplog.at_level(logging.WARNING):
        for i in range(3 * HALF):
            training, held_out = 2.0 - 0.02 * i, 2.0 + 0.2 * i
            health.look({"total": training, "reward": 1e-4}, held_out, norms, {"state": (one, 8), "view": (seen, 16)})
    warnings = [record.message for record in caplog.records]
    assert len(warnings) == len(set(warnings)) == 4
    assert sum("overfits" in warning and "model.weight_decay" in warning for warning in warnings) == 1
    assert sum("no gradient reaches dynamics" in warning and "model.lr" in warning for warning in warnings) == 1
    assert (
        sum("codes of `state` have collapsed: 1 of 8" in warning and "model.vector_std" in warning for warning in warnings) == 1
    )
    assert (
        sum("codes of `view` have collapsed: 1 of 16" in warning and "model.image_radius" in warning for warning in warnings) == 1
    )


def test_a_modality_that_is_absent_is_neither_collapsed_nor_out_of_reach(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    modalities = {"radar": "optional", "words": "text:optional"}
    config = tiny_config({"id": "tests.envs.test_missing:Radar-v0"}, holdout=False, modalities=modalities)
    trainer = Trainer(config, tmp_path)
    trainer.collector.start()
    while trainer.env_steps < 60:
        trainer.collector.step("random")
    learner, health = trainer.learner, Health(trainer.agent.model.latents, 1)

    def looked(absent: bool) -> dict[str, float]:
        batch = trainer.replay.sample(4, 8, np.random.default_rng(0), trainer.mix)
        batch.obs["radar?"][:] *= not absent
        log = learner.update(batch, trainer.timer, policy=False, look=True)
        norms = {name.removeprefix("gradients/"): float(x) for name, x in log.items() if name.startswith("gradients/")}
        losses = {name.removeprefix("model/"): float(x) for name, x in log.items()}
        return norms | health.look(losses, None, norms, learner.codes)

    with caplog.at_level(logging.WARNING):
        absent = [looked(absent=True) for _ in range(PATIENCE)][-1]
    assert not caplog.records
    assert {"encoder/radar", "codes/perplexity/radar"}.isdisjoint(absent)
    there = looked(absent=False)
    assert there["encoder/radar"] > 0 and there["codes/perplexity/radar"] >= 1


def test_what_moves_a_view_is_a_part_for_each_grid_named_as_its_loss():
    grids = (ModalitySpec("near", "grid", (3, 3, 2), "uint8"), ModalitySpec("far.off", "grid", (3, 3, 2), "uint8"))
    model = WorldModel(EnvSpec(grids, ActionSpec("discrete", 5)), ModelConfig(width=32, layers=1, heads=2, hidden=32, window=8))
    sequences = Sequences(
        obs={key: torch.zeros(1, 3, 9, dtype=torch.int64) for key in ("near", "far.off")},
        action=torch.zeros(1, 3, dtype=torch.int64),
        reward=torch.zeros(1, 3),
        first=torch.tensor([[True, False, False]]),
        terminated=torch.zeros(1, 3, dtype=torch.bool),
        truncated=torch.zeros(1, 3, dtype=torch.bool),
    )
    parts = {part for part in model.parts() if part.startswith("motion")}
    assert parts == {name for name in model(sequences).losses if name.startswith("motion")} == {"motion/near", "motion/far.off"}


def test_sound_learning_is_not_commented_on(caplog: pytest.LogCaptureFixture):
    health = Health(LatentSpec((VECTOR, IMAGE)), 25)
    rng = np.random.default_rng(0)
    background = torch.zeros(1, 16)
    background[0, :4] = torch.tensor([5000.0, 3.0, 2.0, 1.0])  # a picture that is nearly all one colour
    with caplog.at_level(logging.WARNING):
        for loss in np.exp(-np.arange(40) / 20):
            norms = {"dynamics": float(loss * rng.lognormal()), "policy/actor": float(rng.lognormal())}
            codes = {"state": (torch.full((2, 8), 50.0), 8), "view": (background, 16)}
            health.look({"total": float(loss)}, float(1.1 * loss * rng.uniform(0.9, 1.1)), norms, codes)
    assert not caplog.records


def test_what_was_said_is_not_said_again_after_resuming(caplog: pytest.LogCaptureFixture):
    first, second = (Health(LatentSpec((VECTOR,)), 25) for _ in range(2))
    for _ in range(3):
        first.look({"total": 1.0}, None, {"dynamics": 0.0}, {})
    caplog.clear()
    second.load_state_dict(first.state_dict())
    second.look({"total": 1.0}, None, {"dynamics": 0.0}, {})
    assert not caplog.records and second.norms["dynamics"] == first.norms["dynamics"] + first.norms["dynamics"].__class__([0.0])


def test_a_look_is_due_every_so_many_updates_or_never():
    assert [updates for updates in range(7) if Health(LatentSpec(()), 3).due(updates)] == [0, 3, 6]
    assert not any(Health(LatentSpec(()), 0).due(updates) for updates in range(7))
