"""Held-out episodes: chosen once and for all, never learned from, there to validate on; nothing else changes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from agent.holdout import Holdout
from agent.replay import Episode, Replay, SampleMix
from agent.sequences import pack_open_episodes, unpack_open_episodes
from agent.settings import check_settings
from agent.shards import ShardReader
from agent.trainer import Trainer
from envs.errors import UserError
from tests.agent.streams_data import SPEC, TASKS, Player, assert_same
from tests.agent.test_resume import assert_same_run, stop_and_resume
from tests.agent.tiny import CARTPOLE, DOORKEY, play, tiny_config

MIXES = [SampleMix(recent=0, rewarded=0), SampleMix(recent=0.5, rewarded=0.5, rewarded_cap=1.0, recent_window=40)]
HELD_OUT = {"validation": 0.5, "validation_after": 16, "look_every": 2}


def new_player(row_capacity: int = 60, held_capacity: int = 40, after: int = 0, seed: int = 0) -> Player:
    holdout = Holdout(0.3, after, 3 * held_capacity)
    return Player(Replay(SPEC, 3, 3 * row_capacity, TASKS, holdout=holdout), seed=seed)


def stamps(stamp: np.ndarray) -> set[tuple[int, int]]:
    """(environment, time) of every record that was cut out."""
    return {(int(env), int(time)) for env, time in stamp.reshape(-1, 2)}


def test_the_share_is_that_of_many_episodes_and_the_same_episode_always_falls_on_the_same_side():
    holdout = Holdout(0.2)
    taken = [holdout.takes("DoorKey-5x5", seed, 0) for seed in range(5000)]
    assert taken == [holdout.takes("DoorKey-5x5", seed, 10**6) for seed in range(5000)]
    assert np.mean(taken) == pytest.approx(0.2, abs=0.02)
    assert taken != [holdout.takes("DoorKey-6x6", seed, 0) for seed in range(5000)]
    assert not any(Holdout(0.0).takes("DoorKey-5x5", seed, 0) for seed in range(5000))


def test_no_episode_is_held_out_before_its_time():
    player = new_player(after=90).play(200)
    early = [episode for episode in player.episodes if episode.end_step <= 90]
    assert len(early) > 5 and not any(episode.held_out for episode in early)
    assert sum(episode.held_out for episode in player.episodes) > 5


@pytest.mark.parametrize("mix", MIXES, ids=["uniform", "recent and rewarded"])
@pytest.mark.parametrize("row_capacity", [20, 500])
def test_held_out_episodes_are_never_sampled_for_training_and_they_alone_for_validation(mix: SampleMix, row_capacity: int):
    player = new_player(row_capacity, held_capacity=row_capacity)
    rng = np.random.default_rng(0)
    training, validation = set(), set()
    for _ in range(30):
        player.play(8)
        training |= stamps(player.replay.sample(32, 6, rng, mix).obs["stamp"])
        batch = player.replay.sample_held_out(32, 6, rng, mix)
        validation |= stamps(batch.obs["stamp"]) if batch is not None else set()
        along = player.replay.sample_held_out(32, 6, np.random.default_rng(1), replace(mix, before=9))
        validation |= stamps(along.before.obs["stamp"]) if along is not None and along.before is not None else set()
    episodes = [(episode.held_out, stamps(episode.obs["stamp"])) for episode in player.episodes]
    episodes += [(episode.held_out, stamps(episode.obs["stamp"])) for episode in player.replay.open_episodes()]
    held = set().union(*(own for held_out, own in episodes if held_out))
    assert len(held) > 50 and held.isdisjoint(training)
    assert validation and validation <= held and along is not None and along.before is not None
    assert any(held_out and own & validation for held_out, own in episodes[-3:]) or not any(held for held, _ in episodes[-3:])


def test_a_held_out_episode_longer_than_its_stream_is_still_handed_over_whole():
    replay = Replay(SPEC, 3, 300, TASKS, holdout=Holdout(0.5, 0, 3 * 7))
    player = Player(replay, end_rate=0.04).play(200)
    long = [episode for episode in player.episodes if episode.held_out and len(episode) > 20]
    assert long
    for episode in long:
        assert (np.diff(episode.obs["stamp"][:, 1]) == 1).all()
        records = [player.streams[episode.env_index][int(time)] for time in episode.obs["stamp"][:, 1]]
        assert episode.reward.tolist() == [record["reward"] for record in records[1:]]


@pytest.mark.parametrize("row_capacity", [9, 500])
def test_a_replay_loaded_with_everything_holds_out_the_same_episodes(row_capacity: int):
    player = new_player(row_capacity, held_capacity=row_capacity, after=60).play(200)
    loaded = new_player(row_capacity, held_capacity=row_capacity, after=60).replay
    loaded.load(player.episodes, same_rows=True)
    loaded.load_open(unpack_open_episodes(pack_open_episodes(player.replay.open_episodes())))
    for sample in ("sample", "sample_held_out"):
        batches = [getattr(r, sample)(64, 8, np.random.default_rng(1), MIXES[1]) for r in (player.replay, loaded)]
        assert_same(*batches)


def test_there_is_nothing_to_validate_on_until_a_held_out_stream_is_long_enough():
    replay = new_player().replay
    assert replay.sample_held_out(4, 8, np.random.default_rng(0), MIXES[0]) is None


@pytest.mark.parametrize(("env", "at"), [(DOORKEY, 80), (CARTPOLE, 40)], ids=["doorkey", "cartpole"])
def test_a_resumed_run_validates_as_the_one_that_never_stopped(tmp_path: Path, env: dict[str, object], at: int):
    config = tiny_config(env, train=HELD_OUT)
    straight = Trainer(config, tmp_path / "straight")
    play(straight, at)
    torch_state = torch.get_rng_state()
    resumed = stop_and_resume(config, tmp_path / "resumed", at)
    logged = play(resumed, 128)
    torch.set_rng_state(torch_state)
    assert logged == play(straight, 128)
    assert any("validation/total" in line for line in logged)
    assert_same_run(straight, resumed)
    assert straight.health.state_dict() == resumed.health.state_dict()
    batches = [t.replay.sample_held_out(64, 8, np.random.default_rng(0), t.mix) for t in (straight, resumed)]
    assert batches[0] is not None and batches[1] is not None
    assert_same(batches[0], batches[1])


def test_looking_and_validating_change_no_update_and_draw_no_random_number(tmp_path: Path):
    config = tiny_config(DOORKEY, train=HELD_OUT)
    blind = replace(config, train=replace(config.train, look_every=0))
    runs = []
    for name, settings in (("looking", config), ("blind", blind)):
        trainer = Trainer(settings, tmp_path / name)
        logged = play(trainer, 160)
        runs.append((trainer, [{key: value for key, value in line.items() if key.startswith("model/")} for line in logged]))
    (looking, ours), (other, theirs) = runs
    assert looking.health.validation and not other.health.validation
    assert ours == theirs
    assert_same_run(looking, other)


def test_a_run_whose_episodes_are_all_before_the_time_to_hold_out_is_the_run_without(tmp_path: Path):
    early = tiny_config(DOORKEY, train={"validation": 0.5, "validation_after": 1000})
    none = tiny_config(DOORKEY, train={"validation": 0.0})
    left = Trainer(early, tmp_path / "early")
    losses = play(left, 100)
    right = Trainer(none, tmp_path / "none")  # only now: it seeds the one generator that both draw from
    assert losses == play(right, 100)
    assert_same_run(left, right)


def test_shards_remember_what_was_held_out(tmp_path: Path):
    trainer = Trainer(tiny_config(DOORKEY, train=HELD_OUT), tmp_path)
    episodes: list[Episode] = []
    add = trainer.replay.on_episode
    assert add is not None

    def remember(episode: Episode) -> None:
        episodes.append(episode)
        add(episode)

    trainer.replay.on_episode = remember
    play(trainer, 320)
    trainer.writer.flush()
    read = [episode.held_out for episode in ShardReader(tmp_path / "replay", trainer.envs.spec).episodes()]
    assert read == [episode.held_out for episode in episodes] and 0 < sum(read) < len(read)


def test_the_log_holds_the_losses_of_held_out_episodes_and_the_gradient_norms_of_all_parts(tmp_path: Path):
    trainer = Trainer(tiny_config(CARTPOLE, train=HELD_OUT), tmp_path)
    play_log = play(trainer, 160)
    last = {name: value for line in play_log for name, value in line.items()}
    assert {name for name in last if name.startswith("validation/prior")} == {"validation/prior/observation"}
    assert {"validation/total", "validation/reward", "validation/cont", "validation/reconstruction/observation"} <= last.keys()
    parts = [
        "encoder/observation",
        "embedding",
        "dynamics",
        "prior/observation",
        "reward",
        "cont",
        "policy/actor",
        "policy/critic",
    ]
    assert sorted(name.removeprefix("gradients/") for name in last if name.startswith("gradients/")) == sorted(parts)
    squares = [
        sum(value**2 for name, value in line.items() if name.startswith("gradients/") and "policy" not in name)
        for line in play_log
        if "gradients/dynamics" in line
    ]
    totals = [line["model/grad_norm"] ** 2 for line in play_log if "gradients/dynamics" in line]
    assert squares == pytest.approx(totals, rel=1e-4)  # the parts make up the whole
    assert 1.0 <= last["codes/perplexity/observation"] <= 4.0 and 0.0 <= last["codes/dead/observation"] <= 0.75
    json.dumps(trainer.health.state_dict())


@pytest.mark.parametrize("share", [-0.1, 0.6, float("nan")])
def test_a_share_out_of_range_is_refused(share: float):
    with pytest.raises(UserError, match=r"train\.validation=.* has to be from 0 to 0\.5"):
        check_settings(tiny_config(DOORKEY, train={"validation": share}))
