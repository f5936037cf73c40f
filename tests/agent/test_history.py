"""What is on disk alone is sampled evenly, read ahead through a bounded cache, and drawn again alike after a resume."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.history import PIECE, History
from agent.piece_cache import PieceCache
from agent.replay import Episode, Replay, SampleMix
from agent.settings import check_settings
from agent.shards import ShardWriter
from agent.trainer import Trainer
from envs.errors import UserError
from tests.agent.streams_data import SPEC, TASKS, assert_same, new_player, stamps
from tests.agent.test_resume import stop_and_resume
from tests.agent.tiny import DOORKEY, play, tiny_config

EPISODES = new_player(num_envs=1, row_capacity=4000, seed=5).play(400).episodes
RECORDS = sum(len(episode) + 1 for episode in EPISODES)
STREAM = Replay(SPEC, 1, 4000, TASKS)
STREAM.load(EPISODES)


def stored(folder: Path, episodes: list[Episode], per_shard: int = 7, compression: str = "gzip") -> ShardWriter:
    writer = ShardWriter(folder, SPEC, per_shard, compression=compression)
    for episode in episodes:
        writer.add(episode)
    writer.flush()
    return writer


def history(folder: Path, episodes: list[Episode] = EPISODES, capacity: int = 0, cache: int = 100, ahead: int = 2) -> History:
    writer = stored(folder, episodes)
    return History(folder, SPEC, TASKS, lambda: writer.names, capacity, cache, ahead)


@pytest.mark.parametrize("length", [1, 8, 32])
def test_a_slice_is_that_of_the_stream_that_the_episodes_make(tmp_path: Path, length: int):
    past = history(tmp_path)
    assert len(past) == RECORDS
    batch = past.sample(50, length, 1.0, np.random.default_rng(0))
    assert batch is not None and len(batch) == 50
    first = stamps(batch)[1][:, 0]
    rows = np.zeros(50, np.int64)
    assert_same(batch, STREAM._streams.gather(rows, first, length))
    along = past.sample(50, length, 1.0, np.random.default_rng(0), before=70)
    expected = STREAM._streams.gather_with(rows, first, length, 70)
    assert along is not None and along.before is not None and expected.before is not None
    found, along.before = along.before, None
    assert_same(along, batch)
    for b, start in enumerate(first.tolist()):
        held = slice(max(70 - start, 0), None)  # of what comes before the stream only that it is nothing
        assert found.first[b, : held.start].all() and expected.before.first[b, : held.start].all()
        for name in ("action", "reward", "first", "task"):
            assert (getattr(found, name)[b, held] == getattr(expected.before, name)[b, held]).all(), name
        assert (found.obs["stamp"][b, held, 1] == np.arange(max(start - 70, 0), start + 1)).all()


def test_a_long_episode_is_read_in_pieces_that_fit_together(tmp_path: Path):
    player = new_player(num_envs=1, row_capacity=4000, seed=3, end_rate=0).play(3 * PIECE)
    player.end_rate = 2
    player.play(1)
    (episode,) = player.episodes
    past = history(tmp_path, [episode], cache=0, ahead=0)
    batch = past.sample(60, 40, 1.0, np.random.default_rng(0))
    assert batch is not None and past.cache.size == 0
    first = stamps(batch)[1][:, 0]
    assert_same(batch, player.replay._streams.gather(np.zeros(60, np.int64), first, 40))
    assert len({start // PIECE for start in first.tolist()}) == 3


def test_every_slice_of_history_is_equally_likely(tmp_path: Path):
    length, batches, size = 6, 150, 64
    past = history(tmp_path, cache=RECORDS // 10)
    rng = np.random.default_rng(1)
    starts = np.concatenate([stamps(batch)[1][:, 0] for _ in range(batches) if (batch := past.sample(size, length, 1.0, rng))])
    places = RECORDS - length + 1
    expected = batches * size / places
    counts = np.bincount(starts, minlength=places)
    chi_square = ((counts - expected) ** 2 / expected).sum()
    freedom = places - 1
    assert len(counts) == places and abs(chi_square - freedom) < 4 * np.sqrt(2 * freedom)
    assert past.cache.misses > len(past._pieces), "what had no room was read again"


def test_a_batch_is_mixed_of_history_and_memory_as_the_shares_say(tmp_path: Path):
    player = new_player(num_envs=1, row_capacity=200, seed=5).play(1000)
    writer = stored(tmp_path, player.episodes)
    replay, mix = player.replay, SampleMix(recent=0.2, rewarded=0.3, rewarded_cap=1, recent_window=60, history=0.25)
    replay.history = History(tmp_path, SPEC, TASKS, lambda: writer.names, 200, 600, 2)
    rng, length = np.random.default_rng(0), 5
    times = np.concatenate([stamps(replay.sample(32, length, rng, mix))[1][:, 0] for _ in range(80)])
    total, memory = len(player.streams[0]), len(player.streams[0]) - 200
    assert len(replay.history) <= memory, "nothing is in both"
    past = (times < memory).sum()
    recent = (times >= total - 60).sum()
    hits = [time for time in range(memory, total) if player.streams[0][time]["reward"]]

    def share(low: int) -> float:
        """Of rewarded slices, those that begin at `low` or later."""
        starts = [max(np.clip(hit - d, memory, total - length), 0) for hit in hits for d in range(1, length)]
        return float(np.mean(np.array(starts) >= low))

    drawn = len(times)
    later = 0.2 + 0.3 * share(total - 60) + 0.25 * 56 / 196
    for seen, expected in ((past, 0.25), (recent, later)):
        assert abs(seen - drawn * expected) < 4 * np.sqrt(drawn * expected * (1 - expected))


def test_only_what_memory_has_no_room_for_and_training_may_see_is_history(tmp_path: Path):
    kept = [replace(episode, held_out=index % 3 == 0) for index, episode in enumerate(EPISODES)]
    seen = [len(episode) + 1 for episode in kept if not episode.held_out]
    assert len(history(tmp_path / "all", kept)) == sum(seen)
    assert len(history(tmp_path / "some", kept, capacity=sum(seen[-4:]))) == sum(seen[:-4])
    assert len(history(tmp_path / "fewer", kept, capacity=sum(seen[-4:]) + 1)) == sum(seen[:-5])
    assert len(history(tmp_path / "none", kept, capacity=sum(seen))) == 0
    assert history(tmp_path / "nothing", kept, capacity=10**6).sample(4, 8, 1.0, np.random.default_rng(0)) is None


def test_shards_that_are_published_later_join_in(tmp_path: Path):
    writer = stored(tmp_path, EPISODES[:7])
    past = History(tmp_path, SPEC, TASKS, lambda: writer.names, 0, 100, 0)
    before = len(past)
    for episode in EPISODES[7:14]:
        writer.add(episode)
    assert len(past) == before + sum(len(episode) + 1 for episode in EPISODES[7:14])


def test_imagined_episodes_are_refused_unless_wanted(tmp_path: Path):
    writer = ShardWriter(tmp_path, SPEC, 1, synthetic={"run": "first"})
    writer.add(EPISODES[0])
    with pytest.raises(UserError, match=r"shard_000000\.h5 holds imagined episodes \(run first\)"):
        len(History(tmp_path, SPEC, TASKS, lambda: writer.names, 0, 100))
    assert len(History(tmp_path, SPEC, TASKS, lambda: writer.names, 0, 100, synthetic=True)) == len(EPISODES[0]) + 1


def test_what_was_drawn_ahead_is_drawn_again_after_a_resume(tmp_path: Path):
    left, rng = history(tmp_path, ahead=3), np.random.default_rng(0)
    left.sample(8, 6, 0.7, rng)
    state, random = left.state_dict(), rng.bit_generator.state
    names = [path.name for path in sorted(tmp_path.glob("shard_*.h5"))]
    right, again = History(tmp_path, SPEC, TASKS, lambda: names, 0, 0, 3), np.random.default_rng()
    again.bit_generator.state = random
    right.load_state_dict(state)
    for _ in range(6):
        ours, theirs = left.sample(8, 6, 0.7, rng), right.sample(8, 6, 0.7, again)
        assert ours is not None and theirs is not None
        assert_same(ours, theirs)


def test_slices_of_another_length_are_drawn_anew(tmp_path: Path):
    past, rng = history(tmp_path), np.random.default_rng(0)
    for length, before in ((4, 0), (9, 0), (9, 300)):
        batch = past.sample(8, length, 1.0, rng, before)
        assert batch is not None and batch.reward.shape == (8, length)
        assert before == 0 or (batch.before is not None and batch.before.reward.shape == (8, before + 1))
    past._forget()
    assert not past.cache._users, "what is no more wanted is not held on to"


def test_a_damaged_shard_is_named_when_it_is_drawn(tmp_path: Path):
    past, rng = history(tmp_path, cache=0, ahead=0), np.random.default_rng(0)
    assert len(past) == RECORDS
    path = tmp_path / "shard_000000.h5"
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(UserError, match=r"Replay shard .*shard_000000\.h5 cannot be used"):
        for _ in range(20):
            past.sample(8, 6, 1.0, rng)


def test_an_episode_of_another_runs_task_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="an episode of task other, which is not one of this run's"):
        len(history(tmp_path, [replace(EPISODES[0], task="other")]))


def test_the_cache_keeps_what_is_wanted_and_forgets_the_rest():
    read: list[int] = []

    def reading(key: int) -> str:
        read.append(key)
        return str(key)

    cache = PieceCache(reading, lambda key: 10, capacity=20)
    cache.want([1, 2, 3, 3])
    assert [cache.get(key) for key in (1, 2, 3)] == ["1", "2", "3"] and cache.size == 30, "wanted ones stay beyond the capacity"
    cache.release([3, 2])
    assert cache.size == 20, "2 goes, as 3 is wanted once more"
    cache.release([1, 3])
    cache.want([1])
    cache.release([1])
    cache.want([4])
    assert cache.get(4) == "4"
    cache.release([4])
    cache.want([1])
    assert (cache.get(1), read, cache.hits, cache.misses) == ("1", [1, 2, 3, 4], 3, 4), "3 was the one to go"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"history": 1.5}, r"replay\.history=1\.5 is a share: give 0 to 1"),
        ({"recent": -0.1}, r"replay\.recent=-0\.1 is a share"),
        (
            {"history": 0.6},
            r"replay\.recent=0\.25, replay\.rewarded=0\.25, replay\.history=0\.6 are shares of the same sequences",
        ),
        ({"cache": -1}, r"replay\.cache=-1 is too few: give 0 or more"),
        ({"episodes_per_shard": 0}, r"replay\.episodes_per_shard=0 is too few: give 1 or more"),
        ({"compression": "zip"}, r"replay\.compression=zip is unknown; choose one of none, gzip, lzf"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any], reason: str):
    config = tiny_config(DOORKEY)
    with pytest.raises(UserError, match=reason):
        check_settings(replace(config, replay=replace(config.replay, **changes)))


def test_a_run_that_samples_its_history_goes_on_after_a_resume_as_if_it_had_never_stopped(tmp_path: Path):
    config = tiny_config(DOORKEY)
    config = replace(config, replay=replace(config.replay, capacity=64, history=0.5, cache=50, compression="lzf"))
    straight = Trainer(config, tmp_path / "straight")
    play(straight, 160)
    straight.writer.flush()  # as a checkpoint does, which changes nothing else
    resumed = stop_and_resume(config, tmp_path / "resumed", 160)
    assert straight.replay.history is not None and len(straight.replay.history) > 30
    ours = [straight.replay.sample(8, 8, straight.replay_rng, straight.mix) for _ in range(8)]
    theirs = [resumed.replay.sample(8, 8, resumed.replay_rng, resumed.mix) for _ in range(8)]
    for mine, other in zip(ours, theirs, strict=True):
        assert_same(mine, other)
