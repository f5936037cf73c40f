"""The comparison of priors: what its models learn from is the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from agent.replay import SampleMix
from benchmarks.grid_prior import record
from tests.agent.streams_data import assert_same
from tests.agent.tiny import DOORKEY, tiny_config


def test_models_of_unequal_parts_learn_from_the_same_episodes():
    config = tiny_config(DOORKEY)
    replays = []
    for maps in (True, False):
        replay, agent = record(replace(config, model=replace(config.model, maps=maps)), 60, "train", 101)
        assert bool(agent.model.maps.names) == maps
        replays.append(replay.sample(16, 8, np.random.default_rng(0), SampleMix(0.0, 0.0)))
    assert_same(*replays)
