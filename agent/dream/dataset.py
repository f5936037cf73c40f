"""Imagined episodes as a data set, in the replay's own format: the policy acts inside the model, from stored starts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agent.agent import Agent
from agent.checkpoint import load_meta, resolve
from agent.config import RunConfig
from agent.dream.rollout import come_back
from agent.futures import Start, imagine_futures, observations
from agent.replay_settings import make_writer
from agent.sequences import Episode
from agent.shards import ShardReader, shard_names
from envs.errors import UserError
from envs.spaces.specs import presence_key

BATCH = 64  # episodes imagined at once
STORED = 20_000  # newest stored steps that starts are drawn from


def write_dataset(agent: Agent, config: RunConfig) -> Path:
    """Write `dream.dataset_episodes` imagined episodes into the folder `dream.dataset`; answers the folder.

    Each begins at a stored step of the run that the checkpoint is of, drawn uniformly from its newest ones. The shards are marked
    with the run, the checkpoint's env steps and the seed.

    Raises:
        UserError: the folder holds shards already, or the run has no stored episodes.
    """
    settings = config.dream
    assert settings.dataset and config.checkpoint
    folder = Path(settings.dataset)
    if shard_names(folder):
        raise UserError(f"dream.dataset={folder} holds stored episodes already: give a new folder")
    path = resolve(config.checkpoint)
    origin = {
        "run": path.parent.parent.name,
        "env_steps": int(load_meta(path)["env_steps"]),
        "seed": config.seed,
        "horizon": settings.horizon,
        "policy": config.eval.policy,
    }
    stored = stored_episodes(agent, path.parent.parent / "replay")
    starts = draw_starts(stored, settings.dataset_episodes, np.random.default_rng((config.seed, 5)))
    writer = make_writer(config, folder, agent.model.spec, origin)
    step = 0
    for number, batch in enumerate(_batches(starts)):
        seed = int(np.random.default_rng((config.seed, 6, number)).integers(2**31))
        for episode in imagine_episodes(agent, batch, settings.horizon, seed, settings.context, config.eval.policy):
            step += len(episode)
            episode.end_step = step
            writer.add(episode)
    writer.flush()
    return folder


def stored_episodes(agent: Agent, folder: Path) -> list[Episode]:
    """The newest real episodes of a run's replay, but for held-out ones: what is imagined from these must not be learned from.

    Raises:
        UserError: it has none.
    """
    stored = ShardReader(folder, agent.model.spec).episodes(newest_records=STORED) if folder.is_dir() else ()
    episodes = [episode for episode in stored if not episode.held_out]
    if not episodes:
        raise UserError(
            f"{folder} holds no stored episodes to begin at that were not held out: "
            "give the checkpoint= of a run folder with its replay"
        )
    return episodes


def draw_starts(episodes: Sequence[Episode], number: int, rng: np.random.Generator) -> list[Start]:
    """`number` steps, uniformly over all of them, last observations left out."""
    ends = np.cumsum([len(episode) for episode in episodes])
    drawn = rng.integers(ends[-1], size=number)
    rows = np.searchsorted(ends, drawn, side="right")
    return [Start(episodes[row], int(at - ends[row] + len(episodes[row]))) for row, at in zip(rows, drawn, strict=True)]


def imagine_episodes(
    agent: Agent, starts: Sequence[Start], horizon: int, seed: int, context: int = 0, policy: str = "sample"
) -> list[Episode]:
    """One imagined episode from each start: terminated where the model draws its end, else truncated after `horizon` steps.

    The first observation, and what is static, is the stored one (`come_back` where it may be absent); the rest is the model's.
    Rewards are expected ones.
    """
    model = agent.model
    futures = imagine_futures(agent, starts, horizon, context, 1, seed, acting=policy)
    drawn = np.random.default_rng((seed, 7)).random((len(starts), horizon)) >= futures.cont[:, 0].cpu().numpy()
    steps = np.where(drawn.any(1), drawn.argmax(1) + 1, horizon)
    action, log_prob, reward = (x[:, 0].cpu().numpy() for x in (futures.action, futures.log_prob, futures.reward))
    seen = observations(model, futures.z[:, 0])  # (S, H + 1, *shape)
    episodes = []
    for i, (start, length) in enumerate(zip(starts, steps.tolist(), strict=True)):
        obs: dict[str, np.ndarray[Any, Any]] = {}
        for leaf in model.spec.observations:
            real = start.episode.obs[leaf.key][start.step]
            obs[leaf.key] = seen[leaf.key][i, : length + 1].copy()
            if leaf.static and leaf.optional:
                companion = presence_key(leaf.key)
                there = start.episode.obs[companion][: start.step + 1, 0], seen[companion][i, : length + 1, 0]
                obs[leaf.key] = come_back(start.episode.obs[leaf.key], obs[leaf.key], *there)
            obs[leaf.key][: None if leaf.static and not leaf.optional else 1] = real
        ended = bool(drawn[i].any())
        episodes.append(
            Episode(
                obs=obs,
                action=action[i, :length],
                log_prob=log_prob[i, :length],
                reward=reward[i, :length],
                terminated=ended,
                truncated=not ended,
                task=start.episode.task,
                seed=start.episode.seed,
                env_index=0,
                end_step=0,
                synthetic=True,
            )
        )
    return episodes


def _batches(starts: Sequence[Start]) -> Iterator[Sequence[Start]]:
    for first in range(0, len(starts), BATCH):
        yield starts[first : first + BATCH]
