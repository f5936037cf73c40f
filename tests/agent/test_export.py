"""Stored episodes become a Minari data set, and come back from it bit for bit, or are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from gymnasium import spaces

from agent import jobs
from agent.config import ExportConfig, JobConfig, RunConfig
from agent.pretrain.data import read_folder
from agent.pretrain.exported import write_exported
from agent.sequences import Episode
from agent.shards import ShardWriter
from envs.errors import UserError
from envs.spaces.actions import action_spec
from envs.spaces.serialized import read_space
from envs.spaces.specs import EnvSpec, ModalitySpec
from tests.agent.streams_data import SPEC, assert_same, new_player
from tests.agent.tiny import CARTPOLE, files, tiny_config

EPISODES = [replace(episode, held_out=i == 1) for i, episode in enumerate(new_player(seed=2).play(60).episodes[:5])]
CONFIG = tiny_config(CARTPOLE)


def asking(data: Path | None, to: Path | None, config: RunConfig = CONFIG) -> RunConfig:
    settings = ExportConfig(*(str(path) if path else None for path in (data, to)))
    return replace(config, job=JobConfig("export"), export=settings)


def shards(folder: Path, **changes: Any) -> Path:
    writer = ShardWriter(folder, SPEC, 3, **changes)
    for episode in EPISODES:
        writer.add(episode)
    writer.flush()
    return folder


def test_episodes_of_all_processes_of_a_run_are_exported(tmp_path: Path):
    shards(tmp_path / "run" / "replay")
    shards(tmp_path / "run" / "replay" / "rank_1")
    assert jobs.run_job(asking(tmp_path / "run", tmp_path / "set"), tmp_path / "out") == 2 * len(EPISODES)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    shards(folder / "run" / "replay", provenance={"environment": "Line-v0", "licence": "MIT"})
    before = files(folder / "run")
    assert jobs.run_job(asking(folder / "run", folder / "line"), folder / "out") == len(EPISODES)
    assert files(folder / "run") == before and not (folder / "out").exists()
    return folder / "line"


def test_episodes_come_back_bit_for_bit_from_the_layout_of_minari(exported: Path):
    assert {path.name for path in (exported / "data").iterdir()} == {"main_data.hdf5", "metadata.json"}
    back = list(read_folder(exported, SPEC, CONFIG))
    assert len(back) == len(EPISODES)
    for left, right in zip(EPISODES, back, strict=True):
        assert_same(left, right)
    metadata = json.loads((exported / "data" / "metadata.json").read_text())
    assert metadata["total_episodes"] == 5 and metadata["total_steps"] == sum(map(len, EPISODES))
    assert metadata["strata_provenance"]["licence"] == "MIT"


def test_imagined_episodes_are_read_back_only_if_asked_for(tmp_path: Path):
    imagined = [EPISODES[0], replace(EPISODES[1], synthetic=True)]
    write_exported(tmp_path / "dreamt", SPEC, imagined, {})
    with pytest.raises(UserError, match=r"Minari data set .*dreamt holds imagined episodes: .*replay\.synthetic=true"):
        list(read_folder(tmp_path / "dreamt", SPEC, CONFIG))
    asked = replace(CONFIG, replay=replace(CONFIG.replay, synthetic=True))
    for left, right in zip(imagined, read_folder(tmp_path / "dreamt", SPEC, asked), strict=True):
        assert_same(left, right)


def test_minari_itself_reads_what_is_exported(exported: Path):
    minari = pytest.importorskip("minari", reason="the package minari is not installed")
    data = minari.MinariDataset(exported / "data")
    assert data.total_episodes == len(EPISODES) and data.total_steps == sum(map(len, EPISODES))
    for ours, theirs in zip(EPISODES, data.iterate_episodes(), strict=True):
        assert np.array_equal(theirs.observations["view.image"], ours.obs["view.image"])
        assert theirs.observations["mission"] == ["go"] * (len(ours) + 1)
        assert np.array_equal(theirs.actions, ours.action) and np.array_equal(theirs.rewards, ours.reward)
        assert (theirs.terminations[-1], theirs.truncations[-1]) == (ours.terminated, ours.truncated)
        assert data.action_space.contains(theirs.actions[0])
        first = {key: values[0] for key, values in theirs.observations.items()}
        assert data.observation_space.contains(first)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(4, start=2),
        spaces.MultiDiscrete(np.array([[3, 2], [4, 5]]), start=np.array([[1, 0], [0, -2]])),
        spaces.MultiBinary((2, 2)),
        spaces.Box(np.array([-1, 0.0, 3.0], np.float32), np.array([2, 5.0, 4.0], np.float32)),
    ],
)
def test_actions_of_every_kind_are_the_environments_own_and_come_back_exactly(tmp_path: Path, space: spaces.Space[Any]):
    action = action_spec(space)
    spec = EnvSpec((ModalitySpec("observation", "vector", (2,), "float32"),), action)
    rng = np.random.default_rng(0)
    taken = rng.uniform(-1, 1, (3, *action.shape)) if action.kind == "box" else rng.integers(0, 2, (3, *action.shape))
    zeros = np.zeros(3, np.float32)
    episode = Episode(
        {"observation": rng.random((4, 2), np.float32)}, taken.astype(action.agent_dtype), zeros, zeros, False, True, "t", 5, 0, 3
    )
    write_exported(tmp_path / "set", spec, [episode], {})
    (back,) = read_folder(tmp_path / "set", spec, CONFIG)
    assert_same(back, episode)
    own = read_space(json.loads((tmp_path / "set" / "data" / "metadata.json").read_text())["action_space"])
    with h5py.File(tmp_path / "set" / "data" / "main_data.hdf5") as file:
        raw = file["episode_0/actions"][()]
        assert file["episode_0/observations"].shape == (4, 2), "a bare space stays one"
    assert all(own.contains(value if own.shape else int(value)) for value in raw.astype(own.dtype))


def put(name: str, values: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[name]
        file[name] = values

    return change


STEPS = len(EPISODES[0])
REFUSED: dict[str, Callable[[h5py.File], Any]] = {
    "episode_0 does not match its checksum": put("episode_0/rewards", np.ones(STEPS, np.float32)),
    "episode_0/rewards is not finite": put("episode_0/rewards", np.full(STEPS, np.nan, np.float32)),
    "episode_0 does not end at its last step": put("episode_0/terminations", np.ones(STEPS, bool)),
    "episode_0/truncations has shape": put("episode_0/truncations", np.ones(STEPS + 1, bool)),
    "episode_0/actions are not all actions": put("episode_0/actions", np.full(STEPS, 7)),
    "episode_0/actions holds float64": put("episode_0/actions", np.zeros(STEPS)),
    "episode_0/observations/facing is": put("episode_0/observations/facing", np.zeros((STEPS, 1), np.int64)),
    "episode_0/observations/stamp is missing": lambda file: file.__delitem__("episode_0/observations/stamp"),
    "it holds 4 episodes and announces 5": lambda file: file.__delitem__("episode_4"),
    "sha256": lambda file: file["episode_0"].attrs.__delitem__("sha256"),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_was_altered_in_between_is_refused(tmp_path: Path, reason: str):
    write_exported(tmp_path / "set", SPEC, EPISODES, {})
    with h5py.File(tmp_path / "set" / "data" / "main_data.hdf5", "r+") as file:
        REFUSED[reason](file)
    with pytest.raises(UserError, match="Minari data set") as raised:
        list(read_folder(tmp_path / "set", SPEC, CONFIG))
    assert reason in str(raised.value) and "\n" not in str(raised.value)


def test_a_data_set_of_another_environment_is_refused_with_what_differs(exported: Path):
    with pytest.raises(UserError, match="recorded in another environment, where observation mission is text"):
        list(read_folder(exported, EnvSpec(SPEC.observations[:3], SPEC.action), CONFIG))


def test_nothing_is_written_over_and_nothing_bad_is_exported(exported: Path, tmp_path: Path):
    cases = [
        (asking(None, tmp_path / "new"), "job=export needs export.data=FOLDER"),
        (asking(tmp_path, tmp_path / "new"), "holds no stored episodes"),
        (asking(exported.parent / "run", exported), "is there already: give a new folder"),
        (asking(shards(tmp_path / "made", synthetic={"run": "first"}), tmp_path / "new"), "holds imagined episodes"),
    ]
    for config, reason in cases:
        with pytest.raises(UserError, match=reason):
            jobs.run_job(config, tmp_path / "out")
    with pytest.raises(KeyError):  # it breaks off midway: the same folder can be given again
        write_exported(tmp_path / "new", SPEC, [EPISODES[0], replace(EPISODES[1], obs={})], {})
    assert not (tmp_path / "new").exists()
    write_exported(tmp_path / "new", SPEC, EPISODES, {})
    assert [path.name for path in tmp_path.glob("*new*")] == ["new"]
