"""Shifted images in an update: training sees them, held-out episodes do not."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces

from agent.settings import check_ranges
from agent.trainer import Trainer
from envs.errors import UserError
from tests.agent.tiny import DOORKEY, LINE, tiny_config
from world_model.config import AugmentConfig

PICTURE = spaces.Box(0, 255, (40, 40, 1), np.uint8)  # noise: every shift shows


def test_training_sequences_are_shifted_and_others_are_not(tmp_path: Path):
    env = dict(id="tests.envs.odd:Fixed-v0", holdout=False, kwargs={"observation": PICTURE})
    config = tiny_config(env)
    trainer = Trainer(replace(config, model=replace(config.model, augment=AugmentConfig(shift=4))), tmp_path)
    trainer.collector.start()
    while trainer.env_steps < 60:
        trainer.collector.step("random")
    batch = trainer.replay.sample(4, 8, np.random.default_rng(0), trainer.mix)
    plain = trainer.learner.sequences(batch).obs["observation"]
    assert (trainer.learner.sequences(batch).obs["observation"] == plain).all(), "nothing is drawn or learned"
    shifted = trainer.learner.sequences(batch, augment=True).obs["observation"]
    assert shifted.shape == plain.shape and not (shifted == plain).all()
    assert np.isfinite(float(trainer.learner.update(batch, trainer.timer)["model/total"]))


def test_it_is_said_which_grids_have_no_cells_to_hide(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    config = tiny_config(DOORKEY)
    for learned, share, warned in (([], 0.1, 0), (["image"], 0.0, 0), (["image"], 0.1, 1)):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            Trainer(
                replace(config, model=replace(config.model, learned=learned, augment=AugmentConfig(cell_dropout=share))), tmp_path
            )
        assert sum("model.augment.cell_dropout=0.1 hides no cell of `image`" in text for text in caplog.messages) == warned


@pytest.mark.parametrize(
    ("augment", "reason"),
    [
        (AugmentConfig(shift=-1), r"model\.augment\.shift=-1 is too small"),
        (AugmentConfig(cell_dropout=1.0), r"model\.augment\.cell_dropout=1\.0 is no share"),
        (AugmentConfig(cell_dropout=-0.1), r"model\.augment\.cell_dropout=-0\.1 is no share"),
    ],
)
def test_augmentation_out_of_range_is_refused(augment: AugmentConfig, reason: str):
    config = tiny_config(LINE)
    with pytest.raises(UserError, match=reason):
        check_ranges(replace(config, model=replace(config.model, augment=augment)))
