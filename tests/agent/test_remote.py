"""Shards in a remote folder: copied there whole, fetched where they are missing; what cannot be reached is refused."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent import jobs
from agent.checkpointing import restore
from agent.history import History
from agent.pretrain.data import data_folders, read_folder
from agent.processes import Processes
from agent.remote import RemoteShards
from agent.replay_settings import send_left
from agent.shards import ShardReader, ShardWriter, set_aside, shard_names
from agent.trainer import Trainer
from envs.errors import UserError
from tests.agent.streams_data import SPEC, TASKS, assert_same, new_player
from tests.agent.test_resume import checkpoint
from tests.agent.tiny import CARTPOLE, DOORKEY, play, tiny_config

fsspec = pytest.importorskip("fsspec", reason="the package fsspec is not installed")
EPISODES = new_player(seed=11).play(40).episodes[:6]
URL = "memory://strata/run"


@pytest.fixture
def store() -> Iterator[RemoteShards]:
    files = fsspec.filesystem("memory")
    files.store.clear()
    yield RemoteShards(URL)
    files.store.clear()


def written(folder: Path, remote: RemoteShards) -> ShardWriter:
    writer = ShardWriter(folder, SPEC, 2, remote=remote)
    for episode in EPISODES:
        writer.add(episode)
    return writer


def test_every_shard_is_copied_and_fetched_where_it_is_missing(tmp_path: Path, store: RemoteShards):
    names = written(tmp_path / "here", store).names
    assert sorted(store.names()) == names == [f"shard_00000{number}.h5" for number in range(3)]
    (tmp_path / "here" / names[0]).unlink()
    assert ShardWriter(tmp_path / "here", SPEC, remote=store).names == names, "numbers follow those that are elsewhere, too"
    for place in ("here", "there"):
        back = list(ShardReader(tmp_path / place, SPEC, remote=store).episodes())
        for left, right in zip(EPISODES, back, strict=True):
            assert_same(left, right)
        assert shard_names(tmp_path / place) == names
    newest = list(ShardReader(tmp_path / "new", SPEC, remote=store).episodes(newest_records=1))
    assert len(newest) == 2 and shard_names(tmp_path / "new") == names[2:], "what is not asked for is not fetched"


def test_history_is_read_from_what_is_elsewhere(tmp_path: Path, store: RemoteShards):
    names = written(tmp_path / "here", store).names
    batches = []
    for place in ("here", "there"):
        past = History(tmp_path / place, SPEC, TASKS, lambda: names, 0, 100, 1, store)
        batches.append(past.sample(20, 6, 1.0, np.random.default_rng(0)))
    assert batches[0] is not None and batches[1] is not None
    assert_same(batches[0], batches[1])


def test_what_was_written_after_a_checkpoint_is_put_aside_there_too(tmp_path: Path, store: RemoteShards):
    names = written(tmp_path, store).names
    set_aside(tmp_path, names[:1], store)
    assert shard_names(tmp_path, store) == names[:1] and f"{names[2]}.orphan" in store.names()
    written(tmp_path, store)
    set_aside(tmp_path, names[:1], store)
    assert f"{names[2]}.orphan.orphan" in store.names(), "an earlier one is kept"


def test_a_store_that_is_away_for_a_while_loses_nothing(
    tmp_path: Path, store: RemoteShards, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    put_file = store._files.put_file

    def away(*given: object) -> None:
        raise OSError("no route")

    monkeypatch.setattr(store._files, "put_file", away)
    writer = ShardWriter(tmp_path, SPEC, 2, remote=store)
    for episode in EPISODES[:4]:
        writer.add(episode)
    assert store.names() == [] and "2 shards wait to be sent: the remote folder memory://strata/run cannot be used" in caplog.text
    config = replace(tiny_config(CARTPOLE), replay=replace(tiny_config(CARTPOLE).replay, remote=URL))
    send_left(config, writer, Processes())
    assert f"replay.remote={URL}: 2 shards could not be sent and are in the run folder alone" in caplog.text
    monkeypatch.setattr(store._files, "put_file", put_file)
    resumed = ShardWriter(tmp_path, SPEC, 2, remote=RemoteShards(URL))
    caplog.clear()
    send_left(config, resumed, Processes())
    assert sorted(store.names()) == resumed.names == writer.names and not caplog.text, "a resumed run sends them"
    for episode in EPISODES[4:]:
        writer.add(episode)
    assert sorted(store.names()) == writer.names and len(writer.names) == 3


def test_a_data_set_elsewhere_is_read_shard_by_shard(tmp_path: Path, store: RemoteShards):
    written(tmp_path, store)
    folders = data_folders([URL, str(tmp_path)])
    read = [list(read_folder(folder, SPEC, tiny_config(CARTPOLE))) for folder in folders]
    for left, right in zip(*read, strict=True):
        assert_same(left, right)
    assert len(read[0]) == len(EPISODES)
    with pytest.raises(UserError, match="memory://strata/nothing holds no stored episodes"):
        list(read_folder(RemoteShards("memory://strata/nothing"), SPEC, tiny_config(CARTPOLE)))


def test_a_run_goes_on_with_a_replay_that_is_only_elsewhere(tmp_path: Path, store: RemoteShards):
    config = tiny_config(DOORKEY)
    config = replace(config, replay=replace(config.replay, remote=URL))
    stopped = Trainer(config, tmp_path)
    play(stopped, 80)
    path = checkpoint(stopped)
    shutil.rmtree(tmp_path / "replay")
    resumed = Trainer(config, tmp_path)
    restore(resumed, path)
    assert resumed.writer.names == stopped.writer.names and resumed.replay.episodes == stopped.replay.episodes > 0
    ours, theirs = (trainer.replay.sample(20, 8, np.random.default_rng(0), trainer.mix) for trainer in (stopped, resumed))
    assert_same(ours, theirs)


def test_several_processes_fetch_one_shard_at_once(tmp_path: Path, store: RemoteShards):
    writer = written(tmp_path / "here", store)
    (tmp_path / "there").mkdir()
    both, one = threading.Barrier(2), threading.Lock()
    get_file = store._files.get_file

    def together(*args: Any) -> None:
        with one:  # files in memory have one place to read on from, whoever reads
            get_file(*args)
        both.wait(timeout=60)  # both have copied before either gives the shard its name

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(2) as pool:
        patch.setattr(store._files, "get_file", together, raising=False)
        fetched = list(pool.map(lambda _: store.fetch(writer.names[0], tmp_path / "there"), range(2)))
    assert {path.read_bytes() for path in fetched} == {(tmp_path / "here" / writer.names[0]).read_bytes()}
    assert [path.name for path in (tmp_path / "there").iterdir()] == [writer.names[0]]


def test_a_new_run_does_not_write_among_the_shards_of_another(tmp_path: Path, store: RemoteShards):
    written(tmp_path / "other", store)
    config = tiny_config(DOORKEY)
    config = replace(config, replay=replace(config.replay, remote=URL))
    with pytest.raises(UserError, match=r"replay\.remote=memory://strata/run holds shards already: give a new folder"):
        jobs.run_job(config, tmp_path / "run")
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_what_cannot_be_reached_is_refused_in_one_sentence():
    with pytest.raises(UserError, match="the remote folder nonsense://bucket/run cannot be used") as raised:
        RemoteShards("nonsense://bucket/run")
    assert "\n" not in str(raised.value)
