"""Are predictions right? What was predicted beside what came, in bins: reliability (Guo et al. 2017)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from agent.agent import Agent
from agent.config import RunConfig
from agent.console import print_line
from agent.foresight import Foresight, foresee
from agent.playing import PATIENCE, play_episode
from agent.sequences import Episode
from envs import make_task_space

BINS = 10


def reliability(predicted: ArrayLike, observed: ArrayLike, probability: bool = False) -> dict[str, Any]:
    """Reliability of predictions (N,) of what was observed (N,).

    Probabilities go into ten bins of equal width, other numbers into up to ten bins of equally many. The expected calibration
    error is the mean distance between a bin's mean prediction and its mean observation, weighed by how many are in it.

    Returns:
        `{error, predicted, observed, count}`: the expected calibration error, and three lists with an entry a bin.
    """
    guess, truth = np.asarray(predicted, float), np.asarray(observed, float)
    inner = np.linspace(0, 1, BINS + 1)[1:-1]
    edges = inner if probability else np.unique(np.quantile(guess, inner))
    index = np.searchsorted(edges, guess, side="right")
    bins = [index == i for i in np.unique(index)]
    means = [(float(guess[own].mean()), float(truth[own].mean()), int(own.sum())) for own in bins]
    error = sum(abs(a - b) * count for a, b, count in means) / len(guess)
    return {"error": error, **{name: [row[i] for row in means] for i, name in enumerate(("predicted", "observed", "count"))}}


def calibrate(episodes: list[Episode], foresights: list[Foresight]) -> dict[str, dict[str, Any]]:
    """`{reward, cont, value}`: `reliability` of each over all steps; `value` is left out where the hierarchy has none."""
    reward = np.concatenate([episode.reward for episode in episodes])
    goes_on = np.concatenate([np.arange(len(e)) < len(e) - e.terminated for e in episodes])
    joined = {name: np.concatenate([getattr(f, name) for f in foresights]) for name in ("reward", "cont", "value", "returns")}
    found = {
        "reward": reliability(joined["reward"], reward),
        "cont": reliability(joined["cont"], goes_on, probability=True),
    }
    return found if np.isnan(joined["value"]).any() else found | {"value": reliability(joined["value"], joined["returns"])}


@dataclass
class Foreseen:
    """Episodes of one task, and what was foreseen of each."""

    episodes: list[Episode] = field(default_factory=list)
    foresights: list[Foresight] = field(default_factory=list)


def foresee_tasks(agent: Agent, config: RunConfig, stopped: Callable[[], bool] = lambda: False) -> dict[str, Foreseen]:
    """`eval.calibration` steps of the exploring policy, on layouts held out, all tasks alike; nothing if 0."""
    tasks, learning = make_task_space(config.env), config.hierarchy.actor_critic
    share = -(-config.eval.calibration // len(tasks))
    found: dict[str, Foreseen] = {}
    for task in tasks:
        left, seed = share, config.seed
        while left > 0 and not stopped():
            episode = play_episode(
                agent, config.env, tasks, task.id, config.eval.split, seed, learning.gamma, stopped, longest=min(left, PATIENCE)
            )
            own = found.setdefault(task.id, Foreseen())
            own.episodes.append(episode)
            own.foresights.append(foresee(agent, episode, learning.gamma, config.hierarchy.discovery))
            left, seed = left - len(episode), seed + 1
    return found


def calibration_summary(foreseen: Mapping[str, Foreseen]) -> dict[str, dict[str, Any]]:
    """`calibrate` on all that was foreseen, of whichever task; empty if that is nothing."""
    episodes = [episode for own in foreseen.values() for episode in own.episodes]
    if not episodes:
        return {}
    found = calibrate(episodes, [foresight for own in foreseen.values() for foresight in own.foresights])
    errors = ", ".join(f"{name} {figures['error']:.2g}" for name, figures in found.items())
    print_line(f"Calibration, mean error of predictions over {sum(map(len, episodes))} steps: {errors}")
    return found
