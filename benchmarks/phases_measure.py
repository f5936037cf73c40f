"""One measurement of where the time goes: a training loop in its steady state, then the model's pass alone."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import torch
from omegaconf import OmegaConf

from agent.config import RunConfig
from agent.trainer import Trainer
from benchmarks.flops import count_flops, finish, matmul_peak
from benchmarks.store import write_json

REPETITIONS = 5  # of the model's pass, at least


class Stopwatch:
    """In the place of a progress bar: lets the loop warm up, measures it for `seconds`, then stops it.

    Attributes:
        env_steps, updates, wall, phases: what was done and how long it took while it measured.
    """

    def __init__(self, trainer: Trainer, warm_updates: int, seconds: float) -> None:
        self.env_steps = self.updates = 0
        self.wall = 0.0
        self.phases: dict[str, float] = {}
        self._trainer, self._warm_updates, self._seconds = trainer, warm_updates, seconds
        self._start: tuple[float, int, int] | None = None

    def update(self, env_steps: int, updates: int, *args: Any, **kwargs: Any) -> None:
        now = time.perf_counter()
        if self._start is None:
            if updates >= self._warm_updates:
                self._start = now, env_steps, updates
                self._trainer.timer.seconds.clear()
            return
        start, steps_before, updates_before = self._start
        # The first update after the start may be still owed: at least one has to be in what is measured.
        if now - start >= self._seconds and updates > updates_before:
            self.wall, self.env_steps, self.updates = now - start, env_steps - steps_before, updates - updates_before
            self.phases = dict(self._trainer.timer.seconds)
            self._trainer.stopping = True


class Silence:
    """In the place of a metric logger."""

    def log(self, *args: Any, **kwargs: Any) -> None:
        pass


def measure(config: RunConfig, folder: Path, warm_updates: int, seconds: float) -> dict[str, Any]:
    """Train for about `seconds` after `warm_updates` updates, then time the model alone.

    Returns:
        Plain data: `rates` a second of the whole loop, `phase_rates` a second of the phase that does it, `shares` of the wall
        time by phase, and `model` (see `model_figures`).
    """
    trainer = Trainer(config, folder)
    watch = Stopwatch(trainer, warm_updates, seconds)
    silence: Any = Silence()
    progress: Any = watch
    try:
        trainer.run(silence, progress, lambda: folder)
    finally:
        trainer.envs.close()
    return {
        "env_steps": trainer.env_steps,
        "threads": torch.get_num_threads(),
        "device": str(trainer.device),
        **loop_figures(watch, config.train.batch * config.hierarchy.starts * config.hierarchy.horizon),
        "model": model_figures(trainer, seconds),
    }


def loop_figures(watch: Stopwatch, imagined_per_update: int) -> dict[str, Any]:
    """Rates and shares of a measured loop."""
    done = {"env_steps": watch.env_steps, "updates": watch.updates, "imagined_steps": watch.updates * imagined_per_update}
    phase_of = {"env_steps": "acting", "updates": "model", "imagined_steps": "imagination"}
    shares = {phase: seconds / watch.wall for phase, seconds in sorted(watch.phases.items())}
    return {
        "measured_seconds": watch.wall,
        "rates": {name: count / watch.wall for name, count in done.items()},
        "phase_rates": {name: _rate(count, watch.phases.get(phase_of[name])) for name, count in done.items()},
        "shares": shares | {"other": 1.0 - sum(shares.values())},
    }


def model_figures(trainer: Trainer, seconds: float) -> dict[str, Any]:
    """The world model's forward and backward pass on one training batch, beside an fp32 matrix product on the same threads.

    Returns:
        `parameters`, `flops` of one pass, `seconds` (the median of repeated passes), `flops_per_second`,
        `matmul_flops_per_second` (the best of several sizes), their ratio `share_of_matmul`, and `eaten_by`: share of CPU time
        by operator, the largest first.
    """
    train, learner = trainer.config.train, trainer.learner
    batch = learner.sequences(trainer.replay.sample(train.batch, train.length, trainer.replay_rng, trainer.mix))

    def work() -> None:
        learner.model.zero_grad(set_to_none=True)
        learner.model(batch).loss.backward()

    flops = count_flops(work)
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while len(taken) < REPETITIONS or time.perf_counter() < end:
        start = time.perf_counter()
        work()
        finish(trainer.device)
        taken.append(time.perf_counter() - start)
    peak = matmul_peak(seconds=seconds / 10, device=trainer.device)
    return {
        "parameters": sum(p.numel() for p in learner.model.parameters()),
        "flops": flops,
        "seconds": median(taken),
        "flops_per_second": flops / median(taken),
        "matmul_flops_per_second": peak,
        "share_of_matmul": flops / median(taken) / peak,
        "eaten_by": _operators(work),
    }


def _operators(work: Any, most: int = 8) -> dict[str, float]:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        for _ in range(3):
            work()
    times = {event.key: float(event.self_cpu_time_total) for event in profile.key_averages()}
    total = sum(times.values()) or 1.0
    return {name: times[name] / total for name in sorted(times, key=lambda name: -times[name])[:most]}


def _rate(count: int, seconds: float | None) -> float | None:
    return count / seconds if seconds else None


def run_config(config: Mapping[str, Any], seed: int) -> RunConfig:
    """A composed config as `agent` takes it."""
    typed: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(RunConfig), config, {"seed": seed}))
    assert isinstance(typed, RunConfig)
    return typed


def main() -> None:
    """Measure as `{"config", "seed", "folder", "warm_updates", "seconds"}`, the only argument, says."""
    given = json.loads(sys.argv[1])
    folder = Path(given["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    figures = measure(run_config(given["config"], given["seed"]), folder, given["warm_updates"], given["seconds"])
    write_json(folder / "summary.json", figures)


if __name__ == "__main__":
    main()
