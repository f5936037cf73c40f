"""Dreams of a trained agent's held-out episodes, drawn into a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from agent.agent import Agent
from agent.config import DreamConfig, RunConfig
from agent.console import print_line
from agent.dream.picture import draw_dream, film_dream
from agent.dream.rollout import Dream, dream
from agent.files import file_name, write_json
from agent.playing import play_episode
from agent.sequences import Episode
from envs import make_task_space
from envs.errors import UserError

STARTS = ("end", "random")
MOST_FILMED = 200  # steps of a dream that are filmed and drawn at most


def check_dream(config: DreamConfig, drawn: bool = True) -> None:
    """Refuse what cannot be dreamt before anything is done. `drawn`: whether there will be a picture of it.

    Raises:
        UserError: a number that is too small, an unknown start.
    """
    for key, least in (("horizon", 1), ("episodes", 0), ("samples", 1), ("context", 0), ("dataset_episodes", 1)):
        if getattr(config, key) < least:
            raise UserError(f"dream.{key}={getattr(config, key)} is too small: give {least} or more")
    if drawn and config.horizon > MOST_FILMED:
        raise UserError(f"dream.horizon={config.horizon} is too long to be drawn: give {MOST_FILMED} or less")
    if config.start not in STARTS:
        raise UserError(f"dream.start={config.start} is unknown; choose one of {', '.join(STARTS)}")
    if not config.fps > 0:
        raise UserError(f"dream.fps={config.fps} is too slow: give more than 0, or dream.film=false")


def dream_tasks(agent: Agent, config: RunConfig, folder: Path) -> float:
    """Draw `dream.episodes` of every task; answers the mean absolute error of the imagined rewards.

    Pictures go into `media/dream_TASK.png`, `media/dream_TASK_2.png`, ..., each with its film (GIF) and words (JSON), their
    figures into `dream.json`.
    """
    errors: list[float] = []
    found: dict[str, list[dict[str, Any]]] = {}
    for task in make_task_space(config.env):
        for number in range(1, config.dream.episodes + 1):
            path = folder / "media" / f"dream_{file_name(task.id)}{f'_{number}' if number > 1 else ''}.png"
            drawn = picture_dream(agent, config, task.id, path, number)
            errors.append(reward_error(drawn))
            found.setdefault(task.id, []).append({"picture": path.name, **figures(drawn)})
            print_line(f"{path}")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "dream.json", {"checkpoint": config.checkpoint, "tasks": found})
    return float(np.mean(errors or [0.0]))


def picture_dream(
    agent: Agent, config: RunConfig, task: str, path: Path, number: int = 1, stopped: Callable[[], bool] = lambda: False
) -> Dream:
    """Dream of held-out episode `number` (from 1) of one task, drawn as a picture and, with `dream.film`, as a film."""
    settings, seed = config.dream, config.seed + number - 1
    gamma = config.hierarchy.actor_critic.gamma
    tasks = make_task_space(config.env)
    episode = play_episode(agent, config.env, tasks, task, config.eval.split, seed, gamma, stopped, config.eval.policy)
    start = random_start(episode, settings.horizon, seed) if settings.start == "random" else None
    drawn = dream(agent, episode, settings.horizon, seed, settings.context, settings.samples, start)
    spec, patch = agent.model.spec, agent.model.config.image_patch
    draw_dream(drawn, spec, patch, path, number, config.env.holdout)
    if settings.film and not stopped():
        film_dream(drawn, spec, patch, path, settings.fps)
    return drawn


def random_start(episode: Episode, horizon: int, seed: int) -> int:
    """A step of an episode that is followed by `horizon` more, where there is one."""
    return int(np.random.default_rng((seed, 4)).integers(max(1, len(episode) - horizon + 1)))


def reward_error(drawn: Dream) -> float:
    return float(np.abs(drawn.imagined_reward - drawn.reward).mean())


def figures(drawn: Dream) -> dict[str, Any]:
    """What a picture shows, in numbers: the share of each modality's parts that is wrong, by step, over all futures."""
    share = {key: wrong.reshape(*wrong.shape[:2], -1).mean((0, 2))[1:].tolist() for key, wrong in drawn.wrong.items()}
    return {
        "start": drawn.start,
        "horizon": drawn.horizon,
        "samples": drawn.samples,
        "ended": drawn.ended,
        "reward_error": reward_error(drawn),
        "first_wrong": drawn.first_wrong(),
        "wrong_share": share,
    }
