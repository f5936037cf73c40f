"""Observations as flat numeric arrays, actions as integers from zero."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium import spaces

from envs.adapter import Adapter, TextEncoder, converter, decode_text
from envs.probe import probe
from envs.spaces.actions import action_spec
from envs.spaces.inference import infer_modalities
from envs.spaces.specs import EnvSpec, ModalitySpec
from tests.envs.odd import Odd


def adapted_odd() -> Adapter:
    env = Odd()
    modalities = infer_modalities(env.observation_space, probe(env), text_bytes=16)
    return Adapter(env, EnvSpec(modalities, action_spec(env.action_space)))


def test_each_leaf_arrives_in_the_shape_and_dtype_of_its_spec() -> None:
    env = adapted_odd()
    observation, _ = env.reset(seed=0)
    assert observation in env.observation_space


def test_values_of_an_odd_space_arrive_flat_and_counted_from_zero() -> None:
    env = adapted_odd()
    env.reset(seed=0)
    observation, reward, _, _, _ = env.step(2)  # the environment's action 1
    assert reward == 1.0
    assert observation["pair.0.choice"].tolist() == [2]
    assert observation["pair.0.speed"].tolist() == [0.5] * 4
    assert observation["pair.1"].tolist() == [1, 0, 1]
    assert observation["cells"].tolist() == [[[3]] * 3] * 2
    assert observation["dials"].tolist() == [1, 4]
    assert observation["height"].tolist() == [0]
    assert observation["clock"].tolist() == [1.0]
    assert decode_text(observation["chatter"]) == "tick 1"


def test_negative_symbols_of_a_grid_are_shifted_to_zero() -> None:
    convert = converter(spaces.Box(-2, 5, (2, 2), np.int8), ModalitySpec("g", "grid", (2, 2, 1), "int64"))
    assert convert(np.array([[-2, 0], [5, 1]], np.int8)).ravel().tolist() == [0, 2, 7, 3]


def test_short_text_is_padded_with_zeros() -> None:
    assert TextEncoder(5)("ab").tolist() == [97, 98, 0, 0, 0]


def test_long_text_is_cut_between_characters() -> None:
    assert decode_text(TextEncoder(4)("abcä")) == "abc"  # the last character takes two bytes, of which one would fit
    assert decode_text(TextEncoder(5)("abcä")) == "abcä"


def test_a_changed_text_is_encoded_anew() -> None:
    encode = TextEncoder(4)
    assert [decode_text(encode(text)) for text in ("one", "one", "two")] == ["one", "one", "two"]


def test_what_is_finite_in_64_bits_stays_finite_in_32_and_infinity_stays_to_be_found() -> None:
    convert = converter(spaces.Box(-np.inf, np.inf, (4,), np.float64), ModalitySpec("v", "vector", (4,), "float32"))
    assert np.isfinite(convert(np.array([1e30, -1e300, 1e300, 1e6]))).all()
    assert np.isinf(convert(np.array([np.inf, 0, 0, 0]))).tolist() == [True, False, False, False]


def test_categories_far_from_zero_are_counted_exactly() -> None:
    start = 2**60 + 1
    convert = converter(spaces.Discrete(5, start=start), ModalitySpec("d", "categorical", (1,), "int64", classes=(5,)))
    assert [convert(np.int64(start + n)).tolist() for n in range(5)] == [[0], [1], [2], [3], [4]]


def test_a_text_that_is_no_unicode_does_not_fail() -> None:
    assert decode_text(TextEncoder(4)("a\ud800b")) == "a?b"


def picture(space: spaces.Box, value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return converter(space, ModalitySpec("p", "image", shape, "uint8"))(value)


def test_channels_come_last_whichever_way_round_they_were() -> None:
    value = np.arange(3 * 20 * 30, dtype=np.uint8).reshape(3, 20, 30)
    first = picture(spaces.Box(0, 255, (3, 20, 30), np.uint8), value, (20, 30, 3))
    last = picture(spaces.Box(0, 255, (20, 30, 3), np.uint8), value.transpose(1, 2, 0), (20, 30, 3))
    assert np.array_equal(first, last) and np.array_equal(first[..., 1], value[1])


def test_frames_of_a_stack_become_channels_oldest_first() -> None:
    value = np.stack([np.full((20, 30, 3), shade, np.uint8) for shade in (10, 20)])
    stacked = picture(spaces.Box(0, 255, (2, 20, 30, 3), np.uint8), value, (20, 30, 6))
    assert stacked[0, 0].tolist() == [10, 10, 10, 20, 20, 20]


def test_brightness_within_any_bounds_spans_all_bytes() -> None:
    half = picture(spaces.Box(0.0, 1.0, (1, 3)), np.array([[0.0, 0.5, 1.0]]), (1, 3, 1))
    assert half.ravel().tolist() == [0, 128, 255]
    both = picture(spaces.Box(-1.0, 1.0, (1, 3)), np.array([[-1.0, 0.0, 2.0]]), (1, 3, 1))
    assert both.ravel().tolist() == [0, 128, 255], "what is out of bounds is cut off"


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_shrinking_averages_over_areas(channels: int) -> None:
    """Four pixels of 0, 100, 200 and 100 become one of 100; a fourth channel is a channel like the others."""
    value = np.tile(np.array([[0, 100], [200, 100]], np.uint8)[..., None], (10, 20, channels))
    small = picture(spaces.Box(0, 255, value.shape, np.uint8), value, (10, 20, channels))
    assert small.shape == (10, 20, channels) and (small == 100).all()


def test_pixels_that_are_not_finite_are_refused_rather_than_made_bytes() -> None:
    with pytest.raises(ValueError, match="not finite"):
        picture(spaces.Box(0.0, 1.0, (1, 3)), np.array([[0.0, np.nan, 1.0]]), (1, 3, 1))
