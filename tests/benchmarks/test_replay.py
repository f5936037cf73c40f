"""A replay larger than memory: what is measured, and when the bar is reached."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agent.history import History
from benchmarks.phases_measure import run_config
from benchmarks.replay import BENCHMARK
from benchmarks.replay_measure import chi_square, measure
from benchmarks.training import composed_config
from tests.agent.streams_data import SPEC, TASKS
from tests.agent.test_history import EPISODES, stored


def test_a_real_replay_and_trainer_are_measured(tmp_path: Path):
    small = ["model=debug", "logger=none", "env.num_envs=4", "train.random_steps=40", "train.batch=4", "train.length=8"]
    memory = ["replay.capacity=60", "replay.cache=20", "replay.history=0.5", "replay.episodes_per_shard=2"]
    config = composed_config([*small, *memory, "hierarchy.horizon=3", "env.tasks=[DoorKey-5x5]", "env.kwargs.max_steps=20"])
    figures = measure(run_config(config, 1), tmp_path, larger=3, rounds=1, seconds=0.02, draws=500)
    assert figures["memory"] == 80 and figures["stored"] >= 3 * 80 + 60 and figures["episodes"] >= 10
    assert figures["fed"] == pytest.approx(figures["sequences_per_second"]["history"] / figures["consumed_per_second"])
    assert figures["history_share"] == pytest.approx(0.5, abs=0.05)
    assert 0 < figures["checksum_share"] < 1 and 0 <= figures["sampling_share"] < 1 and figures["updates_ratio"] > 0


def test_the_chi_square_figure_tells_even_draws_from_others(tmp_path: Path):
    writer = stored(tmp_path, EPISODES)
    history = History(tmp_path, SPEC, TASKS, lambda: writer.names, 0, 10**6, 0)
    even = chi_square(history, 50, 4, 3000, np.random.default_rng(0))
    assert even["freedom"] == 99 and even["draws"] == 3000 and even["p"] > 0.001

    class Early:
        def random(self) -> float:
            return 0.0

        def integers(self, high: int, size: int) -> np.ndarray:
            return np.random.default_rng(0).integers(high // 2, size=size)

    assert chi_square(history, 50, 4, 3000, Early())["p"] < 1e-6  # type: ignore[arg-type]


def test_a_quick_run_is_another_than_the_full_one():
    quick, full = (BENCHMARK.plan(BENCHMARK.parse(options))[0] for options in (["--quick"], []))
    assert quick.config != full.config and quick.variant == full.variant == "s" and quick.seed == full.seed == 1
