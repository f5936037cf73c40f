"""An audit finds everything that is wrong with stored episodes, says what is known of them, and changes nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from omegaconf import OmegaConf

import run
from agent import jobs
from agent.audit.folder import FolderAudit, audit_folder, find_folders
from agent.audit.job import add_layouts
from agent.checksums import header
from agent.config import AuditConfig, JobConfig
from agent.provenance import provenance
from agent.sequences import Episode
from agent.shards import ShardReader, ShardWriter
from agent.trainer import Trainer
from envs import make_envs, make_task_space
from envs.errors import UserError
from envs.spaces.specs import EnvSpec
from tests.agent.streams_data import SPEC, assert_same, new_player
from tests.agent.tiny import DOORKEY, files, play, tiny_config

EPISODES = new_player(seed=11).play(60).episodes[:8]
ORIGIN = {"environment": "Line-v0", "seed": 3, "source": "real", "licence": "CC-BY-4.0", "versions": {"numpy": "2"}}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shards of four episodes. Copy them before changing anything."""
    return write(tmp_path_factory.mktemp("written") / "replay", EPISODES)


@pytest.fixture
def stored(written: Path, tmp_path: Path) -> Path:
    return shutil.copytree(written, tmp_path / "replay")


def write(folder: Path, episodes: list[Episode], **changes: Any) -> Path:
    writer = ShardWriter(folder, SPEC, 4, **({"provenance": ORIGIN} | changes))
    for episode in episodes:
        writer.add(episode)
    writer.flush()
    return folder


def edit(folder: Path, change: Callable[[h5py.File], object], name: str = "shard_000000.h5") -> FolderAudit:
    """The audit after a change to a shard."""
    with h5py.File(folder / name, "r+") as file:
        change(file)
    return audit_folder(folder)


def put(name: str, values: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[name]
        file[name] = values

    return change


def test_sound_shards_are_clean_and_say_what_they_are(stored: Path):
    before = files(stored)
    audit = audit_folder(stored)
    assert (audit.faults, audit.notes) == ([], []) and files(stored) == before
    assert [shard.sums for shard in audit.shards] == ["sha256"] * 2
    assert sum(shard.steps for shard in audit.shards) == sum(len(episode) for episode in EPISODES)
    expected = [float(episode.reward.sum(dtype=np.float64)) for episode in EPISODES]
    assert [value for shard in audit.shards for value in shard.returns] == expected
    assert sum(audit.shards[0].tasks.values()) == 4 and audit.told("licence") == ["CC-BY-4.0"]
    assert audit.shards[0].compression == "gzip"


STEPS = len(EPISODES[0])
ALTERED: dict[str, tuple[Callable[[h5py.File], Any], str]] = {
    "an action": (put("episode_0/actions", np.zeros(STEPS, np.int64)), "episode_0 does not match its checksum"),
    "a reward": (put("episode_0/rewards", np.ones(STEPS, np.float32)), "episode_0 does not match its checksum"),
    "NaN": (put("episode_0/rewards", np.full(STEPS, np.nan, np.float32)), "episode_0/rewards is not finite"),
    "bad flags": (put("episode_0/terminations", np.ones(STEPS, bool)), "episode_0 does not end at its last step and there alone"),
    "a length": (
        put("episode_0/truncations", np.ones(STEPS + 1, bool)),
        f"episode_0/truncations is ({STEPS + 1},) bool in place",
    ),
    "the seed": (lambda file: file["episode_0"].attrs.modify("seed", 5), "episode_0 does not match its checksum"),
    "the task": (lambda file: file["episode_0"].attrs.modify("task", "other"), "episode_0 does not match its checksum"),
    "held out": (lambda file: file["episode_0"].attrs.modify("held_out", True), "episode_0 does not match its checksum"),
    "no checksum": (lambda file: file["episode_0"].attrs.__delitem__("sha256"), "its header does not match its checksum"),
    "the licence": (lambda file: file.attrs.modify("provenance", "{}"), "its header does not match its checksum"),
    "the mark": (lambda file: file.attrs.create("synthetic", "{}"), "its header does not match its checksum"),
    "the count": (lambda file: file.attrs.modify("total_steps", 1), "steps and announces 1"),
    "a group": (lambda file: file.create_group("more"), "holds 5 groups and announces 4 episodes"),
    "a link": (
        lambda file: [file.__delitem__("episode_0"), file.__setitem__("episode_0", h5py.ExternalLink("other.h5", "/x"))],
        "episode_0 is a link",
    ),
    "the format": (lambda file: file.attrs.modify("strata_format", 9), "is of format 9, this version reads 1"),
    "the spec": (lambda file: file.attrs.modify("spec", "{"), "is unreadable"),
}


@pytest.mark.parametrize("name", ALTERED)
def test_what_was_altered_is_found_and_named(stored: Path, name: str):
    change, reason = ALTERED[name]
    audit = edit(stored, change)
    assert any(reason in fault for fault in audit.faults) and all(fault.startswith("shard_000000.h5") for fault in audit.faults)
    with pytest.raises(UserError):  # what is found is not learned from either
        list(ShardReader(stored, SPEC).episodes())


def test_one_bad_episode_does_not_hide_the_others(stored: Path):
    audit = edit(stored, put("episode_1/actions", np.zeros(len(EPISODES[1]), np.int64)))
    assert len(audit.faults) == 1 and len(audit.shards[0].returns) == 3
    again = edit(stored, put("episode_3/rewards", np.zeros(1)))
    assert [fault.split(" ")[1].partition("/")[0] for fault in again.faults] == ["episode_1", "episode_3"]


def test_a_truncated_shard_is_unreadable(stored: Path):
    path = stored / "shard_000001.h5"
    path.write_bytes(path.read_bytes()[:3000])
    audit = audit_folder(stored)
    assert len(audit.faults) == 1 and audit.faults[0].startswith("shard_000001.h5 is unreadable")


def test_a_shard_that_is_gone_and_files_that_do_not_belong_are_named(stored: Path):
    (stored / "shard_000000.h5").rename(stored / "shard_000000.h5.orphan")
    (stored / ".shard_000002.h5.tmp").write_bytes(b"half")
    (stored / "notes.txt").write_text("mine")
    audit = audit_folder(stored)
    assert audit.faults == ["notes.txt is no shard: it does not belong here", "shard_000000.h5 is missing"]
    assert ["killed" in note or "went on from" in note for note in audit.notes] == [True, True]


def test_copies_are_found_and_chance_is_told_from_them(stored: Path):
    shutil.copy(stored / "shard_000000.h5", stored / "shard_000002.h5")
    audit = audit_folder(stored)
    assert len(audit.faults) == 4
    assert audit.faults[0] == "shard_000002.h5/episode_0 is a copy of shard_000000.h5/episode_0"
    again = [replace(EPISODES[0], end_step=10**6)]
    shutil.rmtree(stored)
    audit = audit_folder(write(stored, EPISODES[:4] + again))
    assert audit.faults == [] and "1 episodes went exactly as another one did" in audit.notes[0]


def test_what_must_not_be_mixed_is_found(tmp_path: Path):
    folder = write(tmp_path / "made", EPISODES[:4])
    write(folder, EPISODES[4:8], synthetic={"run": "first"}, provenance=ORIGIN | {"source": "synthetic"})
    assert audit_folder(folder).faults == ["shard_000001.h5 is synthetic among real ones"]
    folder = write(tmp_path / "says", EPISODES[:4], synthetic={"run": "first"})
    assert audit_folder(folder).faults == ["shard_000000.h5 says of itself that it is real, and is marked as synthetic"]
    folder = write(tmp_path / "other", EPISODES[:4])
    write(folder, EPISODES[4:8], provenance=ORIGIN | {"environment": "Pole-v1", "licence": None, "versions": {"numpy": "3"}})
    audit = audit_folder(folder)
    assert audit.faults == ["environments are mixed: Line-v0, Pole-v1"]
    assert audit.notes == ["the shards are of different versions of libraries"]
    folder = write(tmp_path / "spec", EPISODES[:4])
    poorer = ShardWriter(folder, EnvSpec(SPEC.observations[:3], SPEC.action), 4, provenance=ORIGIN)
    for episode in EPISODES[4:8]:
        poorer.add(replace(episode, obs={key: episode.obs[key] for key in list(episode.obs)[:3]}))
    assert "shard_000001.h5 is of another environment than shard_000000.h5" in audit_folder(folder).faults[0]


@pytest.mark.parametrize("crc", [True, False])
def test_shards_of_before_still_load_and_are_called_so(stored: Path, crc: bool):
    for path in stored.glob("*.h5"):
        with h5py.File(path, "r+") as file:
            for name in ("sha256", "provenance"):
                del file.attrs[name]
            for group in file.values():
                del group.attrs["sha256"]
                if not crc:
                    del group.attrs["crc32"]
    for left, right in zip(EPISODES, ShardReader(stored, SPEC).episodes(), strict=True):
        assert_same(left, right)
    audit = audit_folder(stored)
    assert audit.faults == [] and len(audit.notes) == 2 and "do not say where they come from" in audit.notes[1]
    assert ("checksums of their arrays alone" if crc else "have no checksums") in audit.notes[0]


def test_a_bomb_of_announced_sizes_is_refused(stored: Path):
    def change(file: h5py.File) -> None:
        steps = 1 << 50
        file["episode_0"].attrs.modify("total_steps", steps)
        del file["episode_0/observations/stamp"]
        file["episode_0/observations"].create_dataset("stamp", (steps + 1, 2), "float32", chunks=(4, 2))

    (fault,) = edit(stored, change).faults[:1]
    assert fault.startswith("shard_000000.h5: ")
    with pytest.raises(UserError, match=r"shard_000000\.h5 cannot be used"):
        list(ShardReader(stored, SPEC).episodes())


def test_episodes_on_layouts_kept_for_evaluation_are_found(tmp_path: Path):
    pytest.importorskip("minigrid")
    config = tiny_config(DOORKEY | {"tasks": ["DoorKey-6x6"]})
    trainer = Trainer(config, tmp_path)
    play(trainer, 128)
    trainer.writer.flush()
    OmegaConf.save(OmegaConf.structured(config), tmp_path / "config.yaml")
    audit = audit_folder(tmp_path / "replay")
    add_layouts(audit, 100)
    assert audit.faults == [] and len(audit.shards[0].starts) > 1
    tasks = make_task_space(config.env)
    testing = make_envs(config.env, tasks, 1, split="test")
    obs = testing.reset([tasks.hardest.with_seed(9)])
    testing.close()
    start = audit.shards[0].starts[1]
    start.obs.update({key: value[0] for key, value in obs.items()})
    audit.shards[0].starts[1] = replace(start, seed=9)
    add_layouts(audit, 100)
    assert audit.faults == [f"{start.where} was played on a layout of the test split, which training must not see"]


def test_a_runs_shards_say_what_it_was(tmp_path: Path):
    config = tiny_config(DOORKEY, seed=7)
    config = replace(config, replay=replace(config.replay, licence="MIT"))
    told = provenance(config)
    assert told["environment"] == "doorkey" and told["tasks"] == ["DoorKey-5x5", "DoorKey-6x6"] and told["split"] == "train"
    assert (told["seed"], told["source"], told["licence"]) == (7, "real", "MIT")
    assert {"python", "gymnasium", "numpy", "h5py", "torch", "minigrid"} <= told["versions"].keys()
    assert json.loads(json.dumps(told)) == told


def test_the_job_prints_what_there_is_and_answers_how_much_is_wrong(
    stored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    config = replace(tiny_config(DOORKEY), job=JobConfig("audit"), audit=AuditConfig(str(stored)))
    assert jobs.run_job(config, tmp_path / "out") == 0.0
    out = capsys.readouterr().out
    assert "Verdict: clean" in out and "CC-BY-4.0" in out and not (tmp_path / "out").exists()
    (stored / "odd.bin").write_bytes(b"")
    assert jobs.run_job(config, tmp_path / "out") == 1.0
    assert "wrong: odd.bin is no shard: it does not belong here\nVerdict: 1 found wrong" in capsys.readouterr().out


def test_the_command_ends_with_exit_code_1_where_something_is_wrong(stored: Path, monkeypatch: pytest.MonkeyPatch):
    (stored / "odd.bin").write_bytes(b"")
    monkeypatch.chdir(stored)
    monkeypatch.setattr("sys.argv", ["run.py", "job=audit", "audit.data=.", "hydra.run.dir=out"])
    with pytest.raises(SystemExit) as ended:
        run.main()
    assert ended.value.code == 1


def test_shards_of_other_processes_are_looked_through_by_themselves(stored: Path):
    other = write(stored / "rank_1", EPISODES[:1])
    (stored / "rank_2").mkdir()  # that one has finished no episode yet
    (stored / ".shard_000000.h5.fetched").write_bytes(b"half")
    found = audit_folder(stored)
    assert found.faults == [] and find_folders([str(stored)]) == [stored, other]
    assert found.notes == [
        ".shard_000000.h5.fetched is half of a copy from a remote folder that was broken off: nothing reads it"
    ]


def test_folders_are_found_below_what_is_given_or_refused(stored: Path, tmp_path: Path):
    other = shutil.copytree(stored, tmp_path / "b" / "replay")
    assert find_folders([str(tmp_path)]) == [other, stored] == find_folders([str(other), str(tmp_path)])
    (tmp_path / "empty").mkdir()
    for given, reason in (("empty", "holds no stored episodes"), ("nowhere", "does not exist")):
        with pytest.raises(UserError, match=f"audit.data=.*{given} {reason}"):
            find_folders([str(tmp_path / given)])
    config = replace(tiny_config(DOORKEY), job=JobConfig("audit"), audit=AuditConfig(str(other), layouts=-1))
    with pytest.raises(UserError, match=r"audit\.layouts=-1 is too few"):
        jobs.run_job(config, tmp_path)
    with pytest.raises(UserError, match=r"job=audit needs audit\.data=FOLDER"):
        jobs.run_job(replace(tiny_config(DOORKEY), job=JobConfig("audit")), tmp_path)


def test_the_header_covers_every_attribute_that_says_something(stored: Path):
    with h5py.File(stored / "shard_000000.h5") as file:
        stated = [file[f"episode_{index}"].attrs["sha256"] for index in range(4)]
        whole = dict(file.attrs)
        assert header(whole, stated) == whole["sha256"]
        for name in whole.keys() - {"sha256"}:
            assert header(whole | {name: "other"}, stated) != whole["sha256"]
        assert header(whole, stated[::-1]) != whole["sha256"]
