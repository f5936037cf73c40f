"""Minari data sets, written here by hand as the package would: read as the environment would have delivered them, or refused."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import numpy as np
import pytest
from gymnasium import spaces
from PIL import Image

from agent.pretrain.data import read_folder
from agent.pretrain.minari import minari_folder
from agent.pretrain.pretrainer import Pretrainer
from agent.sequences import Episode
from envs import make_task_space
from envs.adapter import Adapter, decode_text
from envs.config import EnvConfig
from envs.errors import UserError
from envs.make import infer_spec
from envs.spaces.actions import action_spec, from_environment, to_environment
from envs.spaces.serialized import read_space
from envs.spaces.specs import EnvSpec
from tests.agent.test_pretrain import asking
from tests.agent.tiny import CARTPOLE, tiny_config

POLE = tiny_config(CARTPOLE).env
DOOR = "MiniGrid-DoorKey-5x5-v0"
ENDS = 3  # steps of an episode below


def serialized(space: spaces.Space[Any]) -> dict[str, Any]:
    """A space as Minari writes it."""
    if isinstance(space, spaces.Dict):
        return {"type": "Dict", "subspaces": {name: serialized(part) for name, part in space.spaces.items()}}
    if isinstance(space, spaces.Tuple):
        return {"type": "Tuple", "subspaces": [serialized(part) for part in space.spaces]}
    if isinstance(space, spaces.Box):
        bounds = {"low": space.low.tolist(), "high": space.high.tolist()}
        return {"type": "Box", "dtype": str(space.dtype), "shape": list(space.shape), **bounds}
    if isinstance(space, spaces.Discrete):
        return {"type": "Discrete", "dtype": "int64", "start": int(space.start), "n": int(space.n)}
    return {"type": "MissionSpace", "mission_func": "use the key to open the door and then get to the goal"}


def written(folder: Path, env: gym.Env[Any, Any], episodes: int = 2, old: bool = False) -> list[dict[str, Any]]:
    """Play random episodes of `ENDS` steps into a data set; answers what was stored, observations as lists of raw ones."""
    data = folder / "data"
    data.mkdir(parents=True)
    played = []
    env.action_space.seed(0)
    for number in range(episodes):
        observations, actions, rewards = [env.reset(seed=number)[0]], [], []
        for _ in range(ENDS):
            actions.append(env.action_space.sample())
            observation, reward, *_ = env.step(actions[-1])
            observations.append(observation)
            rewards.append(reward)
        played.append({"observations": observations, "actions": actions, "rewards": rewards})
    about = {"observation_space": serialized(env.observation_space), "action_space": serialized(env.action_space)}
    metadata = {name: json.dumps(space) for name, space in about.items()} | {"total_episodes": episodes, "data_format": "hdf5"}
    with h5py.File(data / "main_data.hdf5", "w") as file:
        for number, episode in enumerate(played):
            group = file.create_group(f"episode_{number}")
            group.attrs.update(id=number, total_steps=ENDS, seed=123)
            store(group, "observations", episode["observations"], env.observation_space)
            group["actions"], group["rewards"] = np.array(episode["actions"]), np.array(episode["rewards"], np.float64)
            group["terminations"] = np.arange(ENDS) == (ENDS - 1 if number == 0 else -1)
            group["truncations"] = np.arange(ENDS) == (ENDS - 1 if number == 1 else -1)
        if old:
            file.attrs.update(metadata)
    if not old:
        (data / "metadata.json").write_text(json.dumps(metadata))
    return played


def store(group: h5py.Group, name: str, values: list[Any], space: spaces.Space[Any]) -> None:
    if isinstance(space, spaces.Dict):
        for key, part in space.spaces.items():
            store(group.require_group(name), key, [value[key] for value in values], part)
    elif isinstance(space, spaces.Tuple):
        for index, part in enumerate(space.spaces):
            store(group.require_group(name), f"_index_{index}", [value[index] for value in values], part)
    elif isinstance(values[0], str):
        group.create_dataset(name, data=values, dtype=h5py.string_dtype("utf-8"))
    else:
        group[name] = np.array(values)


def read(folder: Path, config: EnvConfig) -> tuple[EnvSpec, list[Episode]]:
    spec = infer_spec(config, make_task_space(config))
    return spec, list(read_folder(folder, spec, replace(tiny_config(CARTPOLE), env=config)))


@pytest.mark.parametrize("old", [False, True])
def test_episodes_are_read_as_the_environment_delivers_them(tmp_path: Path, old: bool):
    played = written(tmp_path / "cartpole" / "random-v0", gym.make("CartPole-v1"), old=old)
    _, episodes = read(tmp_path / "cartpole" / "random-v0", POLE)
    assert [(e.terminated, e.truncated, e.task, e.seed) for e in episodes] == [
        (True, False, "random-v0", 0),
        (False, True, "random-v0", 1),
    ]
    for episode, raw in zip(episodes, played, strict=True):
        assert np.array_equal(episode.obs["observation"], np.array(raw["observations"]))
        assert episode.obs["observation"].dtype == np.float32 and episode.reward.dtype == np.float32
        assert episode.action.tolist() == raw["actions"] and episode.reward.tolist() == raw["rewards"]


def test_nested_observations_and_texts_go_through_the_adapters_conversions(tmp_path: Path):
    pytest.importorskip("minigrid")
    config, env = EnvConfig(id=DOOR), gym.make(DOOR)
    played = written(tmp_path / "door-v0", env)
    spec, episodes = read(tmp_path / "door-v0", config)
    adapter = Adapter(env, spec)
    for episode, raw in zip(episodes, played, strict=True):
        expected = [adapter._adapt(observation) for observation in raw["observations"]]
        for leaf in spec.observations:
            assert np.array_equal(episode.obs[leaf.key], np.stack([seen[leaf.key] for seen in expected]))
            assert episode.obs[leaf.key].dtype == leaf.dtype
    assert decode_text(episodes[0].obs["mission"][0]) == "use the key to open the door and then get to the goal"


def test_actions_that_are_numbers_are_scaled_to_the_agents(tmp_path: Path):
    played = written(tmp_path / "pendulum-v0", gym.make("Pendulum-v1"))
    _, episodes = read(tmp_path / "pendulum-v0", EnvConfig(id="Pendulum-v1", reward_scale=0.5, reward_clip=1.0))
    assert np.allclose(episodes[0].action, np.array(played[0]["actions"]) / 2), "the torque is -2 to 2"
    assert np.allclose(episodes[0].reward, np.clip(np.array(played[0]["rewards"]) / 2, -1, 1))


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(4, start=2),
        spaces.MultiDiscrete(np.array([[3, 2], [4, 5]]), start=np.array([[1, 0], [0, -2]])),
        spaces.MultiBinary((2, 2)),
        spaces.Box(np.array([-1, 0.0, 3.0]), np.array([2, np.inf, 3.0]), dtype=np.float64),
        spaces.Box(-3, 3, (2,), np.int32),
    ],
)
def test_an_environments_action_turned_into_the_agents_and_back_is_the_same(space: spaces.Space[Any]):
    space.seed(0)
    spec = action_spec(space)
    actions = [np.clip(space.sample(), None, 2) if isinstance(space, spaces.Box) else space.sample() for _ in range(20)]
    if isinstance(space, spaces.Box):
        actions = [np.clip(action, space.low, space.high) for action in actions]
    back = [to_environment(spec)(action) for action in from_environment(spec)(np.array(actions))]
    assert np.allclose(back, actions, atol=1e-6)


def test_a_data_set_is_learned_from(tmp_path: Path):
    written(tmp_path / "pole-v0", gym.make("CartPole-v1"), episodes=6)
    job = Pretrainer(asking(str(tmp_path / "pole-v0"), tiny_config(CARTPOLE)), tmp_path)
    batch = job.data.training.sample(4, 8, job.rng, job.mix)
    assert np.isfinite(float(job.learner.update(batch, job.timer, policy=False)["model/total"]))
    assert job.data.episodes == 6 and job.data.held_out >= 1


def test_parts_of_tuples_and_optional_parts_are_found(tmp_path: Path):
    space = spaces.Tuple([spaces.Discrete(3), spaces.Dict(a=spaces.Box(0, 1, (2,), np.float32))])
    made: dict[str, Any] = {"id": "tests.envs.odd:Fixed-v0", "kwargs": {"observation": space}, "holdout": False}
    played = written(tmp_path / "set-v0", gym.make(made["id"], **made["kwargs"]))
    _, (episode, _) = read(tmp_path / "set-v0", EnvConfig(**made, modalities={"1": {"a": "optional"}}))
    assert episode.obs["0"][:, 0].tolist() == [value[0] for value in played[0]["observations"]]
    assert np.array_equal(episode.obs["1.a"], np.stack([value[1]["a"] for value in played[0]["observations"]]))
    assert episode.obs["1.a?"].tolist() == [[1]] * (ENDS + 1)


PICTURE = spaces.Box(0, 255, (40, 32, 3), np.uint8)
JPEGS: dict[str, Any] = {"id": "tests.envs.odd:Fixed-v0", "kwargs": {"observation": PICTURE}, "holdout": False}


def jpeg(colour: int, height: int = 40) -> np.ndarray:
    file = io.BytesIO()
    Image.new("RGB", (32, height), (colour, 0, 0)).save(file, format="JPEG")
    return np.frombuffer(file.getvalue(), np.uint8)


def write_jpegs(folder: Path, images: list[np.ndarray]) -> None:
    written(folder, gym.make("tests.envs.odd:Fixed-v0", observation=PICTURE), episodes=1)
    with h5py.File(folder / "data" / "main_data.hdf5", "r+") as file:
        del file["episode_0/observations"]
        array = file["episode_0"].create_dataset("observations", (len(images),), h5py.vlen_dtype(np.uint8))
        for index, image in enumerate(images):
            array[index] = image


def test_images_that_minari_keeps_as_jpeg_files_are_decoded(tmp_path: Path):
    write_jpegs(tmp_path, [jpeg(colour) for colour in (0, 60, 120, 250)])
    _, (episode,) = read(tmp_path, EnvConfig(**JPEGS))
    assert episode.obs["observation"].shape == (4, 40, 32, 3)
    assert np.allclose(episode.obs["observation"][:, 7, 7], [[0, 0, 0], [60, 0, 0], [120, 0, 0], [250, 0, 0]], atol=3)


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (jpeg(9, height=41), r"has images of shape \(41, 32, 3\) in place of \(40, 32, 3\)"),
        (np.frombuffer(b"no picture", np.uint8), "cannot identify image file"),
    ],
)
def test_images_that_are_none_or_of_another_size_are_refused(tmp_path: Path, image: np.ndarray, reason: str):
    write_jpegs(tmp_path, [jpeg(0), jpeg(1), image, jpeg(2)])
    with pytest.raises(UserError, match=reason):
        read(tmp_path, EnvConfig(**JPEGS))


def change(name: str, value: Any) -> Callable[[h5py.File], None]:
    def replace_it(file: h5py.File) -> None:
        del file[f"episode_1/{name}"]
        if value is not None:
            file[f"episode_1/{name}"] = value

    return replace_it


def external(file: h5py.File) -> None:
    del file["episode_1/rewards"]
    file["episode_1/rewards"] = h5py.ExternalLink("elsewhere.h5", "/rewards")


def bomb(file: h5py.File) -> None:
    """A file of a few bytes that announces a petabyte."""
    del file["episode_1/rewards"]
    file["episode_1"].create_dataset("rewards", (1 << 47,), "float64", chunks=(8,))


BROKEN: dict[str, Callable[[h5py.File], None]] = {
    "episode_1/rewards is missing": change("rewards", None),
    "episode_1/rewards is missing ": external,
    "episode_1/rewards is not finite": change("rewards", np.array([0, np.nan, 0])),
    "episode_1 goes on after its end": change("terminations", np.array([True, False, True])),
    "episode_1/terminations has shape (2,) in place of (3,)": change("terminations", np.array([False, True])),
    "episode_1/terminations holds other numbers than 0 and 1": change("terminations", np.array([0, 0, 2])),
    "episode_1/terminations holds float64": change("terminations", np.array([0.0, 0.0, 1.0])),
    "Unable to allocate": bomb,
    "episode_1/actions has shape (3, 1) in place of (3,)": change("actions", np.zeros((3, 1), np.int64)),
    "episode_1/actions are not all actions of this environment": change("actions", np.array([0, 1, 2])),
    "episode_1/actions holds float64": change("actions", np.zeros(3)),
    "episode_1/observations has 3 rows for 3 steps, in place of 4": change("observations", np.zeros((3, 4), np.float32)),
    "episode_1/observations has values of shape (5,) in place of (4,)": change("observations", np.zeros((4, 5), np.float32)),
    "episode_1/observations is not finite": change("observations", np.full((4, 4), np.inf, np.float32)),
    "it holds 1 episodes and announces 2": lambda file: file.__delitem__("episode_1"),
}


@pytest.mark.parametrize("reason", BROKEN)
def test_a_broken_data_set_is_refused_with_the_reason(tmp_path: Path, reason: str):
    written(tmp_path / "pole-v0", gym.make("CartPole-v1"))
    with h5py.File(tmp_path / "pole-v0" / "data" / "main_data.hdf5", "r+") as file:
        BROKEN[reason](file)
    with pytest.raises(UserError) as raised:
        read(tmp_path / "pole-v0", POLE)
    assert str(raised.value).startswith(f"Minari data set {tmp_path / 'pole-v0'} cannot be used ({reason.strip()}")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "cannot be used"),
        ("[]", "metadata.json is no JSON object"),
        ("{}", "its observation_space is not stored with it"),
        (json.dumps({"observation_space": {"type": "Odd"}, "action_space": {}}), "a space of type Odd, which is not read"),
        (json.dumps({"observation_space": "[]", "action_space": {}}), "a space that is no JSON object"),
    ],
)
def test_metadata_that_say_too_little_are_refused(tmp_path: Path, text: str, reason: str):
    written(tmp_path, gym.make("CartPole-v1"))
    (tmp_path / "data" / "metadata.json").write_text(text)
    with pytest.raises(UserError, match="Minari data set") as raised:
        read(tmp_path, POLE)
    assert reason in str(raised.value)


def test_a_data_set_of_another_environment_is_refused_with_what_differs(tmp_path: Path):
    written(tmp_path / "pole", gym.make("CartPole-v1"))
    refused = {
        "observation `observation` is Box": EnvConfig(id="Pendulum-v1"),
        "the actions are one of 2 and not one of 3": EnvConfig(id="tests.envs.odd:Fixed-v0", kwargs=FOUR_NUMBERS),
        "env.frame_skip asks for what a Minari data set does not hold": replace(POLE, frame_skip=2),
        "env.rewards asks for": replace(POLE, rewards={"x": {"kind": "environment", "weight": 2.0}}),
    }
    for reason, config in refused.items():
        with pytest.raises(UserError) as raised:
            read(tmp_path / "pole", config)
        assert reason in str(raised.value)


FOUR_NUMBERS = {"observation": spaces.Box(-1, 1, (4,), np.float32), "action": spaces.Discrete(3)}


def test_a_data_set_in_another_format_is_named_as_such(tmp_path: Path):
    written(tmp_path, gym.make("CartPole-v1"))
    (tmp_path / "data" / "main_data.hdf5").unlink()
    with pytest.raises(UserError, match=r"it has no main_data\.hdf5; Minari writes one with data_format='hdf5'"):
        read(tmp_path, POLE)
    assert minari_folder(tmp_path) == tmp_path / "data" and minari_folder(tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    "data",
    [
        {"type": "Box", "dtype": "O", "shape": [2], "low": 0, "high": 1},
        {"type": "Box", "dtype": "float32", "shape": [2], "low": [0, 0, 0], "high": 1},
        {"type": "Graph"},
        "3",
    ],
)
def test_spaces_that_are_none_are_refused(data: Any):
    with pytest.raises(ValueError, match=r"Box|type|object"):
        read_space(data)


def test_spaces_are_read_back_as_they_were():
    for space in (
        spaces.Dict(a=spaces.Discrete(3, start=1), b=spaces.Tuple([spaces.Box(0, 255, (2, 3), np.uint8)])),
        spaces.Box(-np.inf, np.inf, (3,), np.float64),
    ):
        assert read_space(json.dumps(serialized(space))) == space
