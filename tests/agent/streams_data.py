"""Known streams for replay tests: a scripted player whose every record names its environment and its time."""

from __future__ import annotations

import numpy as np

from agent.replay import Episode, Replay, SequenceBatch
from envs.spaces.specs import ActionSpec, EnvSpec, ModalitySpec

SPEC = EnvSpec(
    observations=(
        ModalitySpec("stamp", "vector", (2,), "float32"),
        ModalitySpec("view.image", "grid", (3, 3, 2), "uint8"),
        ModalitySpec("facing", "categorical", (1,), "int64", classes=(4,)),
        ModalitySpec("mission", "text", (8,), "uint8", static=True),
    ),
    action=ActionSpec("discrete", 7),
)
TASKS = ("easy", "hard")
FIELDS = ("action", "log_prob", "reward", "first", "terminated", "truncated", "task")


class Player:
    """Plays random episodes into a replay and keeps what it should hold: `streams[env][time]` is one record, by field.

    Observation `stamp` is (environment, time in its stream): a slice tells where it was cut from.
    """

    def __init__(self, replay: Replay, seed: int = 0, end_rate: float = 0.15, reward_rate: float = 0.3) -> None:
        self.replay, self.end_rate, self.reward_rate = replay, end_rate, reward_rate
        self.rng = np.random.default_rng(seed)
        self.envs = np.arange(replay.num_envs)
        self.streams: list[list[dict[str, float]]] = [[] for _ in self.envs]
        self.episodes: list[Episode] = []
        self.ended = np.ones(replay.num_envs, bool)
        self.seeds = np.zeros(replay.num_envs, np.int64)
        replay.on_episode = self.episodes.append

    def step(self) -> None:
        """Start what has ended, act, arrive."""
        self.start()
        self.act_and_arrive()

    def play(self, steps: int) -> Player:
        for _ in range(steps):
            self.step()
        return self

    def start(self) -> None:
        starting = np.flatnonzero(self.ended)
        task = self.rng.integers(len(TASKS), size=len(starting))
        self.seeds[starting] = self.rng.integers(1 << 40, size=len(starting))
        if len(starting):
            self.replay.start(starting, self._observe(starting), task, self.seeds[starting])
        for env, index in zip(starting, task, strict=True):
            self.streams[env].append(dict.fromkeys(FIELDS, 0.0) | {"first": 1, "task": int(index)})
        self.ended[:] = False

    def act_and_arrive(self) -> None:
        number = len(self.envs)
        action, log_prob = self.rng.integers(7, size=number), -self.rng.random(number).astype(np.float32)
        reward = (self.rng.random(number) * (self.rng.random(number) < self.reward_rate)).astype(np.float32)
        terminated, truncated = (self.rng.random(number) < self.end_rate / 2 for _ in range(2))
        self.replay.act(action, log_prob)
        self.replay.arrive(self._observe(self.envs), reward, terminated, truncated)
        for env in self.envs:
            newest = self.streams[env][-1]
            newest["action"], newest["log_prob"] = action[env], log_prob[env]
            answer = {"reward": reward[env], "terminated": terminated[env], "truncated": truncated[env], "task": newest["task"]}
            self.streams[env].append(dict.fromkeys(FIELDS, 0.0) | answer)
        self.ended = terminated | truncated

    def observation(self, env: int, time: int) -> dict[str, np.ndarray]:
        """What `env` shows at `time`."""
        view = (np.arange(18).reshape(3, 3, 2) + 5 * env + time) % 251
        return {
            "stamp": np.array([env, time], np.float32),
            "view.image": view.astype(np.uint8),
            "facing": np.array([time % 4]),
            "mission": np.frombuffer(b"go\0\0\0\0\0\0", np.uint8),
        }

    def _observe(self, envs: np.ndarray) -> dict[str, np.ndarray]:
        views = [self.observation(env, len(self.streams[env])) for env in envs]
        return {key: np.stack([view[key] for view in views]) for key in views[0]}


def new_player(
    num_envs: int = 3, row_capacity: int = 50, seed: int = 0, end_rate: float = 0.15, reward_rate: float = 0.3
) -> Player:
    return Player(Replay(SPEC, num_envs, num_envs * row_capacity, TASKS), seed, end_rate, reward_rate)


def stamps(batch: SequenceBatch) -> tuple[np.ndarray, np.ndarray]:
    """Environments (B,) and times (B, T) that the slices come from."""
    stamp = batch.obs["stamp"].astype(int)
    assert (stamp[..., 0] == stamp[:, :1, 0]).all(), "a slice comes from one environment"
    return stamp[:, 0, 0], stamp[..., 1]


def assert_same(left: object, right: object) -> None:
    """Two episodes or batches hold the same arrays, dtype and bytes, and the same plain values."""
    assert type(left) is type(right)
    ours, theirs = dict(vars(left)), dict(vars(right))
    ours |= ours.pop("obs")
    theirs |= theirs.pop("obs")
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        if isinstance(value, np.ndarray):
            assert (value.dtype, value.shape) == (theirs[name].dtype, theirs[name].shape), name
            assert value.tobytes() == theirs[name].tobytes(), name
        elif isinstance(value, SequenceBatch):
            assert_same(value, theirs[name])
        else:
            assert value == theirs[name], name
