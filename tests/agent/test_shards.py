"""Shards are whole or absent, give back what was written, and are refused in one sentence where they are damaged."""

from __future__ import annotations

import dataclasses
import errno
import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from agent.replay import Episode, Replay, SampleMix
from agent.shards import ShardReader, ShardWriter, set_aside, shard_names
from envs.errors import UserError
from envs.spaces.specs import ActionSpec, EnvSpec
from tests.agent.streams_data import SPEC, TASKS, assert_same, new_player

EPISODES = new_player(seed=11).play(60).episodes


def write(folder: Path, episodes: list[Episode] = EPISODES, per_shard: int = 4) -> ShardWriter:
    writer = ShardWriter(folder, SPEC, per_shard)
    for episode in episodes:
        writer.add(episode)
    writer.flush()
    return writer


def refusal(folder: Path, spec: EnvSpec = SPEC) -> str:
    """The one sentence with which a folder is refused."""
    with pytest.raises(UserError) as error:
        list(ShardReader(folder, spec).episodes())
    message = str(error.value)
    assert "\n" not in message and message.startswith("Replay shard ") and message.endswith(".")
    return message


def test_episodes_come_back_byte_for_byte_and_in_order(tmp_path: Path):
    write(tmp_path)
    back = list(ShardReader(tmp_path, SPEC).episodes())
    assert len(back) == len(EPISODES) > 12
    for left, right in zip(EPISODES, back, strict=True):
        assert_same(left, right)


def test_a_replay_refilled_from_shards_samples_as_the_one_that_wrote_them(tmp_path: Path):
    player = new_player(row_capacity=40, seed=4).play(90)
    write(tmp_path, player.episodes)
    loaded = Replay(SPEC, 3, 120, TASKS)
    loaded.load(ShardReader(tmp_path, SPEC).episodes(), same_rows=True)
    loaded.load_open(player.replay.open_episodes())
    ours, theirs = (replay.sample(50, 8, np.random.default_rng(1), SampleMix()) for replay in (player.replay, loaded))
    assert_same(ours, theirs)


def test_a_shard_is_published_when_it_is_full_or_flushed(tmp_path: Path):
    writer = ShardWriter(tmp_path, SPEC, episodes_per_shard=3)
    for episode in EPISODES[:5]:
        writer.add(episode)
    assert shard_names(tmp_path) == writer.names == ["shard_000000.h5"]
    assert writer.flush() == tmp_path / "shard_000001.h5"
    assert writer.flush() is None
    assert shard_names(tmp_path) == writer.names == ["shard_000000.h5", "shard_000001.h5"]


def test_the_layout_is_close_to_minaris(tmp_path: Path):
    episode = EPISODES[0]
    write(tmp_path, [episode])
    with h5py.File(tmp_path / "shard_000000.h5") as file:
        group = file["episode_0"]
        assert json.loads(file.attrs["spec"])["action"]["size"] == 7
        assert group.attrs["id"] == 0 and group.attrs["total_steps"] == len(episode) and group.attrs["seed"] == episode.seed
        assert set(group) == {"observations", "actions", "rewards", "terminations", "truncations", "log_probs"}
        assert group["observations/view.image"].shape == (len(episode) + 1, 3, 3, 2)
        assert group["terminations"].shape == group["actions"].shape == (len(episode),)
        assert (group["terminations"][-1], group["truncations"][-1]) == (episode.terminated, episode.truncated)


def test_a_new_writer_numbers_on_from_what_is_there(tmp_path: Path):
    write(tmp_path, EPISODES[:8])
    assert write(tmp_path, EPISODES[8:10]).names == ["shard_000000.h5", "shard_000001.h5", "shard_000002.h5"]


def test_a_checkpoint_names_the_shards_it_knew(tmp_path: Path):
    write(tmp_path)
    known = ["shard_000000.h5", "shard_000001.h5"]
    assert len(list(ShardReader(tmp_path, SPEC).episodes(known))) == 8
    before = (tmp_path / "shard_000002.h5").read_bytes()
    moved = set_aside(tmp_path, known)
    assert shard_names(tmp_path) == known and (tmp_path / "shard_000002.h5.orphan").read_bytes() == before
    assert len(moved) == -(-len(EPISODES) // 4) - 2
    assert write(tmp_path, EPISODES[:1]).names[-1] == "shard_000002.h5"
    assert [path.name for path in set_aside(tmp_path, known)] == ["shard_000002.h5.orphan.orphan"], "nothing is overwritten"


def test_a_disk_that_fills_up_amid_a_shard_says_so_and_nothing_is_lost(tmp_path: Path):
    writer = write(tmp_path, [], per_shard=len(EPISODES) + 1)
    for episode in EPISODES:
        writer.add(episode)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3_000, before[1]))  # less than a shard, more than what HDF5 writes of it first
    try:
        with pytest.raises(OSError) as error:
            writer.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert error.value.errno == errno.EFBIG and shard_names(tmp_path) == []
    writer.flush()
    assert len(list(ShardReader(tmp_path, SPEC).episodes())) == len(EPISODES)


def test_a_shard_that_is_gone_is_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"shard_000007\.h5 is missing"):
        list(ShardReader(tmp_path, SPEC).episodes(["shard_000007.h5"]))


def test_only_as_many_of_the_newest_shards_are_read_as_are_asked_for(tmp_path: Path):
    write(tmp_path, EPISODES[:12])
    newest = sum(len(episode) + 1 for episode in EPISODES[8:12])

    def read(records: int) -> int:
        return len(list(ShardReader(tmp_path, SPEC).episodes(newest_records=records)))

    assert [read(0), read(newest), read(newest + 1), read(10**6)] == [0, 4, 8, 12]


def test_a_writer_killed_while_writing_leaves_only_a_name_that_no_reader_looks_at(tmp_path: Path):
    write(tmp_path, EPISODES[:4])
    script = (
        "import os, signal, sys; from pathlib import Path\n"
        "import agent.shards as shards; from tests.agent import streams_data as data\n"
        "shards.sync = lambda path: os.kill(os.getpid(), signal.SIGKILL)\n"
        "writer = shards.ShardWriter(Path(sys.argv[1]), data.SPEC)\n"
        "[writer.add(episode) for episode in data.new_player().play(30).episodes]\n"
        "writer.flush()"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=Path(__file__).parents[2], check=False)
    assert killed.returncode == -9
    assert sorted(path.name for path in tmp_path.iterdir()) == [".shard_000001.h5.tmp", "shard_000000.h5"]
    assert len(list(ShardReader(tmp_path, SPEC).episodes())) == 4
    assert write(tmp_path, EPISODES[4:8]).names == ["shard_000000.h5", "shard_000001.h5"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shard_000000.h5", "shard_000001.h5"]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_shard_is_refused_by_name_and_left_as_it_was(tmp_path: Path, share: float):
    write(tmp_path, EPISODES[:8])
    path = tmp_path / "shard_000001.h5"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    damaged = path.read_bytes()
    assert str(path) in refusal(tmp_path)
    assert path.read_bytes() == damaged


@pytest.mark.parametrize("name", ["observations/view.image", "rewards"])
def test_a_flipped_bit_is_noticed(tmp_path: Path, name: str):
    write(tmp_path, EPISODES[:1])
    path = tmp_path / "shard_000000.h5"
    with h5py.File(path) as file:
        dataset = file["episode_0"][name]
        where = dataset.id.get_chunk_info(0).byte_offset if dataset.chunks else dataset.id.get_offset()
    data = bytearray(path.read_bytes())
    data[where + 9] ^= 4
    path.write_bytes(data)
    assert "shard_000000.h5" in refusal(tmp_path)


def put(name: str, values: np.ndarray) -> Callable[[h5py.File], None]:
    """Replace a dataset."""

    def change(file: h5py.File) -> None:
        del file[name]
        file[name] = values

    return change


def announce(name: str, value: object) -> Callable[[h5py.File], None]:
    """Change an attribute of the file or of episode 0."""

    def change(file: h5py.File) -> None:
        (file if name in file.attrs else file["episode_0"]).attrs[name] = value

    return change


def remove(name: str) -> Callable[[h5py.File], None]:
    return lambda file: file.__delitem__(name)


STEPS = len(EPISODES[0])
FAULTS = {
    "a reward is NaN": (put("episode_0/rewards", np.full(STEPS, np.nan, np.float32)), "episode_0/rewards is not finite"),
    "a reward is infinite": (put("episode_0/rewards", np.full(STEPS, np.inf, np.float32)), "episode_0/rewards is not finite"),
    "a vector is NaN": (
        put("episode_0/observations/stamp", np.full((STEPS + 1, 2), np.nan, np.float32)),
        "episode_0/observations/stamp is not finite",
    ),
    "an action is unknown": (
        put("episode_0/actions", np.full(STEPS, 7)),
        "episode_0/actions are not all actions of this environment",
    ),
    "it ends nowhere": (
        lambda file: [put(f"episode_0/{name}", np.zeros(STEPS, bool))(file) for name in ("terminations", "truncations")],
        "episode_0 does not end at its last step",
    ),
    "it ends before its end": (put("episode_0/terminations", np.ones(STEPS, bool)), "episode_0 does not end at its last step"),
    "too few steps": (
        put("episode_0/actions", np.zeros(STEPS - 1, int)),
        f"episode_0/actions is ({STEPS - 1},) int64 in place of",
    ),
    "another type": (put("episode_0/rewards", np.zeros(STEPS)), "episode_0/rewards is"),
    "the last observation is missing": (
        put("episode_0/observations/facing", np.zeros((STEPS, 1), int)),
        f"episode_0/observations/facing is ({STEPS}, 1) int64 in place of ({STEPS + 1}, 1) int64",
    ),
    "a field is missing": (remove("episode_0/log_probs"), "log_probs"),
    "an episode is missing": (remove("episode_1"), "episode_1"),
    "an episode too many": (announce("total_episodes", 1), "it holds 2 groups and announces 1 episodes"),
    "no steps": (announce("total_steps", 0), ""),
    "another format": (announce("strata_format", 99), "its format is 99, this version reads 1"),
    "no header": (lambda file: file.attrs.__delitem__("strata_format"), "its format is None"),
    "a broken spec": (announce("spec", "{"), ""),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_shard_at_odds_with_itself_is_refused(tmp_path: Path, name: str):
    change, reason = FAULTS[name]
    write(tmp_path, EPISODES[:2])
    with h5py.File(tmp_path / "shard_000000.h5", "r+") as file:
        if name == "no steps":
            file["episode_0"].attrs["total_steps"] = 0
        else:
            change(file)
    message = refusal(tmp_path)
    assert str(tmp_path / "shard_000000.h5") in message and reason in message


OTHER_VIEW = tuple(dataclasses.replace(leaf, shape=(5, 5, 2)) if leaf.kind == "grid" else leaf for leaf in SPEC.observations)
OTHERS = {
    "observation view.image is grid (3, 3, 2) uint8 and not grid (5, 5, 2) uint8": EnvSpec(OTHER_VIEW, SPEC.action),
    "observation mission is text (8,) uint8 and not absent": EnvSpec(SPEC.observations[:3], SPEC.action),
    "the actions are one of 7 and not one of 6": EnvSpec(SPEC.observations, ActionSpec("discrete", 6)),
}


@pytest.mark.parametrize("difference", OTHERS)
def test_a_shard_of_another_environment_is_refused_with_what_differs(tmp_path: Path, difference: str):
    write(tmp_path, EPISODES[:2])
    message = refusal(tmp_path, OTHERS[difference])
    assert "recorded in another environment" in message and difference in message


def test_where_a_spec_was_inferred_from_does_not_matter(tmp_path: Path):
    write(tmp_path, EPISODES[:2])
    renamed = EnvSpec(tuple(dataclasses.replace(leaf, origin="Box(...)") for leaf in SPEC.observations), SPEC.action)
    assert len(list(ShardReader(tmp_path, renamed).episodes())) == 2
