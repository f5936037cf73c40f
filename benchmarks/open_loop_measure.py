"""One measurement of `benchmarks.open_loop`, in a process of its own: a run folder in, `summary.json` out.

python -m benchmarks.open_loop_measure '{"run": FOLDER, "folder": OUT, ...}'
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agent.agent import Agent
from agent.checkpoint import load_meta, resolve
from agent.futures import Start
from agent.loading import load_agent, trained_config
from agent.open_loop import Outlook, every_start, look_ahead, measure
from agent.playing import play_episodes
from agent.sequences import Episode
from benchmarks.measuring import answer
from benchmarks.open_loop_grid import TRACK, Tracker, event_figures, view_groups
from envs import EnvConfig, make_task_space
from envs.errors import UserError

ENVS = 16  # environments played side by side


def measure_run(run: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Play held-out episodes with the run's agent, then measure how its model foretells them.

    Args:
        settings: `episodes`, `random` (share of random actions), `context`, `steps`, `starts`, `seed`; `kwargs` of the
            environment that are others than in training.
    """
    path = resolve(run)
    meta = load_meta(path)
    config = trained_config(meta, path, ("env", "model", "hierarchy"))
    agent = load_agent(path, "cpu")
    kwargs = {**config.env.kwargs, **settings.get("kwargs", {})}
    env = replace(config.env, vectorization="sync", num_envs=ENVS, kwargs=kwargs)
    grids = [leaf.key for leaf in agent.model.spec.observations if leaf.kind == "grid"]
    env, tracked = _tracked(env) if len(grids) == 1 else (env, False)
    tasks = make_task_space(env)
    gamma, seed = config.hierarchy.actor_critic.gamma, settings["seed"]
    played = play_episodes(
        agent, env, tasks, tasks.hardest.id, "test", seed, settings["episodes"], gamma, random=settings["random"]
    )
    episodes = [episode for episode, _ in played]
    context, steps = settings["context"], settings["steps"]
    starts = drawn_starts(episodes, context, settings["starts"], np.random.default_rng(seed))
    outlook = look_ahead(agent, starts, max(steps), context, seed)
    figures: dict[str, Any] = {
        "task": tasks.hardest.id,
        "env_steps": meta["env_steps"],
        "held_out": config.env.holdout,
        "episodes": len(episodes),
        "mean_length": float(np.mean([len(episode) for episode in episodes])),
        "ended": sum(episode.terminated for episode in episodes),
        "starts": len(starts),
    }
    if not tracked:
        return figures | {"modalities": measure(agent, outlook, steps)}
    tracks = {id(episode): info[TRACK] for episode, info in played}
    (key,) = grids
    groups = {key: view_groups(starts, tracks, key, context, steps)}
    return figures | {"modalities": measure(agent, outlook, steps, groups), "events": _events(agent, outlook, key)}


def drawn_starts(episodes: Sequence[Episode], context: int, number: int, rng: np.random.Generator) -> list[Start]:
    """About `number` starts in all, and of no episode more than its share: those in which the agent is lost are the longest.

    Raises:
        UserError: no episode is long enough.
    """
    by_episode = [found for episode in episodes if (found := every_start([episode], context))]
    if not by_episode:
        raise UserError(f"no held-out episode is longer than the context of {context} steps: give a shorter --context.")
    share = -(-number // len(by_episode))
    drawn = [np.sort(rng.permutation(len(found))[:share]) for found in by_episode]
    return [found[i] for found, chosen in zip(by_episode, drawn, strict=True) for i in chosen]


def _tracked(env: EnvConfig) -> tuple[EnvConfig, bool]:
    """The same environment with a `Tracker` round it where it is a MiniGrid that is seen as symbols."""
    name = str(env.id or env.suite)
    minigrid = any(word in name for word in ("MiniGrid", "BabyAI", "doorkey", "babyai", "multiroom", "keycorridor"))
    if not minigrid or env.wrappers:
        return env, False
    wrapper = {"name": f"{Tracker.__module__}:{Tracker.__name__}", "kwargs": {}}
    return replace(env, wrappers=[wrapper]), True


def _events(agent: Agent, outlook: Outlook, key: str) -> dict[str, Any]:
    """`{who: {event: ...}}`, see `event_figures`."""
    part, modality = agent.model.latents.slices[key], agent.model.modality(key)
    imagined = {who: modality.detokenize(torch.from_numpy(z[:, :, part])) for who, z in outlook.z.items()}
    horizon = outlook.exists.shape[1] - 1
    real = np.stack([outlook.real(key, step) for step in range(horizon + 1)], 1)
    actions = np.stack([_actions(start.episode, start.step, horizon) for start in outlook.starts])
    return {who: event_figures(frames, real, actions, outlook.exists[:, 1:]) for who, frames in imagined.items()}


def _actions(episode: Episode, step: int, horizon: int) -> np.ndarray:
    """The next actions (horizon,), -1 after the episode's end."""
    taken = episode.action[step : step + horizon]
    return np.concatenate([taken, np.full(horizon - len(taken), -1)])


if __name__ == "__main__":
    answer(lambda given: measure_run(Path(given["run"]), given))
