"""What a replay holds, and how whole episodes leave it and come back."""

from __future__ import annotations

import io

import numpy as np
import pytest

from agent.replay import Episode, Replay, SampleMix
from agent.sequences import pack_open_episodes, unpack_open_episodes
from envs.errors import UserError
from envs.spaces.specs import ActionSpec, EnvSpec, ModalitySpec
from tests.agent.streams_data import SPEC, TASKS, assert_same, new_player

UNIFORM = SampleMix(recent=0, rewarded=0)
COUNTER = EnvSpec((ModalitySpec("n", "vector", (1,), "float32"),), ActionSpec("discrete", 9))


def counted(*numbers: float) -> dict[str, np.ndarray]:
    return {"n": np.array(numbers, np.float32)[:, None]}


def test_an_episode_of_two_steps_takes_three_records():
    replay = Replay(COUNTER, 1, 10, ("only",))
    one, no, yes = np.zeros(1, int), np.zeros(1, bool), np.ones(1, bool)
    replay.start(one, counted(10), one, one)
    replay.act(np.array([4]), np.array([-0.5]))
    replay.arrive(counted(11), np.array([0.25]), no, no)
    replay.act(np.array([5]), np.array([-1.5]))
    replay.arrive(counted(12), np.array([1.0]), yes, no)
    replay.start(one, counted(20), one, one)

    batch = replay.sample(1, 4, np.random.default_rng(0), UNIFORM)

    assert len(replay) == 4 and replay.steps == 2 and replay.episodes == 1
    assert batch.obs["n"][0, :, 0].tolist() == [10, 11, 12, 20]
    assert batch.action[0].tolist() == [4, 5, 0, 0]
    assert batch.log_prob[0].tolist() == [-0.5, -1.5, 0, 0]
    assert batch.reward[0].tolist() == [0, 0.25, 1, 0]
    assert batch.first[0].tolist() == [True, False, False, True]
    assert batch.terminated[0].tolist() == [False, False, True, False]
    assert batch.truncated[0].tolist() == [False] * 4
    assert batch.last[0].tolist() == [False, False, True, False]


def test_a_finished_episode_is_handed_over_whole_with_its_last_observation():
    player = new_player(seed=3).play(60)
    assert len(player.episodes) == player.replay.episodes > 5
    for episode in player.episodes:
        times = episode.obs["stamp"][:, 1].astype(int)
        records = [player.streams[episode.env_index][time] for time in times]
        assert len(times) == len(episode) + 1 and (np.diff(times) == 1).all()
        assert (
            records[0]["first"]
            and episode.terminated == records[-1]["terminated"]
            and episode.truncated == records[-1]["truncated"]
        )
        assert episode.action.tolist() == [record["action"] for record in records[:-1]]
        assert episode.log_prob.tolist() == [record["log_prob"] for record in records[:-1]]
        assert episode.reward.tolist() == [record["reward"] for record in records[1:]]
        assert episode.task == TASKS[int(records[0]["task"])]
    assert [episode.end_step for episode in player.episodes] == sorted(episode.end_step for episode in player.episodes)


def test_an_episode_longer_than_its_stream_is_still_handed_over_whole():
    player = new_player(num_envs=2, row_capacity=7, end_rate=0.03, seed=1).play(150)
    longest = max(player.episodes, key=len)
    assert len(longest) > 30
    assert longest.obs["stamp"][:, 1].tolist() == list(
        range(int(longest.obs["stamp"][0, 1]), int(longest.obs["stamp"][-1, 1]) + 1)
    )
    for episode in player.replay.open_episodes():
        stream = player.streams[episode.env_index]
        assert episode.action.tolist() == [record["action"] for record in stream[-len(episode) - 1 : -1]]


@pytest.mark.parametrize("row_capacity", [9, 60, 500])
def test_a_replay_loaded_with_everything_samples_as_the_one_before(row_capacity: int):
    player = new_player(row_capacity=row_capacity, end_rate=0.06).play(200)
    loaded = Replay(SPEC, 3, 3 * row_capacity, TASKS)
    loaded.load(player.episodes, same_rows=True)
    loaded.load_open(player.replay.open_episodes())

    assert (len(loaded), loaded.steps, loaded.episodes) == (len(player.replay), player.replay.steps, player.replay.episodes)
    ours, theirs = (replay.sample(64, 8, np.random.default_rng(5), SampleMix()) for replay in (player.replay, loaded))
    assert_same(ours, theirs)
    for left, right in zip(player.replay.open_episodes(), loaded.open_episodes(), strict=True):
        assert_same(left, right)


def test_play_goes_on_where_open_episodes_were_taken_up():
    player = new_player(row_capacity=9, end_rate=0.03).play(40)
    loaded = Replay(SPEC, 3, 27, TASKS)
    loaded.load(player.episodes, same_rows=True)
    loaded.load_open(player.replay.open_episodes())
    finished: list[Episode] = []
    loaded.on_episode = finished.append
    again = new_player(row_capacity=9, end_rate=0.03).play(40)
    again.replay = loaded
    before = len(player.episodes)
    player.play(60)
    again.play(60)
    assert len(finished) > 2
    for left, right in zip(player.episodes[before:], finished, strict=True):
        assert_same(left, right)


def test_load_spreads_episodes_evenly_and_keeps_their_order():
    player = new_player(num_envs=1, row_capacity=1000).play(900)
    loaded = Replay(SPEC, 4, 4000, TASKS)
    loaded.load(player.episodes)
    sizes = loaded._streams.size
    assert sizes.max() - sizes.min() <= max(len(episode) + 1 for episode in player.episodes)
    batch = loaded.sample(4, int(sizes.min()), np.random.default_rng(0), UNIFORM)
    assert (np.diff(batch.obs["stamp"][..., 1]) > 0).all()


def test_load_refuses_a_task_that_is_not_the_runs_own():
    player = new_player().play(60)
    with pytest.raises(UserError, match=r"task (easy|hard), which is not one of this run's \(other\)"):
        Replay(SPEC, 3, 300, ("other",)).load(player.episodes)


def test_open_episodes_survive_a_file_of_plain_arrays():
    player = new_player(end_rate=0.02).play(30)
    file = io.BytesIO()
    arrays = {"unrelated": np.zeros(3)} | pack_open_episodes(player.replay.open_episodes())
    np.savez(file, **arrays)
    file.seek(0)
    with np.load(file, allow_pickle=False) as stored:
        back = unpack_open_episodes(dict(stored))
    assert len(back) == 3
    for left, right in zip(player.replay.open_episodes(), back, strict=True):
        assert_same(left, right)


def test_environments_between_two_episodes_have_no_open_one():
    player = new_player(end_rate=0.5, seed=2)
    player.step()
    while not player.ended.any() or player.ended.all():
        player.step()
    assert [episode.env_index for episode in player.replay.open_episodes()] == np.flatnonzero(~player.ended).tolist()


@pytest.mark.parametrize("reward", [np.nan, np.inf, -np.inf])
def test_a_reward_that_is_not_finite_is_refused_and_nothing_is_written(reward: float):
    replay = Replay(COUNTER, 2, 20, ("only",))
    envs, no = np.arange(2), np.zeros(2, bool)
    replay.start(envs, counted(1, 2), envs * 0, envs)
    replay.act(envs, envs * 0.0)
    with pytest.raises(UserError, match=r"^The reward of environment 1 \(task only\) is not finite at 0 environment steps"):
        replay.arrive(counted(3, 4), np.array([0, reward]), no, no)
    assert len(replay) == 2 and replay.steps == 0


def test_an_observation_that_is_not_finite_is_refused():
    replay = Replay(COUNTER, 2, 20, ("only",))
    envs = np.arange(2)
    with pytest.raises(UserError, match=r"observation n of environment 0 .* is not finite"):
        replay.start(envs, counted(np.nan, 2), envs * 0, envs)
    assert len(replay) == 0


@pytest.mark.parametrize("value", [np.zeros((2, 3), np.float32), np.zeros((2,), np.float32), np.zeros((2, 1), complex)])
def test_an_observation_of_another_shape_or_kind_is_refused(value: np.ndarray):
    envs = np.arange(2)
    with pytest.raises(ValueError, match=r"observation n is .* expected \(2, 1\) float32"):
        Replay(COUNTER, 2, 20, ("only",)).start(envs, {"n": value}, envs, envs)


def test_calls_out_of_order_are_refused():
    replay = Replay(COUNTER, 1, 10, ("only",))
    one, no = np.zeros(1, int), np.zeros(1, bool)
    with pytest.raises(RuntimeError, match="start an episode first"):
        replay.act(one, one)
    replay.start(one, counted(0), one, one)
    with pytest.raises(RuntimeError, match="act before arrive"):
        replay.arrive(counted(1), one, no, no)
    with pytest.raises(RuntimeError, match="under way"):
        replay.start(one, counted(0), one, one)
    with pytest.raises(RuntimeError, match="before any episode is under way"):
        replay.load([])


def test_a_capacity_that_holds_no_transition_is_refused():
    with pytest.raises(UserError, match=r"^replay\.capacity=5 leaves fewer than two records"):
        Replay(COUNTER, 3, 5, ("only",))
