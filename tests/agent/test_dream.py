"""Dreams: the model's futures beside the real one, under the same actions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import agent.playing as playing
from agent.agent import Agent
from agent.build import build_agent
from agent.config import DreamConfig
from agent.dream.job import check_dream, random_start
from agent.dream.rollout import Dream, _carried, as_text, differs, dream, patch_error
from agent.futures import Start, imagine_futures, observations
from agent.playing import play_episode
from agent.sequences import Episode
from envs import make_envs, make_task_space
from envs.errors import UserError
from envs.spaces.images import to_colours
from envs.spaces.specs import ModalitySpec
from envs.splits import split_of
from tests.agent.test_evaluation import layouts_played
from tests.agent.tiny import CARTPOLE, DOORKEY, Drift, tiny_config
from tests.world_model.conftest import tiny_config as model_config
from tests.world_model.test_missing import optional_spec, plain_observations
from world_model.model import WorldModel

CPU = torch.device("cpu")
DOOR, POLE = tiny_config(DOORKEY), tiny_config(CARTPOLE)


def agent_of(config=DOOR) -> Agent:
    tasks = make_task_space(config.env)
    torch.manual_seed(0)
    agent = build_agent(config, make_envs(config.env, tasks, 1).spec, CPU)[0]
    for parameter in [*agent.model.reward_head.parameters(), *agent.model.continue_head.parameters()]:
        torch.nn.init.normal_(parameter, std=0.2)  # they begin at zero: everything would be the same to them
    return agent


def episode_of(agent: Agent, config=DOOR, seed: int = 3) -> Episode:
    tasks = make_task_space(config.env)
    episode = play_episode(agent, config.env, tasks, tasks.ids[0], "test", seed)
    agent.model.tokenize(episode.obs, grow=True)  # as if it had been trained: its tables know the symbols
    return episode


# -- playing -------------------------------------------------------------------------------------------------------------


def test_an_episode_is_played_to_its_end_on_a_held_out_layout(monkeypatch: pytest.MonkeyPatch):
    played = layouts_played(monkeypatch)
    episode = episode_of(agent_of())
    assert split_of(played[-1]) == "test"
    assert len(episode) == len(episode.reward) == len(episode.log_prob) == 20 and len(episode.obs["image"]) == 21
    assert episode.truncated and not episode.terminated and episode.task == "DoorKey-5x5"


def test_an_episode_without_an_end_is_left(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Drift, "limit", 10**9)
    monkeypatch.setattr(playing, "PATIENCE", 9)
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


def test_a_share_of_the_actions_is_random_if_asked_for():
    agent, tasks = agent_of(), make_task_space(DOOR.env)  # untrained, it takes the first action wherever it is greedy
    shares = (0.0, 0.5, 1.0)
    played = [play_episode(agent, DOOR.env, tasks, "DoorKey-5x5", "test", 3, mode="greedy", random=share) for share in shares]
    others = [int((episode.action != 0).sum()) for episode in played]
    assert others[0] == 0 < others[1] < others[2]


# -- dreaming ------------------------------------------------------------------------------------------------------------


def test_an_episode_of_continuous_actions_is_dreamt_too():
    config = tiny_config({"id": "Pendulum-v1", "holdout": False, "max_episode_steps": 8})
    agent = agent_of(config)
    assert dream(agent, episode_of(agent, config), 3).imagined_reward.shape == (1, 3)


def test_playing_and_dreaming_are_repeatable_and_draw_no_random_number_of_their_caller():
    agent = agent_of()
    before = torch.get_rng_state()
    episode, again = episode_of(agent), episode_of(agent)
    assert np.array_equal(episode.action, again.action)
    one, same, other = (dream(agent, episode, 6, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(one.imagined["image"], same.imagined["image"])
    assert not np.array_equal(one.imagined["image"], other.imagined["image"])


@pytest.mark.parametrize(
    ("horizon", "start", "begins", "length"),
    [(1, None, 19, 1), (6, None, 14, 6), (50, None, 6, 14), (6, 3, 3, 6), (50, 0, 0, 20)],
)
def test_a_dream_reaches_the_end_with_a_third_of_the_episode_before_it_unless_told_where_to_begin(
    horizon: int, start: int | None, begins: int, length: int
):
    agent = agent_of()
    episode = episode_of(agent)
    found = dream(agent, episode, horizon, samples=2, start=start)
    assert found.start == begins and found.reward.tolist() == episode.reward[begins : begins + length].tolist()
    for key in ("image", "direction", "mission"):
        shape = episode.obs[key].shape[1:]
        assert found.real[key].shape == (length + 1, *shape) and found.imagined[key].shape == (2, length + 1, *shape)
        assert np.array_equal(found.imagined[key][1, 0], found.real[key][0]), key
        assert np.array_equal(found.context[key][-1], found.real[key][0]) and len(found.context[key]) == min(begins, 16) + 1
    assert found.imagined_reward.shape == found.cont.shape == (2, length)
    assert (found.imagined["mission"] == found.real["mission"]).all(), "what is static is carried"
    assert set(found.wrong) == {"image", "direction"} and found.mission == "use the key to open the door and then get to the goal"


def test_a_dream_follows_the_episodes_own_actions():
    agent = agent_of()
    episode = episode_of(agent)
    one = dream(agent, episode, 6)
    episode.action[15] = (episode.action[15] + 1) % 7
    other = dream(agent, episode, 6)
    assert one.cont[0, 0] == other.cont[0, 0]
    for t in range(2):
        assert np.array_equal(one.imagined["image"][0, t], other.imagined["image"][0, t])
    assert not np.array_equal(one.imagined["image"], other.imagined["image"])


def test_the_context_is_as_long_as_asked_for():
    agent = agent_of()
    episode = episode_of(agent)
    short = dream(agent, episode, 6, context=2)
    assert len(short.context["image"]) == 3
    longer = dream(agent, episode, 6, context=3)
    episode.action[11] = (episode.action[11] + 1) % 7  # three steps before the start
    assert np.array_equal(dream(agent, episode, 6, context=2).cont, short.cont)
    assert not np.array_equal(dream(agent, episode, 6, context=3).cont, longer.cont)


def test_futures_of_many_starts_at_once_are_those_of_each_alone():
    """Starts with contexts of different lengths share a batch, filled up: none depends on the others."""
    agent = agent_of()
    episode, other = episode_of(agent), episode_of(agent, seed=5)
    starts = [Start(episode, 0), Start(other, 11), Start(episode, 5)]
    together = imagine_futures(agent, starts, 1)
    for i, start in enumerate(starts):
        alone = imagine_futures(agent, [start], 1)
        torch.testing.assert_close(together.cont[i], alone.cont[0], rtol=0, atol=1e-5)
        torch.testing.assert_close(together.reward[i], alone.reward[0], rtol=1e-4, atol=1e-5)
        assert torch.equal(together.z[i, 0, 0], alone.z[0, 0, 0])
    assert imagine_futures(agent, [Start(episode, 18), Start(episode, 20)], 3).cont.shape == (2, 1, 3), "past the end too"


def test_what_the_model_thinks_absent_is_zeros_as_the_adapter_delivers_it():
    model = WorldModel(optional_spec(), model_config())
    z, _ = model.posterior(model.tokenize(plain_observations({"speed": [1], "image": [2]}), grow=True))
    found = observations(model, z)
    assert (found["speed"][:, 1] == 0).all() and (found["speed"][:, 0] != 0).any() and not found["speed?"][:, 1].any()
    assert (found["image"][:, 2] == 0).all() and (found["image"][:, 1] != 0).any()


def test_what_lasts_is_shown_as_it_was_where_it_is_imagined_to_be():
    mission = ModalitySpec("mission", "text", (3,), "uint8", static=True)
    optional = replace(mission, optional=True)
    imagined = {"mission": np.full((2, 2, 3), 9, np.uint8), "mission?": np.array([[[1], [0]], [[1], [1]]])}

    def carried(leaf: ModalitySpec, *shown: int) -> list[list[int]]:
        obs = {"mission": np.full((3, 3), 7, np.uint8), "mission?": np.array(shown)[:, None]}
        episode = replace(episode_of(agent_of()), obs=obs)
        found: list[list[int]] = _carried(leaf, episode, 1, imagined)[..., 0].tolist()
        return found

    assert carried(mission, 1, 1, 1) == [[7, 7], [7, 7]]
    assert carried(optional, 1, 0, 0) == [[7, 0], [7, 7]], "shown before the start; not where it is imagined to be absent"
    assert carried(optional, 0, 0, 1) == [[9, 9], [9, 9]], "the start showed none to repeat"


def test_the_policy_acts_in_imagination_if_asked_to():
    agent = agent_of()
    episode = episode_of(agent)
    futures = imagine_futures(agent, [Start(episode, 4), Start(episode, 20)], 3, samples=2, acting="sample")
    assert futures.action.shape == futures.log_prob.shape == (2, 2, 3) and futures.z.shape[:3] == (2, 2, 4)
    assert (futures.log_prob < 0).all()


# -- what is wrong -------------------------------------------------------------------------------------------------------


def leaf(kind: str, *shape: int) -> ModalitySpec:
    return ModalitySpec("x", kind, shape, "float32" if kind == "vector" else "uint8")


def test_cells_words_and_elements_that_differ_are_wrong():
    real = np.zeros((2, 2, 2, 3), np.uint8)
    dreamt = real.copy()[None]
    dreamt[0, 1, 0, 1, 2] = 1
    assert np.argwhere(differs(leaf("grid", 2, 2, 3), dreamt, real, real, 8)).tolist() == [[0, 1, 0, 1]]
    codes = np.array([[1, 2], [3, 4]])
    assert differs(leaf("categorical", 2), np.array([[[1, 2], [3, 5]]]), codes, codes, 8).tolist() == [
        [[False, False], [False, True]]
    ]
    texts = np.array([list(b"ab\0"), list(b"cd\0")], np.uint8)
    assert differs(leaf("text", 3), texts[None, ::-1], texts, texts, 8).tolist() == [[[True], [True]]]


def test_elements_of_a_vector_are_wrong_from_half_a_standard_deviation():
    episode = np.array([[0.0, 5.0], [2.0, 5.0]])  # standard deviations 1 and 0
    found = differs(leaf("vector", 2), episode[None] + np.array([[0.49, 0.0], [0.51, 1e-3]]), episode, episode, 8)
    assert found.tolist() == [[[False, False], [True, True]]]


def test_patches_of_an_image_are_wrong_from_a_tenth_of_full_brightness():
    real = np.zeros((1, 5, 6, 1), np.uint8)  # patches of 4: 4x4, 4x2, 1x4, 1x2
    dreamt = real.copy()[None]
    dreamt[0, 0, 4, 0] = 40  # one of four pixels: root mean square 20
    dreamt[0, 0, 4, 4] = 40  # one of two: 28.3
    error = patch_error(dreamt, real, 4)
    np.testing.assert_allclose(error[0, 0], [[0, 0], [20, 40 / np.sqrt(2)]], atol=1e-4)
    assert differs(leaf("image", 5, 6, 1), dreamt, real, real, 4).tolist() == [[[[False, False], [False, True]]]]


def test_where_a_dream_first_goes_wrong_is_told_of_every_future():
    wrong = np.zeros((2, 4, 5), bool)
    wrong[1, 2, 3] = True
    reward = np.array([0.0, 0.0, 1.0])
    found = Dream(
        task="t", start=3, context={}, real={}, imagined={}, wrong={"x": wrong}, reward=reward,
        imagined_reward=np.array([[0.0, 0.05, 0.95], [0.2, 0.0, 1.0]]),
        cont=np.array([[1.0, 0.9, 0.1], [1.0, 0.4, 0.6]]), ended=True,
    )  # fmt: skip
    assert found.first_wrong() == {"x": [None, 2], "reward": [None, 1], "end": [None, 2]}
    assert replace(found, ended=False).first_wrong()["end"] == [3, 2]


# -- asking --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"horizon": 0}, "dream.horizon=0 is too small: give 1 or more"),
        ({"horizon": 201}, "dream.horizon=201 is too long"),
        ({"episodes": -1}, "dream.episodes=-1 is too small"),
        ({"dataset_episodes": 0}, "dream.dataset_episodes=0 is too small"),
        ({"samples": 0}, "dream.samples=0 is too small"),
        ({"context": -1}, "dream.context=-1 is too small: give 0 or more"),
        ({"start": "middle"}, "dream.start=middle is unknown; choose one of end, random"),
        ({"fps": 0.0}, "dream.fps=0.0 is too slow"),
    ],
)
def test_what_cannot_be_dreamt_is_refused(settings: dict[str, object], sentence: str):
    check_dream(DreamConfig())
    check_dream(DreamConfig(horizon=5000), drawn=False)
    with pytest.raises(UserError, match=sentence):
        check_dream(DreamConfig(**settings))  # type: ignore[arg-type]


def test_random_starts_leave_room_for_the_horizon_where_there_is_any():
    episode = episode_of(agent_of())
    assert {random_start(episode, 18, seed) for seed in range(40)} == {0, 1, 2}
    assert random_start(episode, 50, 0) == 0


def test_images_of_any_number_of_channels_are_shown_in_colour():
    frame = np.arange(2 * 2 * 12, dtype=np.uint8).reshape(2, 2, 12)
    assert to_colours(frame)[0, 0].tolist() == [9, 10, 11], "the last frame of a stack"
    assert to_colours(frame[..., :1])[0, 0].tolist() == [0, 0, 0] and to_colours(frame[..., :4])[0, 0].tolist() == [0, 1, 2]


def test_texts_are_read_back_without_their_filling():
    assert as_text(np.array([*"größe".encode(), 0, 0], np.uint8)) == "größe"
