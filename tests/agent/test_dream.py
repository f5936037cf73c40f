"""Dreams: the model's future beside the real one, under the same actions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import agent.dream as dreams
from agent.agent import Agent
from agent.build import build_agent
from agent.dream import difference, draw_dream, dream, play_episode
from agent.sequences import Episode
from envs import make_envs, make_task_space
from envs.spaces.images import to_colours
from envs.splits import split_of
from tests.agent.test_evaluation import layouts_played
from tests.agent.tiny import CARTPOLE, DOORKEY, Drift, tiny_config

CPU = torch.device("cpu")
DOOR, POLE = tiny_config(DOORKEY), tiny_config(CARTPOLE)
DRAWN = tiny_config(DOORKEY, wrappers=[{"name": "minigrid.wrappers:RGBImgPartialObsWrapper", "kwargs": {"tile_size": 4}}])


def agent_of(config=DOOR) -> Agent:
    tasks = make_task_space(config.env)
    torch.manual_seed(0)
    return build_agent(config, make_envs(config.env, tasks, 1).spec, CPU)[0]


def episode_of(agent: Agent, config=DOOR, seed: int = 3) -> Episode:
    tasks = make_task_space(config.env)
    for leaf in agent.model.spec.observations:  # as if it had been trained: its tables know the symbols
        agent.model.modality(leaf.key)
    episode = play_episode(agent, config.env, tasks, tasks.ids[0], "test", seed)
    agent.model.tokenize(episode.obs, grow=True)
    return episode


def test_an_episode_is_played_to_its_end_on_a_held_out_layout(monkeypatch: pytest.MonkeyPatch):
    played = layouts_played(monkeypatch)
    episode = episode_of(agent_of())
    assert split_of(played[-1]) == "test"
    assert len(episode) == len(episode.reward) == 20 and len(episode.obs["image"]) == 21
    assert episode.truncated and not episode.terminated and episode.task == "DoorKey-5x5"


def test_an_episode_without_an_end_is_left(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Drift, "limit", 10**9)
    monkeypatch.setattr(dreams, "PATIENCE", 9)
    config = tiny_config({"id": "tests.agent.tiny:Drift-v0", "holdout": False})
    episode = episode_of(agent_of(config), config)
    assert len(episode) == 9 and not episode.terminated and not episode.truncated


def test_an_episodes_rewards_are_those_that_the_agent_learned_from():
    config = tiny_config({"id": "tests.agent.tiny:Wage-v0", "holdout": False, "reward": "sign"})
    assert set(episode_of(agent_of(config), config).reward.tolist()) <= {-1.0, 1.0}


def test_an_episodes_rewards_hold_the_reward_terms_where_the_discount_is_known():
    terms = {"task": {"kind": "environment"}, "clock": {"kind": "potential", "observation": "observation", "index": 1}}
    config = tiny_config({"id": "tests.agent.tiny:Wage-v0", "holdout": False, "reward": "sign", "rewards": terms})
    tasks, agent = make_task_space(config.env), agent_of(config)
    shaped = play_episode(agent, config.env, tasks, "Wage-v0", "test", 3, gamma=0.5)
    plain = play_episode(agent, config.env, tasks, "Wage-v0", "test", 3)
    # The clock shows 0, 1, 2, and 3 where the episode terminates: 0.5*1 - 0, 0.5*2 - 1, 0 - 2.
    assert (shaped.reward - plain.reward).tolist() == [0.5, 0.0, -2.0]


def test_an_episode_of_continuous_actions_is_dreamt_too():
    config = tiny_config({"id": "Pendulum-v1", "holdout": False, "max_episode_steps": 8})
    agent = agent_of(config)
    assert dream(agent, episode_of(agent, config), 3).imagined_reward.shape == (3,)


def test_playing_and_dreaming_are_repeatable_and_draw_no_random_number_of_their_caller():
    agent = agent_of()
    before = torch.get_rng_state()
    episode, again = episode_of(agent), episode_of(agent)
    assert np.array_equal(episode.action, again.action)
    one, same, other = (dream(agent, episode, 6, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(one.imagined["image"], same.imagined["image"])
    assert not np.array_equal(one.imagined["image"], other.imagined["image"])


@pytest.mark.parametrize(("horizon", "length"), [(1, 1), (6, 6), (20, 20), (50, 20)])
def test_a_dream_covers_the_last_steps_of_an_episode_and_begins_with_what_was_real(horizon: int, length: int):
    agent = agent_of()
    episode = episode_of(agent)
    picture = dream(agent, episode, horizon)
    assert picture.start == 20 - length and picture.reward.tolist() == episode.reward[20 - length :].tolist()
    for key in ("image", "direction", "mission"):
        assert picture.imagined[key].shape == picture.real[key].shape == (length + 1, *episode.obs[key].shape[1:])
        assert np.array_equal(picture.imagined[key][0], picture.real[key][0]), key
    assert picture.imagined_reward.shape == picture.cont.shape == (length,)
    assert (picture.imagined["mission"] == picture.real["mission"]).all(), "what is static is carried"


def test_a_dream_follows_the_episodes_own_actions():
    agent = agent_of()
    episode = episode_of(agent)
    one = dream(agent, episode, 6)
    episode.action[15] = (episode.action[15] + 1) % 7
    other = dream(agent, episode, 6)
    assert one.cont[:1] == other.cont[:1]
    for t in range(2):
        assert np.array_equal(one.imagined["image"][t], other.imagined["image"][t])
    assert not np.array_equal(one.imagined["image"], other.imagined["image"])


@pytest.mark.parametrize("config", [DOOR, POLE, DRAWN], ids=["grid", "vector", "image"])
def test_a_dream_is_drawn_with_words_for_those_who_cannot_see_it(tmp_path: Path, config):
    agent = agent_of(config)
    episode = episode_of(agent, config)
    path = tmp_path / "media" / "dream.png"
    draw_dream(dream(agent, episode, 3), agent, episode, path)
    assert path.read_bytes().startswith(b"\x89PNG")
    words = json.loads(path.with_suffix(".json").read_text())
    assert {"caption", "alt", "title"} == set(words) and episode.task in words["alt"] and "3 steps" in words["caption"]


def test_how_a_frame_differs_is_said_in_cells_of_a_grid_and_in_brightness_of_an_image():
    real = np.zeros((2, 2, 3), np.uint8)
    dreamt = real.copy()
    dreamt[0, 1] = 255
    assert difference(real, real, image=False) == difference(real, real, image=True) == "the same"
    assert difference(dreamt, real, image=False) == "1 cells differ"
    assert difference(dreamt, real, image=True) == difference(real, dreamt, image=True) == "25.0 % off"


def test_images_of_any_number_of_channels_are_shown_in_colour():
    frame = np.arange(2 * 2 * 12, dtype=np.uint8).reshape(2, 2, 12)
    assert to_colours(frame)[0, 0].tolist() == [9, 10, 11], "the last frame of a stack"
    assert to_colours(frame[..., :1])[0, 0].tolist() == [0, 0, 0] and to_colours(frame[..., :4])[0, 0].tolist() == [0, 1, 2]
