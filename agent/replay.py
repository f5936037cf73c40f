"""The replay: whole episodes and those under way, in memory, sampled as sequences."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np

from agent.history import History
from agent.holdout import NOTHING, Holdout
from agent.sequences import Episode, Observations, OpenEpisode, SampleMix, SequenceBatch, action_fields, joined
from agent.streams import Streams
from envs.errors import UserError
from envs.spaces.specs import EnvSpec

__all__ = ["Episode", "OpenEpisode", "Replay", "SampleMix", "SequenceBatch"]

Records = dict[str, np.ndarray]

log = logging.getLogger(__name__)


class Replay:
    """Every environment's stream of records, episodes back to back in time order, as far back as the capacity reaches.

    Episodes that `holdout` takes go to streams of their own, which only `sample_held_out` reads.

    One record is one observation with the action taken at it and the reward received on arriving at it, so an episode of T steps
    takes T + 1 records. All environments are always active: `start` those that need an episode, then `act`, `arrive`, and again.

    Attributes:
        steps: environment steps ever added; `load` and `load_open` add theirs.
        episodes: finished episodes ever added.
        finished: {environment: episode} of those that ended in the last `arrive`, where `on_episode` is given.
        on_episode: called with every episode that finishes, in the order of environments where several finish at once.
    """

    def __init__(
        self,
        spec: EnvSpec,
        num_envs: int,
        capacity: int,
        task_ids: tuple[str, ...],
        on_episode: Callable[[Episode], None] | None = None,
        holdout: Holdout = NOTHING,
    ) -> None:
        """`capacity` is in records over all environments. Raises UserError where it is too small, or larger than memory."""
        self.spec, self.num_envs, self.task_ids, self.on_episode = spec, num_envs, tuple(task_ids), on_episode
        self.row_capacity = capacity // num_envs
        if self.row_capacity < 2:
            raise UserError(
                f"replay.capacity={capacity} leaves fewer than two records for each of {num_envs} environments: "
                "raise it, or lower env.num_envs."
            )
        try:
            self._streams = Streams(spec, num_envs, self.row_capacity)
        except MemoryError:
            raise UserError(f"replay.capacity={capacity} does not fit into this machine's memory: lower it.") from None
        self.holdout = holdout
        self.history: History | None = None  # what is on disk alone; given to a replay that shall sample from it
        self.held_out: Streams | None = None  # of held-out episodes; made when the first one begins
        self.steps = 0
        self.episodes = 0
        self._envs = np.arange(num_envs)
        self._length = np.zeros(num_envs, np.int64)  # records of the episode under way; 0: none
        self._task = np.zeros(num_envs, np.int64)
        self._seed = np.zeros(num_envs, np.int64)
        self._held = np.zeros(num_envs, bool)  # whether the episode under way is held out
        self._spilled: list[list[Records]] = [[] for _ in range(num_envs)]
        self._acted = False
        self.finished: dict[int, Episode] = {}

    def __len__(self) -> int:
        """Records that training samples from."""
        return int(self._streams.size.sum())

    @property
    def longest(self) -> int:
        """Records of the longest stream: sequences that are sampled may be as long."""
        return int(self._streams.size.max())

    def start(
        self, env: np.ndarray, obs: Observations, task: np.ndarray, seed: np.ndarray, learn: np.ndarray | None = None
    ) -> None:
        """Begin episodes in environments `env` (n,), none of them under way, with first observations `{key: (n, *shape)}`.

        What `learn` (n,) says not to learn from is held out, whatever `holdout` says.
        """
        env = np.asarray(env, np.int64)
        if self._length[env].any():
            raise RuntimeError(f"an episode is under way in environments {env[self._length[env] > 0].tolist()}")
        self._check_obs(obs, env, task)
        whose = zip(np.asarray(task).tolist(), np.asarray(seed).tolist(), strict=True)
        self._held[env] = [self.holdout.takes(self.task_ids[t], s, self.steps) for t, s in whose]
        if learn is not None:
            self._held[env] |= ~learn
        for streams, at in self._homes(env):
            streams.append(env[at], {key: value[at] for key, value in obs.items()}, first=True, task=task[at])
        self._length[env], self._task[env], self._seed[env] = 1, task, seed

    def act(self, action: np.ndarray, log_prob: np.ndarray) -> None:
        """The actions (E, *action shape) taken at every environment's newest observation, and their log-probabilities."""
        if not self._length.all():
            raise RuntimeError(f"start an episode first in environments {self._envs[self._length == 0].tolist()}")
        for streams, at in self._homes(self._envs):
            streams.set_newest(self._envs[at], action=action[at], log_prob=log_prob[at])
        self._acted = True

    def arrive(
        self,
        obs: Observations,
        reward: np.ndarray,
        terminated: np.ndarray,
        truncated: np.ndarray,
        dropped: np.ndarray | None = None,
    ) -> None:
        """What every environment answered: observations `{key: (E, *shape)}`, rewards (E,), flags (E,) bool.

        Environments of `dropped` (E,) answered nothing that can be learned from: their episode ends, truncated, at the
        observation before, and one that is broken off in its first step leaves no trace.

        Raises UserError for a reward or an observation that is not finite; nothing is written then.
        """
        if not self._acted:
            raise RuntimeError("act before arrive")
        self.finished = {}
        self._check_obs(obs, self._envs, self._task)
        self._check_finite("reward", reward, self._envs, self._task)
        self._spill()
        fields = {"reward": reward, "terminated": terminated, "truncated": truncated, "task": self._task}
        self.steps += self.num_envs
        rows = self._envs
        if dropped is not None:
            self._break_off(np.flatnonzero(dropped))
            rows = np.flatnonzero(~dropped)
        for streams, at in self._homes(rows):
            where = rows[at]
            values = {name: value[where] for name, value in fields.items()}
            streams.append(where, {key: value[where] for key, value in obs.items()}, **values)
        self._acted = False
        self._length[rows] += 1
        for env in rows[(terminated | truncated)[rows]].tolist():
            self._finish(env, bool(terminated[env]), bool(truncated[env]))

    def _break_off(self, envs: np.ndarray) -> None:
        """End the episodes of `envs` (n,) at their newest observation."""
        begun = self._length[envs] > 1
        for streams, at in self._homes(envs[begun]):
            streams.end_newest(envs[begun][at])
        for env in envs[begun].tolist():
            self._finish(env, False, True)
        for streams, at in self._homes(envs[~begun]):
            streams.take_back(envs[~begun][at])
        self._length[envs] = 0

    def sample(self, batch: int, length: int, rng: np.random.Generator, mix: SampleMix) -> SequenceBatch:
        """`batch` slices of `length` records, none over a write head. Raises ValueError while no stream is that long.

        What `mix.history` says of them comes from disk, where a `history` is given; UserError where that is damaged.
        """
        past = None
        if self.history is not None and mix.history:
            past = self.history.sample(batch, length, mix.history, rng, mix.before)
        rows, times = self._streams.draw(batch - (len(past) if past is not None else 0), length, rng, mix, whole=batch)
        now = self._streams.gather_with(rows, times, length, mix.before)
        return now if past is None else joined(past, now)

    def sample_held_out(self, batch: int, length: int, rng: np.random.Generator, mix: SampleMix) -> SequenceBatch | None:
        """As `sample`, of held-out episodes alone; None while no stream of them holds `length` records."""
        if self.held_out is None or self.held_out.size.max() < length:
            return None
        rows, times = self.held_out.draw(batch, length, rng, mix)
        return self.held_out.gather_with(rows, times, length, mix.before)

    def first_observations(self, task: int, number: int, rng: np.random.Generator) -> Observations:
        """First observations {key: (number, *shape)} of a task's episodes, drawn with replacement; empty if there are none."""
        places = self._streams.first_of(task)
        return self._streams.observed(rng.choice(places, number)) if len(places) else {}

    def load(self, episodes: Iterable[Episode], same_rows: bool = False) -> None:
        """Refill with finished episodes, oldest first, before any episode is under way; `on_episode` is not called.

        They are spread evenly over the streams. With `same_rows` each goes to that of the environment that played it, where there
        is one: a replay so loaded with all of a run's episodes, then its open ones, samples exactly as the run's own would.
        """
        if self._length.any():
            raise RuntimeError("load before any episode is under way")
        for episode in episodes:
            if episode.task not in self.task_ids:
                raise UserError(
                    f"The replay holds an episode of task {episode.task}, which is not one of this run's "
                    f"({', '.join(self.task_ids)}): resume with the tasks it was recorded on."
                )
            known_row = same_rows and episode.env_index < self.num_envs
            row = episode.env_index if known_row else int(self._streams.count.argmin())
            self._append_whole(row, episode, self.task_ids.index(episode.task), episode.terminated, episode.truncated)
            self.episodes += 1

    def load_open(self, episodes: Iterable[OpenEpisode]) -> None:
        """Take up episodes that were under way (from `open_episodes`) in the environments that were playing them."""
        for episode in episodes:
            env = episode.env_index
            if self._length[env]:
                raise RuntimeError(f"an episode is under way in environment {env}")
            self._append_whole(env, episode, episode.task)
            self._held[env] = episode.held_out
            self._length[env], self._task[env], self._seed[env] = len(episode) + 1, episode.task, episode.seed
            capacity = self._home(env).row_capacity
            put_aside = len(episode) // capacity * capacity  # what `_spill` would have put aside by now
            records = action_fields(episode) | _prefixed(episode.obs)
            self._spilled[env] = [
                {k: v[i : i + capacity].copy() for k, v in records.items()} for i in range(0, put_aside, capacity)
            ]

    def open_episodes(self) -> list[OpenEpisode]:
        """Every episode under way, as it stands; environments between two episodes have none."""
        return [self._open_episode(env) for env in np.flatnonzero(self._length).tolist()]

    def _append_whole(
        self, row: int, episode: Episode | OpenEpisode, task: int, terminated: bool = False, truncated: bool = False
    ) -> None:
        total = len(episode) + 1
        self._check_obs(episode.obs, np.full(total, row), np.full(total, task))
        time = np.arange(total)
        end = time == total - 1
        flags = {"first": time == 0, "terminated": end & terminated, "truncated": end & truncated}
        streams = self._held_streams() if episode.held_out else self._streams
        streams.extend(row, episode.obs, **action_fields(episode), **flags, task=task)
        self.steps += len(episode)

    def _spill(self) -> None:
        """Put aside the records of an open episode that has filled its row: the next write would overwrite its beginning."""
        held = self.held_out.row_capacity if self.held_out is not None else self.row_capacity
        full = (self._length > 0) & (self._length % np.where(self._held, held, self.row_capacity) == 0)
        for env in np.flatnonzero(full).tolist():
            if not any(self._spilled):
                log.warning(
                    "an episode of %s has outgrown replay.capacity: it stays in memory, and in every checkpoint, until it ends; "
                    "give a larger replay.capacity, or end episodes by env.max_episode_steps",
                    self.task_ids[int(self._task[env])],
                )
            self._spilled[env].append(self._newest(env, self._home(env).row_capacity))

    def _home(self, env: int) -> Streams:
        """Where the episode under way in `env` is written."""
        return self._held_streams() if self._held[env] else self._streams

    def _homes(self, envs: np.ndarray) -> Iterator[tuple[Streams, np.ndarray | slice]]:
        """Where the episodes under way in `envs` (n,) are written, and at which places among `envs` those are."""
        held = self._held[envs]
        if not held.any():
            yield self._streams, slice(None)
            return
        yield self._held_streams(), held
        if not held.all():
            yield self._streams, ~held

    def _held_streams(self) -> Streams:
        if self.held_out is None:
            self.held_out = Streams(self.spec, self.num_envs, max(self.holdout.records // self.num_envs, 2))
        return self.held_out

    def _newest(self, env: int, number: int) -> Records:
        obs, fields = self._home(env).newest(env, number)
        return {name: fields[name] for name in ("action", "log_prob", "reward")} | _prefixed(obs)

    def _open_episode(self, env: int) -> OpenEpisode:
        spilled = self._spilled[env]
        rest = int(self._length[env]) - self._home(env).row_capacity * len(spilled)
        parts = [*spilled, self._newest(env, rest)]
        records = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return OpenEpisode(
            obs={leaf.key: records[f"obs/{leaf.key}"] for leaf in self.spec.observations},
            action=records["action"][:-1],
            log_prob=records["log_prob"][:-1],
            reward=records["reward"][1:],
            task=int(self._task[env]),
            seed=int(self._seed[env]),
            env_index=env,
            held_out=bool(self._held[env]),
        )

    def _finish(self, env: int, terminated: bool, truncated: bool) -> None:
        self.episodes += 1
        if self.on_episode is not None:
            done = self._open_episode(env)
            arrays = (done.obs, done.action, done.log_prob, done.reward)
            task = self.task_ids[done.task]
            episode = Episode(*arrays, terminated, truncated, task, done.seed, env, self.steps, held_out=done.held_out)
            self.finished[env] = episode
            self.on_episode(episode)
        self._length[env] = 0
        self._spilled[env] = []

    def _check_obs(self, obs: Mapping[str, np.ndarray], envs: np.ndarray, tasks: np.ndarray) -> None:
        for leaf in self.spec.observations:
            if leaf.key not in obs:
                raise ValueError(f"observation {leaf.key} is missing")
            value, shape = obs[leaf.key], (len(envs), *leaf.shape)
            if value.shape != shape or not np.can_cast(value.dtype, leaf.dtype, "same_kind"):
                raise ValueError(f"observation {leaf.key} is {value.shape} {value.dtype}, expected {shape} {leaf.dtype}")
            if value.dtype.kind == "f":
                self._check_finite(f"observation {leaf.key}", value, envs, tasks)

    def _check_finite(self, what: str, value: np.ndarray, envs: np.ndarray, tasks: np.ndarray) -> None:
        finite = np.isfinite(value)
        if finite.all():
            return
        bad = int(np.argmin(finite.reshape(len(value), -1).all(-1)))
        raise UserError(
            f"The {what} of environment {int(envs[bad])} (task {self.task_ids[int(tasks[bad])]}) is not finite at {self.steps} "
            "environment steps: mend the environment, or put a wrapper round it (env.wrappers)."
        )


def _prefixed(obs: Mapping[str, np.ndarray]) -> Records:
    return {f"obs/{key}": values for key, values in obs.items()}
