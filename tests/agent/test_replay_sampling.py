"""How sequences are drawn from a replay. Every draw is by a fixed generator, so bounds on proportions cannot flicker."""

from __future__ import annotations

import numpy as np
import pytest

from agent.replay import Replay, SampleMix
from tests.agent.streams_data import FIELDS, SPEC, TASKS, assert_same, new_player, stamps

UNIFORM = SampleMix(recent=0, rewarded=0)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("row_capacity", "steps"), [(40, 25), (40, 39), (40, 40), (23, 200), (17, 500)])
def test_every_slice_equals_the_stream_it_was_cut_from(row_capacity: int, steps: int, seed: int):
    player = new_player(row_capacity=row_capacity, seed=seed).play(steps)
    for length in (1, 2, 7, 16):
        batch = player.replay.sample(100, length, np.random.default_rng(seed), SampleMix())
        envs, times = stamps(batch)
        assert (np.diff(times) == 1).all(), "no slice straddles the write head"
        for b, env in enumerate(envs):
            for t, time in enumerate(times[b]):
                assert time >= len(player.streams[env]) - row_capacity
                for field in FIELDS:
                    assert getattr(batch, field)[b, t] == player.streams[env][time][field], (field, env, time)
                for key, value in player.observation(env, time).items():
                    assert batch.obs[key].dtype == value.dtype and (batch.obs[key][b, t] == value).all()


def test_every_slice_that_the_streams_hold_is_equally_likely():
    player = new_player(num_envs=3, row_capacity=20).play(100)
    player.start()
    envs, times = stamps(player.replay.sample(30_000, 6, np.random.default_rng(0), UNIFORM))
    drawn, counts = np.unique(np.stack([envs, times[:, 0]]), axis=1, return_counts=True)
    ends = [len(stream) for stream in player.streams]
    assert drawn.T.tolist() == [[env, time] for env in range(3) for time in range(ends[env] - 20, ends[env] - 5)]
    expected = 30_000 / 45
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert chi_square < 74  # 44 degrees of freedom: exceeded once in 300 seeds


@pytest.mark.parametrize(("row_capacity", "steps"), [(40, 25), (40, 40), (23, 200)])
def test_what_comes_before_a_slice_is_of_its_stream_as_far_as_that_is_held(row_capacity: int, steps: int):
    player = new_player(row_capacity=row_capacity).play(steps)
    mix = SampleMix(before=9)
    batch = player.replay.sample(200, 6, np.random.default_rng(0), mix)
    without = player.replay.sample(200, 6, np.random.default_rng(0), SampleMix())
    before, batch.before = batch.before, None
    assert_same(batch, without)
    assert before is not None and before.before is None
    cut_off = 0
    for b, (env, start) in enumerate(zip(*(x if x.ndim == 1 else x[:, 0] for x in stamps(batch)), strict=True)):
        oldest = max(0, len(player.streams[env]) - row_capacity)
        for t, time in enumerate(range(start - 9, start + 1)):
            if time <= oldest:
                cut_off += time < oldest
                assert before.first[b, t], "nothing came before"
                time = oldest
            for field in FIELDS:
                assert field == "first" or getattr(before, field)[b, t] == player.streams[env][time][field]
            assert (before.obs["stamp"][b, t] == [env, time]).all()
        news = range(max(oldest, start - 9) + 1, start + 1)
        assert before.first[b, 10 - len(news) :].tolist() == [bool(player.streams[env][time]["first"]) for time in news]
    assert 0 < cut_off < 200 * 9


def test_slices_cross_from_one_episode_into_the_next():
    player = new_player().play(100)
    batch = player.replay.sample(200, 16, np.random.default_rng(0), UNIFORM)
    assert batch.first[:, 1:].any()
    assert (batch.first[:, 1:] == batch.last[:, :-1]).all()


def test_episodes_still_under_way_are_sampled_up_to_their_newest_record():
    player = new_player(end_rate=0).play(30)
    _, times = stamps(player.replay.sample(200, 5, np.random.default_rng(0), UNIFORM))
    assert player.replay.episodes == 0 and times.max() == 30


def test_the_newest_record_has_no_action_until_one_is_taken():
    player = new_player(row_capacity=8, end_rate=0).play(50)
    batch = player.replay.sample(100, 8, np.random.default_rng(0), UNIFORM)
    assert (batch.action[:, -1] == 0).all() and (batch.log_prob[:, -1] == 0).all() and (batch.log_prob[:, :-1] != 0).all()


def test_streams_that_are_too_short_are_left_out():
    player = new_player(row_capacity=100).play(60)
    episodes = [episode for episode in player.episodes if episode.env_index != 1 or episode.end_step < 90]
    short = sum(len(episode) + 1 for episode in episodes if episode.env_index == 1)
    replay = Replay(SPEC, 3, 300, TASKS)
    replay.load(episodes, same_rows=True)
    batches = [replay.sample(200, length, np.random.default_rng(0), SampleMix()) for length in (short, short + 1)]
    assert short > 0 and [set(stamps(batch)[0]) for batch in batches] == [{0, 1, 2}, {0, 2}]


def test_no_stream_long_enough_is_an_error_that_says_so():
    with pytest.raises(ValueError, match="no environment has 9 records yet; the longest stream has 6"):
        new_player(end_rate=0).play(5).replay.sample(4, 9, np.random.default_rng(0), SampleMix())


def test_the_recent_share_comes_from_the_recent_window():
    player = new_player(num_envs=4, row_capacity=1000, reward_rate=0, end_rate=0).play(999)
    mix = SampleMix(recent=0.25, rewarded=0.25, recent_window=80)  # 20 records of each environment
    _, times = stamps(player.replay.sample(8000, 5, np.random.default_rng(0), mix))
    share = (times[:, 0] >= 980).mean()
    assert abs(share - (0.25 + 0.75 * 16 / 996)) < 0.012  # uniform slices fall there too: 16 of 996 starts
    _, only = stamps(player.replay.sample(2000, 5, np.random.default_rng(1), SampleMix(recent=1, rewarded=0, recent_window=80)))
    assert only.min() == 980 and only.max() == 999


def test_a_recent_window_shorter_than_a_slice_means_the_newest_slice():
    player = new_player(num_envs=4, row_capacity=100, end_rate=0).play(60)
    _, times = stamps(player.replay.sample(50, 16, np.random.default_rng(0), SampleMix(recent=1, rewarded=0, recent_window=8)))
    assert (times[:, -1] == 60).all()


def test_the_rewarded_share_holds_a_reward_that_can_be_predicted():
    player = new_player(num_envs=4, row_capacity=500, reward_rate=0.01).play(700)
    mix = SampleMix(recent=0, rewarded=1, rewarded_cap=1)
    batch = player.replay.sample(4000, 8, np.random.default_rng(0), mix)
    _, times = stamps(batch)
    oldest = min(len(stream) for stream in player.streams) - 500
    inner = times[:, 0] > oldest + 1
    assert (batch.reward[inner, 1:] != 0).any(1).all()


def test_the_place_of_the_reward_in_its_slice_is_uniform():
    player = new_player(num_envs=1, row_capacity=400, reward_rate=0, end_rate=0).play(200)
    player.reward_rate = 1
    player.play(1)
    player.reward_rate = 0
    player.play(100)
    batch = player.replay.sample(7000, 8, np.random.default_rng(0), SampleMix(recent=0, rewarded=1, rewarded_cap=1))
    places = np.bincount(batch.reward.nonzero()[1], minlength=8)
    assert places[0] == 0
    assert (((places[1:] - 1000) ** 2) / 1000).sum() < 20.5  # 6 degrees of freedom, 1 in 400


def test_the_rewarded_share_is_capped_while_there_are_few_rewards():
    player = new_player(num_envs=1, row_capacity=4000, reward_rate=0, end_rate=0).play(3000)
    player.reward_rate = 1
    player.play(2)
    player.reward_rate = 0
    player.play(900)
    mix = SampleMix(recent=0, rewarded=0.25, rewarded_cap=0.05)  # two rewarded records: at most 0.1
    rng = np.random.default_rng(0)
    shares = [(player.replay.sample(16, 8, rng, mix).reward != 0).any(1).mean() for _ in range(600)]
    by_chance = 0.9 * 9 / 3896
    assert abs(np.mean(shares) - (0.1 + by_chance)) < 0.003


def test_rewards_that_have_left_the_ring_are_not_drawn():
    player = new_player(num_envs=2, row_capacity=30, reward_rate=1, end_rate=0).play(20)
    player.reward_rate = 0
    player.play(40)
    batch = player.replay.sample(200, 8, np.random.default_rng(0), SampleMix(recent=0, rewarded=1, rewarded_cap=1))
    assert (batch.reward == 0).all()


def test_the_same_generator_draws_the_same_batch():
    player = new_player().play(60)
    left, right = (player.replay.sample(16, 8, np.random.default_rng(7), SampleMix()) for _ in range(2))
    assert (left.obs["stamp"] == right.obs["stamp"]).all()
