"""Every kind of space goes all the way: collect, replay, model loss, imagination, act, save, load."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from agent.agent import Agent
from agent.checkpoint import CheckpointStore
from agent.checkpointing import restore, save
from agent.shards import ShardReader, shard_names
from agent.trainer import Trainer
from envs import make_envs, make_task_space
from tests.agent.tiny import DOORKEY, play, tiny_config
from world_model.imagination import ImaginationEnv
from world_model.starts import choose_starts

INF = np.inf
U8 = np.uint8

# name: (space, the kinds of its leaves)
OBSERVATIONS: dict[str, tuple[spaces.Space[Any], str]] = {
    "0-d int64": (spaces.Box(-9, 9, (), np.int64), "categorical"),
    "0-d int64, wide": (spaces.Box(-(2**40), 2**40, (), np.int64), "vector"),
    "0-d float64": (spaces.Box(-INF, INF, (), np.float64), "vector"),
    "1-d float64, 1e6 in it": (spaces.Box(-INF, INF, (3,), np.float64), "vector"),
    "1-d float64, 1e300 in it": (spaces.Box(-INF, INF, (2,), np.float64), "vector"),
    "1-d float32, bounded below": (spaces.Box(0.0, INF, (2,), np.float32), "vector"),
    "1-d float16": (spaces.Box(-1, 1, (3,), np.float16), "vector"),
    "1-d int16": (spaces.Box(-30000, 30000, (3,), np.int16), "vector"),
    "1-d uint64": (spaces.Box(0, 2**64 - 1, (2,), np.uint64), "vector"),
    "1-d bool": (spaces.Box(0, 1, (4,), np.bool_), "categorical"),
    "2-d float32": (spaces.Box(-1.0, 1.0, (2, 3)), "vector"),
    "2-d int8": (spaces.Box(-3, 3, (3, 4), np.int8), "grid"),
    "3-d float32": (spaces.Box(-1.0, 1.0, (2, 1, 3)), "vector"),
    "3-d uint8, few values": (spaces.Box(0, 5, (3, 4, 2), U8), "grid"),
    "4-d float32": (spaces.Box(-INF, INF, (2, 1, 2, 2)), "vector"),
    "4-d bool": (spaces.Box(0, 1, (2, 1, 2, 2), np.bool_), "vector"),
    "Discrete": (spaces.Discrete(5), "categorical"),
    "Discrete from -3": (spaces.Discrete(5, start=-3), "categorical"),
    "Discrete of 2^40": (spaces.Discrete(2**40, start=-7), "vector"),
    "Discrete far off": (spaces.Discrete(3, start=2**60 + 1), "categorical"),
    "MultiDiscrete": (spaces.MultiDiscrete([2, 5, 3]), "categorical"),
    "MultiDiscrete, 2-d, offset": (spaces.MultiDiscrete(np.array([[2, 3], [4, 5]]), start=np.array([[-1, 0], [7, 2]])), "grid"),
    "MultiDiscrete, 3-d": (spaces.MultiDiscrete(np.full((2, 2, 2), 3)), "grid"),
    "MultiBinary": (spaces.MultiBinary(6), "categorical"),
    "MultiBinary, 2-d": (spaces.MultiBinary((2, 3)), "grid"),
    "Text": (spaces.Text(12), "text"),
    "Text, empty": (spaces.Text(12, min_length=0), "text"),
    "Text, not ASCII": (spaces.Text(12, charset="äöü ßподи取红球👍"), "text"),
    "Text, longer than is kept": (spaces.Text(400, min_length=300), "text"),
    "Text in a Dict in a Tuple": (spaces.Tuple((spaces.Discrete(3), spaces.Dict({"say": spaces.Text(8)}))), "categorical text"),
    "Dict in a Tuple in a Dict": (
        spaces.Dict({"pair": spaces.Tuple((spaces.Dict({"a": spaces.Discrete(2), "b": spaces.Box(-1.0, 1.0, (2,))}),))}),
        "categorical vector",
    ),
    "keys of any spelling": (
        spaces.Dict(
            {
                "a.b": spaces.Discrete(2),
                "a/b": spaces.Discrete(3),
                "a": spaces.Box(-1.0, 1.0, (1,)),
                "größe x": spaces.Discrete(2),
                "values": spaces.Discrete(2),
                "%2F": spaces.Discrete(2),
                ".": spaces.Discrete(2),
            }
        ),
        "categorical categorical categorical categorical categorical categorical vector",
    ),
    "keys that are numbers": (spaces.Dict({0: spaces.Discrete(2), 1: spaces.Discrete(3)}), "categorical categorical"),  # type: ignore[dict-item]
    "parts that may be missing": (
        spaces.Dict({"see": spaces.Box(0, 255, (24, 40, 3), U8), "say": spaces.Text(8), "at": spaces.Discrete(3)}),
        "categorical categorical categorical image text",
    ),
    "a static vector": (spaces.Dict({"goal": spaces.Box(-1.0, 1.0, (2,)), "at": spaces.Discrete(3)}), "categorical vector"),
}  # fmt: skip
IMAGES: dict[str, tuple[spaces.Space[Any], str]] = {
    "image, 24x40x1": (spaces.Box(0, 255, (24, 40, 1), U8), "image"),
    "image, 24x40": (spaces.Box(0, 255, (24, 40), U8), "image"),
    "image, 64x64x3": (spaces.Box(0, 255, (64, 64, 3), U8), "image"),
    "image, 40x24x4": (spaces.Box(0, 255, (40, 24, 4), U8), "image"),
    "image, channels first": (spaces.Box(0, 255, (3, 40, 48), U8), "image"),
    "image, floats up to 1": (spaces.Box(0.0, 1.0, (40, 40, 3)), "image"),
    "image beside text": (spaces.Dict({"see": spaces.Box(0, 255, (24, 40, 3), U8), "say": spaces.Text(8)}), "image text"),
}
ACTIONS: dict[str, spaces.Space[Any]] = {
    "Discrete": spaces.Discrete(3),
    "Discrete from -1": spaces.Discrete(3, start=-1),
    "MultiDiscrete": spaces.MultiDiscrete([2, 3]),
    "MultiDiscrete, 2-d, offset": spaces.MultiDiscrete(np.array([[2, 3], [4, 2]]), start=np.array([[1, -1], [0, 5]])),
    "MultiBinary": spaces.MultiBinary(3),
    "Box": spaces.Box(-1.0, 1.0, (2,)),
    "Box, 0-d": spaces.Box(-2.0, 2.0, ()),
    "Box, bounds of its own, float64": spaces.Box(np.array([0.0, -5.0]), np.array([10.0, 1.0]), dtype=np.float64),
    "Box, 2-d": spaces.Box(-1.0, 3.0, (2, 2)),
    "Box, unbounded": spaces.Box(-INF, INF, (2,)),
    "Box, bounded on one side": spaces.Box(0.0, INF, (1,)),
    "Box, int": spaces.Box(0, 7, (2,), np.int32),
}
# What is shown in place of samples: values that a sample hardly ever holds.
SHOWN: dict[str, list[Any]] = {
    "1-d float64, 1e6 in it": [np.array([1e6, 0.1, -3.0]), np.array([0.0, -1e6, 1e-6])],
    "1-d float64, 1e300 in it": [np.array([1e30, -1e300]), np.array([0.0, -1.0])],
    "Text, empty": ["", "a", ""],
    "parts that may be missing": [
        {"see": np.full((24, 40, 3), 200, U8), "at": 1},
        {"at": 2},
        {"see": np.zeros((24, 40, 3), U8), "say": "äh", "at": 0},
    ],
}
OVERRIDES = {"a static vector": {"goal": "static"}, "parts that may be missing": {"see": "image:optional", "say": "optional"}}


class AnySpace(gym.Env[Any, Any]):
    """Shows samples of a space and pays for what they and the action are, five steps long. Takes no action outside its space."""

    def __init__(self, observation: str = "Discrete", action: str = "Discrete") -> None:
        self.observation_space = (OBSERVATIONS | IMAGES)[observation][0]
        self.action_space = ACTIONS[action]
        self._shown = SHOWN.get(observation)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self._steps = 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), f"{action!r} is not in {self.action_space}"
        self._steps += 1
        shown = self._observe()
        reward = np.tanh(self._number + np.asarray(action, np.float64).sum())
        return shown, float(reward), self._steps == 5, False, {}

    def _observe(self) -> Any:
        shown = self._shown[self._steps % len(self._shown)] if self._shown else self.observation_space.sample()
        self._number = sum(map(ord, repr(shown))) % 7 - 3  # of every bit of what is shown
        return shown


gym.register("AnySpace-v0", entry_point=f"{__name__}:AnySpace")


def drive(folder: Path, observation: str = "Discrete", action: str = "Discrete", learned: Sequence[str] = ()) -> Trainer:
    """All the way, checked at every station."""
    settings = dict(id="tests.agent.test_any_space:AnySpace-v0", kwargs={"observation": observation, "action": action})
    config = tiny_config(settings, holdout=False, num_envs=2, modalities=OVERRIDES.get(observation, {}), text_bytes=40)
    model = replace(config.model, learned=list(learned), view_groups=4, view_classes=4, view_channels=4)
    config = replace(config, model=model, train=replace(config.train, random_steps=16))
    trainer = Trainer(config, folder)
    try:
        collect(trainer)
        learn_and_imagine(trainer)
        act(trainer, folder)
        save_and_load(trainer, folder)
    finally:
        trainer.envs.close()
    return trainer


def collect(trainer: Trainer) -> None:
    trainer.collector.start()
    for step in range(12):
        trainer.collector.step("random" if step < 8 else "sample")
    assert trainer.replay.episodes == 4
    assert trainer.collector.steps == 24, "no step was dropped"


def learn_and_imagine(trainer: Trainer) -> None:
    """A whole update, policy in imagination included; then a rollout whose states are read back as observations."""
    model = trainer.agent.model
    batch = trainer.replay.sample(4, 8, np.random.default_rng(0), trainer.mix)
    for _ in range(2):
        metrics = trainer.learner.update(batch, trainer.timer)
    assert all(np.isfinite(float(value)) for value in metrics.values())
    for leaf in trainer.envs.spec.observations:
        assert (f"model/prior/{leaf.key}" in metrics) != leaf.static, "what changes is predicted"
    sequences = trainer.learner.sequences(batch)
    with torch.no_grad():
        output = model(sequences)
    env = ImaginationEnv(model, 3, 4, "cpu")
    env.begin(choose_starts(output, sequences, 1))
    rollout = env.rollout(3, break_when_any_done=False)
    assert rollout["action"].shape[2:] == trainer.envs.spec.action.shape
    for block in model.latents.blocks:
        codes = model.latents.split(rollout["z"])[block.key]
        assert (codes >= 0).all() and (codes < torch.tensor(block.classes)).all()
        (leaf,) = (leaf for leaf in trainer.envs.spec.observations if leaf.key == block.key)
        seen = model.modality(block.key).detokenize(codes)
        assert seen.shape == (*codes.shape[:-1], *leaf.shape) and seen.dtype == leaf.dtype
        assert seen.dtype.kind != "f" or np.isfinite(seen).all()


def act(trainer: Trainer, folder: Path) -> None:
    """Held-out play, without growing tables, sampled and greedy."""
    config = trainer.config
    envs = make_envs(config.env, make_task_space(config.env), 2, "test")
    try:
        obs = envs.reset([trainer.tasks.hardest.with_seed(seed) for seed in (1, 2)])
        state = trainer.agent.initial_state(2)
        for mode, first in (("sample", True), ("greedy", False)):
            action, log_prob, state = trainer.agent.act(obs, np.full(2, first), state, mode)
            assert not state.h.requires_grad and not state.cache.keys.requires_grad, "an episode keeps no graph"
            assert action.shape == (2, *envs.spec.action.shape) and np.isfinite(log_prob).all()
            result = envs.step(action)
            obs = result.obs
            assert result.dropped is None, "the environment took the action"
    finally:
        envs.close()


def save_and_load(trainer: Trainer, folder: Path) -> None:
    path = save(trainer, CheckpointStore(folder / "checkpoints"))
    loaded, obs = Agent.load(folder, "cpu"), trainer.collector.obs
    first, state = np.ones(2, bool), loaded.initial_state(2)
    ours, theirs = (agent.act(obs, first, state, "greedy")[0] for agent in (trainer.agent, loaded))
    assert np.array_equal(ours, theirs)
    spec = trainer.envs.spec
    episodes = list(ShardReader(folder / "replay", spec).episodes(shard_names(folder / "replay")))
    assert [len(episode) for episode in episodes] == [5] * 4
    assert {key: value.dtype for key, value in episodes[0].obs.items()} == {leaf.key: leaf.dtype for leaf in spec.observations}
    resumed = Trainer(trainer.config, folder)
    try:
        restore(resumed, path)
        assert resumed.env_steps == trainer.env_steps
        for key, value in resumed.collector.obs.items():
            assert np.array_equal(value, obs[key])
        assert len(resumed.replay) == len(trainer.replay)
    finally:
        resumed.envs.close()


@pytest.mark.parametrize("name", OBSERVATIONS)
def test_every_observation_space_goes_all_the_way(name: str, tmp_path: Path):
    spec = drive(tmp_path, observation=name).envs.spec
    assert " ".join(sorted(leaf.kind for leaf in spec.observations)) == OBSERVATIONS[name][1]


@pytest.mark.parametrize("name", IMAGES)
def test_images_of_any_size_and_channels_go_all_the_way(name: str, tmp_path: Path):
    spec = drive(tmp_path, observation=name).envs.spec
    assert " ".join(sorted(leaf.kind for leaf in spec.observations)) == IMAGES[name][1]


LEARNED = {
    "3-d uint8, few values": "observation",
    "image, 24x40x1": "observation",
    "image, 64x64x3": "observation",
    "parts that may be missing": "see",
}


@pytest.mark.parametrize("name", LEARNED)
def test_learned_codes_of_grids_and_images_go_all_the_way(name: str, tmp_path: Path):
    model = drive(tmp_path, observation=name, learned=[LEARNED[name]]).agent.model
    (block,) = (block for block in model.latents.blocks if block.key == LEARNED[name])
    assert block.learned and block.classes == (4,) * 4 and not block.layout


def test_doorkey_is_learned_and_imagined_with_learned_codes(tmp_path: Path):
    config = tiny_config(DOORKEY)
    trainer = Trainer(replace(config, model=replace(config.model, learned=["image"])), tmp_path)
    try:
        logged = play(trainer, 96)
        learn_and_imagine(trainer)
    finally:
        trainer.envs.close()
    assert {"model/prior/image", "model/reconstruction/image"} <= logged[-1].keys()
    assert not [name for name in logged[-1] if name.startswith("model/unknown/image")]


@pytest.mark.parametrize("name", ACTIONS)
def test_every_action_space_goes_all_the_way(name: str, tmp_path: Path):
    spec = drive(tmp_path, action=name).envs.spec
    assert int(np.prod(spec.action.shape)) == (1 if spec.action.kind == "discrete" else int(np.prod(ACTIONS[name].shape or ())))


def test_observations_and_actions_of_many_kinds_go_together(tmp_path: Path):
    drive(tmp_path, observation="Dict in a Tuple in a Dict", action="Box, bounds of its own, float64")


def test_a_text_that_changes_within_an_episode_is_predicted_and_told_apart(tmp_path: Path):
    trainer = drive(tmp_path, observation="Text, not ASCII")
    (leaf,) = trainer.envs.spec.observations
    assert not leaf.static
    one, two = (np.frombuffer(text.encode().ljust(40, b"\0"), np.uint8)[None] for text in ("取", "红"))
    codes = [trainer.agent.model.tokenize({leaf.key: text}, grow=True)[leaf.key] for text in (one, two)]
    assert not torch.equal(*codes)
