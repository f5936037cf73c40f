"""One measurement of a replay larger than memory: how fast it is sampled, what the trainer consumes, how even the draws are."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from agent import checksums
from agent.check import random_actions
from agent.config import RunConfig
from agent.history import History
from agent.shards import ShardReader
from agent.trainer import Trainer
from benchmarks.flops import finish
from benchmarks.phases_measure import run_config
from benchmarks.store import write_json

BINS = 100  # of equal width, that history is cut into for the chi-square test
MIXES = {"memory": 0.0, "mixed": 0.5, "history": 1.0}


def fill(trainer: Trainer, records: int) -> float:
    """Play at random until so many records are stored; answers the seconds that writing them took."""
    seconds = 0.0
    flush = trainer.writer.flush

    def timed() -> Path | None:
        nonlocal seconds
        begun = time.perf_counter()
        try:
            return flush()
        finally:
            seconds += time.perf_counter() - begun

    trainer.writer.flush = timed  # type: ignore[method-assign]
    play_at_random(trainer, records)
    trainer.writer.flush()
    trainer.writer.flush = flush  # type: ignore[method-assign]
    return seconds


def play_at_random(trainer: Trainer, records: int) -> None:
    """Without the agent: what a model would make of it meanwhile is of no interest here."""
    envs, replay, task = trainer.envs, trainer.replay, trainer.tasks.hardest
    rng, number = np.random.default_rng(trainer.config.seed), envs.num_envs
    ended = np.ones(number, bool)
    while replay.steps + replay.episodes < records:
        if ended.any():
            seeds = rng.integers(2**31, size=number)
            obs = envs.reset([task.with_seed(int(seed)) for seed in seeds], ended)
            which = np.flatnonzero(ended)
            tasks = np.full(len(which), trainer.tasks.ids.index(task.id))
            replay.start(which, {key: value[which] for key, value in obs.items()}, tasks, seeds[which])
        action = random_actions(envs.spec, rng, number)
        replay.act(action, np.zeros(number, np.float32))
        result = envs.step(action)
        replay.arrive(result.obs, result.reward, result.terminated, result.truncated)
        ended = result.terminated | result.truncated


def per_second(work: Callable[[], object], seconds: float) -> float:
    """How often a second something can be done."""
    work()
    count, begun = 0, time.perf_counter()
    while (taken := time.perf_counter() - begun) < seconds or not count:
        work()
        count += 1
    return count / taken


def chi_square(history: History, batch: int, length: int, draws: int, rng: np.random.Generator) -> dict[str, float]:
    """Pearson's statistic of where slices begin against every place being equally likely, and how likely more than it is."""
    places = len(history) - length + 1
    edges = np.linspace(0, places, BINS + 1).round().astype(int)
    seen = np.zeros(BINS)
    while seen.sum() < draws:
        history.sample(batch, length, 1.0, rng)
        seen += np.histogram(history.starts, edges)[0]
    expected = seen.sum() * np.diff(edges) / places
    statistic = float(((seen - expected) ** 2 / expected).sum())
    freedom = BINS - 1
    tail = torch.special.gammaincc(
        torch.tensor(freedom / 2, dtype=torch.float64), torch.tensor(statistic / 2, dtype=torch.float64)
    )
    return {"statistic": statistic, "freedom": freedom, "p": float(tail), "draws": int(seen.sum())}


def measure(config: RunConfig, folder: Path, larger: int, rounds: int, seconds: float, draws: int) -> dict[str, Any]:
    """Fill a replay, then measure in turn, `rounds` times, each of a few things for `seconds`; medians are answered."""
    trainer = Trainer(config, folder)
    train, memory = config.train, config.replay.capacity + config.replay.cache
    try:
        writing = fill(trainer, larger * memory + config.replay.capacity)
        measured = _measured(trainer, rounds, seconds, draws)
        trained = trainer.replay.steps / trainer.update_every * train.batch / measured["consumed_per_second"]
        return {
            "stored": trainer.replay.steps + trainer.replay.episodes,
            "memory": memory,
            "episodes": trainer.replay.episodes,
            "threads": torch.get_num_threads(),
            "device": str(trainer.device),
            **measured,
            "checksum_share": _checksums(trainer) / writing,
            "writing_seconds": writing,
            "writing_share": writing / trained,  # of the updates that these steps would have earned
            "train": {"batch": train.batch, "length": train.length, "update_every": trainer.update_every},
        }
    finally:
        trainer.envs.close()


def _measured(trainer: Trainer, rounds: int, seconds: float, draws: int) -> dict[str, Any]:
    train, history, mix = trainer.config.train, trainer.replay.history, trainer.mix
    assert history is not None
    rng = np.random.default_rng(0)
    mixes = {name: replace(mix, history=share) for name, share in MIXES.items()}
    rates: dict[str, list[float]] = {name: [] for name in (*MIXES, "updates", "updates_mixed")}
    shares = []

    def updating(name: str) -> Callable[[], None]:
        def update() -> None:
            trainer.mix = mixes[name]
            trainer.update()
            finish(trainer.device)

        return update

    for _ in range(rounds):
        for name, own in mixes.items():
            fresh(history)
            sampling = per_second(lambda: trainer.replay.sample(train.batch, train.length, rng, own), seconds)  # noqa: B023
            rates[name].append(train.batch * sampling)
        fresh(history)
        rates["updates"].append(per_second(updating("memory"), seconds))
        fresh(history)
        trainer.timer.seconds.clear()
        begun = time.perf_counter()
        rates["updates_mixed"].append(per_second(updating("mixed"), seconds))
        shares.append(trainer.timer.seconds["sampling"] / (time.perf_counter() - begun))
    consumed = train.batch * median(rates["updates"])
    fresh(history)
    drawn = []
    for _ in range(draws // 40):
        trainer.replay.sample(train.batch, train.length, rng, mixes["mixed"])
        drawn.append(len(history.starts))
    fresh(history)
    return {
        "sequences_per_second": {name: median(rates[name]) for name in MIXES},
        "consumed_per_second": consumed,
        "fed": median(rates["history"]) / consumed,
        "updates_ratio": median(b / a for a, b in zip(rates["updates"], rates["updates_mixed"], strict=True)),
        "sampling_share": median(shares),
        "cache_misses": history.cache.misses / max(history.cache.misses + history.cache.hits, 1),
        "history_share": sum(drawn) / (len(drawn) * train.batch),
        "chi_square": chi_square(history, train.batch, train.length, draws, rng),
    }


def fresh(history: History) -> None:
    """Forget what was drawn ahead, for a mixture of before."""
    history.load_state_dict({})


def _checksums(trainer: Trainer) -> float:
    """Seconds that the checksums of all that is stored take."""
    episodes = list(ShardReader(trainer.folder / "replay", trainer.envs.spec).episodes())
    begun = time.perf_counter()
    for episode in episodes:
        checksums.sha256(episode)
        checksums.crc32(episode)
    return time.perf_counter() - begun


def main() -> None:
    """Measure as `{"config", "seed", "folder", "larger", "rounds", "seconds", "draws"}`, the only argument, says."""
    given = json.loads(sys.argv[1])
    folder = Path(given["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    config = run_config(given["config"], given["seed"])
    figures = measure(config, folder, given["larger"], given["rounds"], given["seconds"], given["draws"])
    write_json(folder / "summary.json", figures)


if __name__ == "__main__":
    main()
