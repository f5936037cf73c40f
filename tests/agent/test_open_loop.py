"""Open-loop accuracy: the figures by hand, and a model that is measured on real episodes."""

from __future__ import annotations

import numpy as np
import pytest

from agent.futures import Start
from agent.open_loop import (
    Outlook,
    end_figures,
    every_start,
    image_figures,
    look_ahead,
    measure,
    most_frequent,
    number_figures,
    reward_figures,
    symbol_figures,
)
from agent.sequences import Episode
from tests.agent.test_dream import agent_of, episode_of


def test_symbols_are_counted_over_all_and_over_those_that_changed():
    before = np.array([[0, 0, 0], [1, 1, 1]])
    after = np.array([[0, 2, 2], [1, 1, 2]])  # three of six changed
    guess = np.array([[0, 2, 0], [1, 0, 2]])  # right: 0, 2, -, 1, -, 2; of the changed: 2, -, 2
    figures = symbol_figures({"model": guess}, before, after, {"late": np.array([[False, False, True], [False, False, True]])})
    # The most frequent symbols are 0, 1 and 2 (the smaller one of as many), so `frequent` is right at 0, -, 2, -, 1, 2.
    assert figures["accuracy"] == {"model": 4 / 6, "nothing": 3 / 6, "frequent": 4 / 6}
    assert figures["changed_accuracy"] == {"model": 2 / 3, "nothing": 0.0, "frequent": 2 / 3}
    assert figures["changed"] == 3 and figures["changed_late"] == 2
    assert figures["changed_accuracy_late"] == {"model": 0.5, "nothing": 0.0, "frequent": 1.0}


def test_a_cell_of_a_grid_is_right_if_all_its_channels_are():
    before = np.zeros((1, 1, 2, 3), np.uint8)
    after, guess = before.copy(), before.copy()
    after[0, 0, 1] = guess[0, 0, 1] = (4, 2, 1)
    assert symbol_figures({"model": guess}, before, after)["changed_accuracy"]["model"] == 1.0
    guess[0, 0, 1, 2] = 0
    figures = symbol_figures({"model": guess}, before, after)
    assert figures["changed_accuracy"]["model"] == 0.0 and figures["accuracy"]["model"] == 0.5 and figures["changed"] == 1


def test_the_most_frequent_cell_is_one_that_was_seen_not_a_mix_of_channels():
    cells = np.array([[[1, 5]], [[1, 6]], [[2, 5]], [[3, 7]], [[3, 7]]])  # (S, 1 cell, 2 channels)
    assert most_frequent(cells, cells=True).tolist() == [[3, 7]]
    assert most_frequent(np.array([[4, 1], [5, 1], [5, 0]])).tolist() == [5, 1]


def test_nothing_is_measured_where_nothing_changed():
    figures = symbol_figures({"model": np.ones((2, 1))}, np.ones((2, 1)), np.ones((2, 1)))
    assert figures["changed"] == 0 and figures["changed_accuracy"] == {"model": None, "nothing": None, "frequent": None}


def test_errors_of_numbers_are_in_standard_deviations_and_what_never_varies_is_left_out():
    before, after = np.array([[0.0, 7.0], [0.0, 7.0]]), np.array([[2.0, 7.0], [4.0, 7.0]])
    guess = np.array([[2.0, 9.0], [2.0, 9.0]])
    figures = number_figures({"model": guess}, before, after, spread=np.array([2.0, 0.0]))
    # Errors 0 and -2, then -2 and -4, then 1 and -1, in units of 2.
    assert figures["error"] == pytest.approx({"model": np.sqrt(0.5), "nothing": np.sqrt(2.5), "frequent": 0.5})


def test_images_are_measured_in_grey_levels_and_in_patches():
    before = np.zeros((1, 4, 8, 1), np.uint8)
    after, guess = before.copy(), before.copy()
    after[:, :, 4:] = 200  # the right one of two patches changed
    guess[:, :, 4:] = 190
    figures = image_figures({"model": guess}, before, after, patch=4)
    assert figures["rms"] == pytest.approx({"model": np.sqrt(50), "nothing": np.sqrt(20000), "frequent": 0.0})
    assert figures["changed"] == 1 and figures["changed_accuracy"] == {"model": 1.0, "nothing": 0.0, "frequent": 1.0}
    assert image_figures({"model": guess // 2}, before, after, patch=4)["changed_accuracy"]["model"] == 0.0, "105 levels off"


def test_rewards_are_measured_and_set_beside_what_was_expected():
    guess, after = np.array([0.0, 0.0, 0.5, 0.5]), np.array([0.0, 0.0, 0.0, 1.0])
    figures = reward_figures({"model": guess}, before=np.zeros(4), after=after, spread=0.5)
    assert figures["error"] == pytest.approx({"model": np.sqrt(0.125) / 0.5, "nothing": 0.5 / 0.5, "frequent": np.sqrt(3) / 2})
    # Four bins of one each: 0, 0, 0.5 and 0.5 off, over four and in units of a half.
    assert figures["calibration_error"] == pytest.approx(0.5)
    many = reward_figures({"model": np.repeat([0.25], 20)}, np.zeros(20), np.tile([0, 0, 0, 1], 5), 1.0)
    assert many["calibration_error"] == pytest.approx((5 * 0.25 + 5 * 0.25) / 10), "bins of two hold one reward or none"


def test_ends_are_measured_against_their_predicted_probability():
    figures = end_figures({"model": np.array([0.05, 0.05, 0.65, 0.65])}, np.array([False, False, True, False]))
    assert figures["brier"]["model"] == pytest.approx((2 * 0.05**2 + 0.35**2 + 0.65**2) / 4)
    assert figures["brier"]["nothing"] == 0.25 and figures["brier"]["frequent"] == pytest.approx(0.1875)
    assert figures["calibration_error"] == pytest.approx((2 * 0.05 + 2 * 0.15) / 4)
    assert figures["ends"] == 1 and figures["recall"] == 1.0 and figures["precision"] == 0.5


def walk(length: int) -> Episode:
    """A clock that counts its steps."""
    times = np.arange(length + 1, dtype=np.float32)[:, None]
    zeros = np.zeros(length, np.float32)
    return Episode({"clock": times}, np.zeros(length, np.int64), zeros, zeros, True, False, "t", 0, 0, 0)


def test_starts_have_the_whole_context_before_them_and_a_step_after():
    starts = every_start([walk(3), walk(6)], context=4)
    assert [(len(start.episode), start.step) for start in starts] == [(6, 4), (6, 5)]
    assert [start.step for start in every_start([walk(9)], 2, stride=3)] == [2, 5, 8]


def test_steps_after_an_episodes_end_do_not_count():
    episode = walk(5)
    none = {"model": np.zeros((2, 4, 1))}
    outlook = Outlook([Start(episode, 2), Start(episode, 4)], none, none, none)
    assert outlook.exists.tolist() == [[True, True, True, True], [True, True, False, False]]
    assert outlook.real("clock", 3).tolist() == [[5.0], [5.0]]


def test_a_model_is_measured_on_real_episodes_modality_by_modality():
    agent = agent_of()
    episode = episode_of(agent)
    starts = every_start([episode], 16)
    assert [start.step for start in starts] == [16, 17, 18, 19]
    outlook = look_ahead(agent, starts, 5, 16)
    other = look_ahead(agent, starts, 5, 16, seed=1)
    assert np.array_equal(other.z["model"], outlook.z["model"]), "what is likeliest is not drawn"
    assert not np.array_equal(other.z["drawn"], outlook.z["drawn"])
    figures = measure(agent, outlook, (1, 4, 5))
    assert set(figures) == {"image", "direction", "reward", "continuation"}, "what is static is not predicted"
    assert figures["image"]["1"]["starts"] == 4 and figures["image"]["4"]["starts"] == 1
    assert figures["image"]["5"] == {"starts": 0} == figures["reward"]["5"] == figures["continuation"]["5"]
    assert figures["image"]["1"]["changed_accuracy"]["nothing"] == 0.0
    assert set(figures["reward"]["1"]["error"]) == {"model", "drawn", "nothing", "frequent"}
    turned = np.array([episode.obs["direction"][t + 1] != episode.obs["direction"][t] for t in range(16, 20)])
    assert figures["direction"]["1"]["changed"] == turned.sum()
    assert figures["direction"]["1"]["accuracy"]["nothing"] == pytest.approx(1 - turned.mean())
    assert 0 <= figures["continuation"]["1"]["brier"]["model"] <= 1 and figures["continuation"]["1"]["ends"] == 0
