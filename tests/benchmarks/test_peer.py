"""The model-free peer: the same curriculum, criterion, charge of steps, layouts and observations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from agent.compare.runs import load_run
from agent.metrics import SuccessTracker
from benchmarks.peer_config import PeerConfig
from benchmarks.peer_encoding import WORD_BUCKETS, Encoder, bag_of_words
from curriculum.config import CurriculumConfig
from curriculum.sequential import Sequential
from envs import EnvConfig, SuccessRule, make_envs, make_task_space
from envs.errors import UserError
from envs.spaces.specs import ActionSpec, EnvSpec, ModalitySpec
from envs.tasks import TaskSpace
from envs.vector import StepResult

pytest.importorskip("stable_baselines3", reason="the peer needs the bench extra")

from benchmarks.peer_env import CurriculumVecEnv
from benchmarks.peer_training import train

TASKS = make_task_space(EnvConfig(suite="doorkey", tasks=["DoorKey-5x5", "DoorKey-6x6", "DoorKey-8x8"]))
VECTOR = EnvSpec((ModalitySpec("observation", "vector", (1,), "float32"),), ActionSpec("discrete", 2))


@dataclass
class Bandits:
    """Environments whose episodes take one step; action 1 succeeds, action 0 is cut off. Observes its task's place."""

    tasks: TaskSpace
    num_envs: int = 2
    spec: EnvSpec = VECTOR

    def reset(self, tasks, mask=None):
        mask = np.ones(self.num_envs, bool) if mask is None else mask
        if not hasattr(self, "at"):
            self.at = np.zeros(self.num_envs)
        for i in np.flatnonzero(mask):
            self.at[i] = self.tasks.ids.index(tasks[i].id)
        return self.obs()

    def obs(self):
        return {"observation": self.at.astype(np.float32)[:, None].copy()}

    def step(self, actions):
        won = actions == 1
        return StepResult(self.obs(), won.astype(np.float32), won, ~won, [{} for _ in won])

    def close(self):
        pass


def peer_env(window=2, revisit=0.0):
    tracker = SuccessTracker(TASKS.ids, window=4, threshold=0.75)
    curriculum = Sequential(TASKS, CurriculumConfig("sequential", 1.0, window, revisit))
    envs = Bandits(TASKS)
    rule = SuccessRule.parse("positive_reward")
    env = CurriculumVecEnv(envs, curriculum, tracker, rule, lambda: 7.5, np.random.default_rng(0))  # type: ignore[arg-type]
    env.reset()
    return env, tracker, curriculum


def test_every_step_of_every_environment_on_every_task_is_charged():
    env, _, _ = peer_env()
    for _ in range(5):
        env.step(np.array([1, 0]))
    assert env.env_steps == 10


def test_the_threshold_needs_a_full_window_and_counts_the_steps_of_all_tasks():
    env, tracker, _ = peer_env(window=6)
    env.step(np.array([1, 1]))
    assert tracker.steps_to_threshold()["DoorKey-5x5"] is None  # 2 of 2, but the window is 4
    env.step(np.array([0, 0]))  # 2 of 4
    env.step(np.array([1, 0]))  # the last four: 0 0 1 0
    env.step(np.array([1, 1]))  # 1 0 1 1: three of four at step 8
    assert tracker.steps_to_threshold() == {"DoorKey-5x5": 8, "DoorKey-6x6": None, "DoorKey-8x8": None}
    assert tracker.seconds_to_threshold()["DoorKey-5x5"] == 7.5


def test_the_next_episode_is_on_the_next_task_once_the_window_is_won():
    env, tracker, curriculum = peer_env(window=2)
    first, *_ = env.step(np.array([1, 1]))
    assert curriculum.current == 1
    assert first[:, 0].tolist() == [1.0, 1.0]  # both environments begin on 6x6
    env.step(np.array([1, 1]))
    assert {name: task.episodes for name, task in tracker.tasks.items()} == {
        "DoorKey-5x5": 2,
        "DoorKey-6x6": 2,
        "DoorKey-8x8": 0,
    }


def test_only_an_episode_that_was_cut_off_is_bootstrapped():
    env, _, _ = peer_env()
    _, reward, ended, infos = env.step(np.array([1, 0]))
    assert ended.tolist() == [True, True]
    assert reward.tolist() == [1.0, 0.0]
    assert [info["TimeLimit.truncated"] for info in infos] == [False, True]
    assert infos[1]["terminal_observation"].tolist() == [0.0]


def test_minigrid_is_encoded_without_loss():
    config = EnvConfig(suite="doorkey", tasks=["DoorKey-5x5"], num_envs=3)
    tasks = make_task_space(config)
    envs = make_envs(config, tasks)
    obs = envs.reset([tasks.hardest.with_seed(seed) for seed in range(3)])
    encode = Encoder(envs.spec)
    encoded = encode(obs)
    envs.close()
    assert encoded.shape == (3, encode.size)
    assert encoded.dtype == np.float32
    direction, image, words = np.split(encoded, [4, 4 + 7 * 7 * 21], axis=1)
    assert direction.argmax(1).tolist() == obs["direction"][:, 0].tolist()
    kind, colour, state = np.split(image.reshape(3, 7, 7, 21), [11, 17], axis=-1)
    decoded = np.stack([part.argmax(-1) for part in (kind, colour, state)], axis=-1)
    assert np.array_equal(decoded, obs["image"])
    assert (image.reshape(3, 49, 21).sum(-1) == 3).all()
    assert words.shape == (3, WORD_BUCKETS)


def test_missions_that_differ_in_a_word_are_told_apart():
    colours = ("red", "green", "blue", "purple", "yellow", "grey")
    missions = [f"pick up the {colour} {thing}".encode() for colour in colours for thing in ("ball", "box", "key")]
    assert len({bag_of_words(mission + b"\0" * 8).tobytes() for mission in missions}) == len(missions)


def test_overrides_of_the_peer_are_typed():
    config = PeerConfig.parse(["gamma=1", "hidden=[32,32]", "activation=ReLU", "n_steps=64"])
    assert (config.gamma, config.hidden, config.activation, config.n_steps) == (1.0, (32, 32), "ReLU", 64)


@pytest.mark.parametrize("override", ["gama=0.9", "n_steps=many", "n_steps=1.5", "gamma=true"])
def test_a_wrong_key_or_type_is_refused_by_name(override):
    with pytest.raises(UserError, match=override.partition("=")[0]):
        PeerConfig.parse([override])


def test_a_run_under_the_protocol_of_curricula_is_evaluated_on_the_way_and_can_be_compared(tmp_path):
    config = PeerConfig(
        tasks=("DoorKey-5x5",), max_env_steps=128, stop_at_mastery=False, num_envs=8, n_steps=8, n_epochs=1, batch_size=64,
        eval_every=56, eval_every_episodes=1, eval_episodes=2, eval_also=("DoorKey-6x6",), eval_seed=0, eval_envs=2,
        eval_max_steps=3,
    )  # fmt: skip
    summary = train(config, 1, tmp_path / "run")
    run = load_run(tmp_path / "run")
    assert (run.curriculum, run.learner, run.seed) == ("PPO (sequential)", "PPO", 1)
    assert (run.trained, run.tasks) == (("DoorKey-5x5",), ("DoorKey-5x5", "DoorKey-6x6"))
    assert run.steps.tolist() == [56, 112, 128] and run.probability.tolist()[0] == [1.0]
    assert summary["env_steps"] == 128 and summary["evaluation_seconds"] > 0
