"""Imagined episodes as a data set: in the replay's format, marked, and never mixed with real ones unasked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from agent.dream.dataset import draw_starts, imagine_episodes, stored_episodes
from agent.dream.rollout import come_back
from agent.futures import Start
from agent.replay import Replay
from agent.shards import ShardReader, ShardWriter, shard_names, synthetic_origin
from envs.errors import UserError
from tests.agent.test_dream import POLE, agent_of, episode_of

ORIGIN = {"run": "first", "env_steps": 96, "seed": 1}


def certain(agent, bias: float) -> None:
    """Make the model sure that an episode goes on (bias above 0) or ends."""
    last = [module for module in agent.model.continue_head.modules() if isinstance(module, torch.nn.Linear)][-1]
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.constant_(last.bias, bias)


def test_an_imagined_episode_ends_where_the_model_ends_it_or_at_the_horizon():
    agent = agent_of()
    episode = episode_of(agent)
    starts = [Start(episode, 2), Start(episode, 7)]
    certain(agent, 50.0)
    assert [(len(e), e.terminated, e.truncated) for e in imagine_episodes(agent, starts, 4, 0)] == [(4, False, True)] * 2
    certain(agent, -50.0)
    ended = imagine_episodes(agent, starts, 4, 0)
    assert [(len(e), e.terminated, e.truncated) for e in ended] == [(1, True, False)] * 2
    for made, start in zip(ended, starts, strict=True):
        assert made.synthetic and made.task == episode.task and made.seed == episode.seed
        assert len(made.obs["image"]) == 2 and np.array_equal(made.obs["image"][0], episode.obs["image"][start.step])
        assert (made.obs["mission"] == episode.obs["mission"][0]).all(), "what is static is the stored one"
        assert made.log_prob[0] == pytest.approx(-np.log(7)), "an untrained policy is uniform"


def test_a_vectors_first_observation_is_the_stored_one_bit_for_bit():
    agent = agent_of(POLE)
    episode = episode_of(agent, POLE)
    (made,) = imagine_episodes(agent, [Start(episode, 3)], 2, 0)
    assert np.array_equal(made.obs["observation"][0], episode.obs["observation"][3])


def test_what_lasts_but_may_be_absent_comes_back_as_it_was_stored():
    """Shown at steps 0 and 1 of three, and imagined to be there at the second of three steps."""
    stored, imagined = np.array([[1, 2], [3, 4], [0, 0]], np.uint8), np.full((3, 2), 9, np.uint8)
    found = come_back(stored, imagined, shown=np.array([1, 1, 0]), there=np.array([0, 1, 0]))
    assert found.tolist() == [[0, 0], [3, 4], [0, 0]] and found.dtype == np.uint8
    assert come_back(stored, imagined, np.zeros(3), np.ones(3)).tolist() == imagined.tolist(), "it was never shown"


def test_imagined_episodes_are_the_same_for_the_same_seed_alone():
    agent = agent_of()
    start = [Start(episode_of(agent), 2)]
    one, same, other = (imagine_episodes(agent, start, 6, seed)[0] for seed in (1, 1, 2))
    assert np.array_equal(one.action, same.action) and np.array_equal(one.obs["image"], same.obs["image"])
    assert not (np.array_equal(one.action, other.action) and len(one) == len(other))


def test_starts_are_drawn_from_all_steps_of_all_episodes_but_the_last_observations():
    agent = agent_of()
    episodes = [episode_of(agent), episode_of(agent, seed=5)]
    starts = draw_starts(episodes, 2000, np.random.default_rng(0))
    assert {(start.episode is episodes[1], start.step) for start in starts} == {(b, t) for b in (False, True) for t in range(20)}


def test_shards_of_imagined_episodes_say_so_and_are_read_only_if_asked_for(tmp_path: Path):
    agent = agent_of()
    real = episode_of(agent)
    spec = agent.model.spec
    for synthetic, episodes in ((None, [real]), (ORIGIN, imagine_episodes(agent, [Start(real, 2)] * 3, 4, 0))):
        writer = ShardWriter(tmp_path, spec, 2, synthetic)
        for episode in episodes:
            writer.add(episode)
        writer.flush()
    names = shard_names(tmp_path)
    assert [synthetic_origin(tmp_path / name, spec) for name in names] == [None, ORIGIN, ORIGIN]
    with pytest.raises(
        UserError, match=r"shard_000001.h5 holds imagined episodes \(run first, env_steps 96, seed 1\): .*replay.synth"
    ):
        list(ShardReader(tmp_path, spec).episodes())
    assert [episode.synthetic for episode in ShardReader(tmp_path, spec).episodes(names[:1])] == [False]
    read = list(ShardReader(tmp_path, spec, synthetic=True).episodes())
    assert [episode.synthetic for episode in read] == [False, True, True, True]
    replay = Replay(spec, 2, 200, (real.task,))
    replay.load(read)
    assert replay.episodes == 4 and replay.steps == sum(map(len, read))


def test_nothing_is_imagined_from_what_is_held_out(tmp_path: Path):
    agent = agent_of()
    writer = ShardWriter(tmp_path, agent.model.spec)
    for seed, held_out in ((3, True), (5, False)):
        writer.add(replace(episode_of(agent, seed=seed), held_out=held_out))
    writer.flush()
    assert [episode.seed for episode in stored_episodes(agent, tmp_path)] == [5]


def test_a_run_without_stored_episodes_has_nothing_to_begin_at(tmp_path: Path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match="holds no stored episodes to begin at"):
            stored_episodes(agent_of(), folder)
