"""Augmentation: what is shifted or hidden, what stays clean, and that nothing of it is there unless asked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.world_model.conftest import SPEC, random_sequences, tiny_config
from world_model.augmentation import drop_cells, shift_frames
from world_model.batch import ModelOutput
from world_model.config import AugmentConfig
from world_model.latents import module_name
from world_model.model import WorldModel
from world_model.symbols import UNKNOWN


def test_every_frame_of_a_sequence_is_moved_alike_and_sequences_differently():
    frames = np.arange(5 * 4, dtype=np.uint8).reshape(1, 1, 5, 4, 1) + np.zeros((64, 3, 1, 1, 1), np.uint8)
    torch.manual_seed(0)
    moved = shift_frames(frames, 2)
    assert moved.shape == frames.shape and moved.dtype == np.uint8
    assert (moved == moved[:, :1]).all()
    seen = {tuple(sequence[0].ravel()) for sequence in moved}
    # All 25 offsets, by hand: the pixel at (y, x) comes from (y + dy, x + dx), clamped to the picture.
    possible = set()
    for dy in range(-2, 3):
        for dx in range(-2, 3):
            rows, columns = (np.arange(5) + dy).clip(0, 4), (np.arange(4) + dx).clip(0, 3)
            possible.add(tuple(frames[0, 0, rows][:, columns].ravel()))
    assert seen <= possible and len(seen) > 15


def test_a_shift_by_nothing_changes_nothing():
    frames = np.random.default_rng(0).integers(0, 255, (2, 3, 6, 5, 3)).astype(np.uint8)
    assert np.array_equal(shift_frames(frames, 0), frames)


def test_a_share_of_the_cells_of_grids_becomes_unknown_and_nothing_else_does():
    model = WorldModel(SPEC, tiny_config())
    z, _ = model.posterior(random_sequences(model, 40, 10).obs)
    torch.manual_seed(0)
    before, after = model.latents.split(z), model.latents.split(drop_cells(z, model.latents, 0.3))
    for key in before:
        if key != "image":
            assert torch.equal(before[key], after[key])
    changed = before["image"] != after["image"]
    assert (after["image"][changed] == UNKNOWN).all()
    assert changed.float().mean() == pytest.approx(0.3, abs=0.03)
    assert (changed.flatten(0, 1).float().mean(0) > 0.15).all(), "any cell may be hidden"


def passed(model: WorldModel, dropout: float, training: bool) -> ModelOutput:
    model.config = replace(model.config, augment=AugmentConfig(cell_dropout=dropout))
    model.train(training)
    torch.manual_seed(0)
    output: ModelOutput = model(random_sequences(model, 3, 8))
    return output


def test_hidden_cells_are_still_to_be_foretold_and_hidden_in_training_alone():
    torch.manual_seed(1)
    model = WorldModel(SPEC, tiny_config())
    plain, dropped = passed(model, 0.0, True), passed(model, 0.5, True)
    assert torch.equal(plain.z, dropped.z), "targets stay clean"
    assert not torch.allclose(plain.h, dropped.h), "inputs do not"
    assert torch.equal(passed(model, 0.5, False).h, passed(model, 0.0, False).h)


def test_what_is_hidden_from_inputs_alone_is_on_the_map_that_rewards_and_imagination_read():
    torch.manual_seed(1)
    model = WorldModel(SPEC, tiny_config())
    dropped = passed(model, 0.5, True)
    torch.manual_seed(0)
    batch = random_sequences(model, 3, 8)
    assert list(model.maps.names) == ["image"]
    recalled, maps = model.maps.scan(model.latents.split(dropped.z), dropped.h, batch.action, batch.first)
    assert torch.equal(dropped.context.recalled["image"], recalled["image"])
    assert torch.equal(dropped.context.maps["image"].seen, maps["image"].seen) and maps["image"].seen.any()


def test_codebooks_of_the_given_keys_alone_grow():
    model = WorldModel(SPEC, tiny_config())
    rng = np.random.default_rng(0)
    obs = {leaf.key: rng.integers(0, 2, (4, *leaf.shape)).astype(leaf.dtype) for leaf in SPEC.observations}
    obs["camera"] = rng.integers(0, 255, (4, 6, 10, 1)).astype(np.uint8)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.tokenize(obs, grow=["camera"])
    grown = {name.split(".")[1] for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert grown == {module_name("camera")}
