"""Where the time goes."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from benchmarks.phases_measure import Stopwatch, loop_figures, measure, run_config
from benchmarks.training import composed_config


@dataclass
class FakeTrainer:
    stopping: bool = False
    timer: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(seconds={"model": 99.0}))


def test_only_the_steady_state_is_measured_and_then_the_loop_is_stopped(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("benchmarks.phases_measure.time.perf_counter", lambda: now[0])
    trainer = FakeTrainer()
    watch = Stopwatch(trainer, warm_updates=2, seconds=10.0)  # type: ignore[arg-type]
    for at, env_steps, updates in ((0.0, 16, 1), (1.0, 32, 2), (6.0, 48, 5)):
        now[0] = at
        watch.update(env_steps, updates)
    still_running = not trainer.stopping
    assert still_running
    assert trainer.timer.seconds == {}  # the warm-up's seconds are forgotten
    trainer.timer.seconds["model"] = 4.0
    now[0] = 11.0
    watch.update(96, 10)
    stopped: bool = trainer.stopping
    assert stopped
    assert (watch.wall, watch.env_steps, watch.updates, watch.phases) == (10.0, 64, 8, {"model": 4.0})


def test_rates_are_by_the_wall_and_by_the_phase_and_shares_add_up_to_one():
    watch = SimpleNamespace(wall=10.0, env_steps=200, updates=5, phases={"acting": 2.0, "model": 4.0, "imagination": 1.0})
    figures = loop_figures(watch, imagined_per_update=100)  # type: ignore[arg-type]
    assert figures["rates"] == {"env_steps": 20.0, "updates": 0.5, "imagined_steps": 50.0}
    assert figures["phase_rates"] == {"env_steps": 100.0, "updates": 1.25, "imagined_steps": 500.0}
    assert figures["shares"] == pytest.approx({"acting": 0.2, "model": 0.4, "imagination": 0.1, "other": 0.3})
    assert sum(figures["shares"].values()) == pytest.approx(1.0)


def test_a_real_loop_is_measured_with_its_model(tmp_path):
    small = ["model=debug", "logger=none", "env.num_envs=4", "train.random_steps=200", "train.warmup_updates=1", "train.batch=4"]
    config = composed_config([*small, "train.length=8", "hierarchy.horizon=3", "env.tasks=[DoorKey-5x5]"])
    figures = measure(run_config(config, seed=1), tmp_path, warm_updates=1, seconds=0.1)
    assert figures["rates"]["updates"] > 0
    assert figures["shares"]["model"] > 0
    model = figures["model"]
    assert model["share_of_matmul"] == pytest.approx(model["flops"] / model["seconds"] / model["matmul_flops_per_second"])
    assert 0 < model["share_of_matmul"] < 1
    # Two operations a weight, row and product; forward, and twice that backward: an order of magnitude for a sequence model.
    assert model["flops"] > 6 * 4 * 8 * model["parameters"] / 100
