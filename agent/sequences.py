"""What goes into the replay and what comes out of it: whole episodes, episodes still under way, batches of sequences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Observations = dict[str, np.ndarray]


@dataclass
class SampleMix:
    """Where the sequences of a batch come from; what `recent` and `rewarded` leave is drawn uniformly.

    Attributes:
        recent: share drawn from the newest `recent_window` steps.
        rewarded: share that is made to contain a nonzero reward.
        rewarded_cap: `rewarded` is at most this times the number of rewarded steps stored, lest the model overfit a handful.
        recent_window: steps, over all environments together.
        history: share drawn uniformly from what is on disk alone.
        before: records before each sequence that come along with it.
    """

    recent: float = 0.25
    rewarded: float = 0.25
    rewarded_cap: float = 0.05
    recent_window: int = 2000
    history: float = 0.0
    before: int = 0


@dataclass
class SequenceBatch:
    """B slices of T records, each from one environment's stream; a slice may run over the end of an episode into the next one.

    Index t holds the observation, the action taken at it (0 at an episode's last observation and where none was taken yet) and
    what came on arriving at it: `reward` (0 at an episode's first), `terminated`, `truncated`.

    Attributes:
        obs: `{modality key: (B, T, *shape)}` in the spec's dtypes.
        action: (B, T, *action shape) in the spec's dtype.
        log_prob: (B, T) float32, of `action` under the policy that took it.
        reward: (B, T) float32.
        first, terminated, truncated: (B, T) bool, of the observation at t.
        task: (B, T) int64, index into the replay's `task_ids`.
        before: the records before each slice, and its first one; `first` is True wherever the stream holds none.
    """

    obs: Observations
    action: np.ndarray
    log_prob: np.ndarray
    reward: np.ndarray
    first: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    task: np.ndarray
    before: SequenceBatch | None = None

    def __len__(self) -> int:
        return len(self.reward)

    @property
    def last(self) -> np.ndarray:
        """(B, T) bool, the observation is its episode's last."""
        return self.terminated | self.truncated


def joined(first: SequenceBatch, second: SequenceBatch) -> SequenceBatch:
    """The slices of two batches of the same lengths in time, those of the first one first."""
    arrays: dict[str, Any] = dict(vars(first))
    theirs = dict(vars(second))
    obs = {key: np.concatenate([value, theirs["obs"][key]]) for key, value in arrays.pop("obs").items()}
    before, their_before = arrays.pop("before"), theirs.pop("before")
    arrays = {name: np.concatenate([value, theirs[name]]) for name, value in arrays.items()}
    if before is not None:
        arrays["before"] = joined(before, their_before)
    return SequenceBatch(obs=obs, **arrays)


@dataclass
class Episode:
    """One finished episode of T steps and T + 1 observations.

    Attributes:
        obs: `{modality key: (T + 1, *shape)}`, last observation included.
        action: (T, *action shape).
        log_prob: (T,) float32.
        reward: (T,) float32, index t is the answer to `action[t]`.
        terminated, truncated: how it ended; at least one holds.
        task: task id.
        seed: of the episode's task.
        env_index: which environment played it.
        end_step: environment steps of the whole run when it ended.
        synthetic: it was imagined by a world model.
        held_out: it is kept out of training.
    """

    obs: Observations
    action: np.ndarray
    log_prob: np.ndarray
    reward: np.ndarray
    terminated: bool
    truncated: bool
    task: str
    seed: int
    env_index: int
    end_step: int
    synthetic: bool = False
    held_out: bool = False

    def __len__(self) -> int:
        return len(self.action)


@dataclass
class OpenEpisode:
    """An episode still under way, T steps old: fields as in `Episode`, `task` as an index into the replay's `task_ids`."""

    obs: Observations
    action: np.ndarray
    log_prob: np.ndarray
    reward: np.ndarray
    task: int
    seed: int
    env_index: int
    held_out: bool = False

    def __len__(self) -> int:
        return len(self.action)


def action_fields(episode: Episode | OpenEpisode) -> dict[str, np.ndarray]:
    """Actions, log-probabilities and rewards of T steps as those of T + 1 records."""
    return {
        "action": np.concatenate([episode.action, np.zeros_like(episode.action, shape=(1, *episode.action.shape[1:]))]),
        "log_prob": np.append(episode.log_prob, np.float32(0)),
        "reward": np.insert(episode.reward, 0, 0),
    }


def episode_fields(episode: Episode) -> dict[str, np.ndarray]:
    """All that T + 1 records hold of a finished episode, beside observations and the task."""
    time = np.arange(len(episode) + 1)
    end = time == len(episode)
    flags = {"first": time == 0, "terminated": end & episode.terminated, "truncated": end & episode.truncated}
    return action_fields(episode) | flags


def pack_open_episodes(episodes: Sequence[OpenEpisode]) -> dict[str, np.ndarray]:
    """Flat named arrays for an `.npz` file."""
    arrays: dict[str, np.ndarray] = {}
    for episode in episodes:
        name = f"open/{episode.env_index}"
        arrays[f"{name}/task_seed"] = np.array([episode.task, episode.seed], np.int64)
        arrays[f"{name}/held_out"] = np.array(episode.held_out)
        arrays[f"{name}/action"] = episode.action
        arrays[f"{name}/log_prob"] = episode.log_prob
        arrays[f"{name}/reward"] = episode.reward
        arrays.update({f"{name}/obs/{key}": value for key, value in episode.obs.items()})
    return arrays


def unpack_open_episodes(arrays: Mapping[str, np.ndarray]) -> list[OpenEpisode]:
    """The inverse of `pack_open_episodes`; other names in `arrays` are left alone."""
    envs = sorted(int(name.split("/")[1]) for name in arrays if name.startswith("open/") and name.endswith("/task_seed"))
    episodes = []
    for env in envs:
        prefix = f"open/{env}/"
        task, seed = (int(value) for value in arrays[f"{prefix}task_seed"])
        obs = {name[len(f"{prefix}obs/") :]: value for name, value in arrays.items() if name.startswith(f"{prefix}obs/")}
        action, log_prob, reward = (arrays[prefix + name] for name in ("action", "log_prob", "reward"))
        held_out = bool(arrays.get(f"{prefix}held_out", False))
        episodes.append(OpenEpisode(obs, action, log_prob, reward, task, seed, env, held_out))
    return episodes
