"""Action spaces: what the agent's actions stand for in the environment."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from envs.errors import UserError
from envs.spaces.actions import action_spec, adapted_action_space, can_be_taken, describe_actions, no_actions, to_environment
from envs.spaces.specs import ActionSpec

SPACES: dict[str, spaces.Space[Any]] = {
    "one of five": spaces.Discrete(5),
    "one of three from -1": spaces.Discrete(3, start=-1),
    "two choices": spaces.MultiDiscrete([2, 4]),
    "choices from elsewhere": spaces.MultiDiscrete([3, 2], start=[5, -2]),
    "choices in a square": spaces.MultiDiscrete(np.array([[2, 3], [4, 5]])),
    "switches": spaces.MultiBinary(3),
    "switches in a square": spaces.MultiBinary((2, 2)),
    "a number": spaces.Box(-2.0, 2.0, (1,)),
    "a number without dimension": spaces.Box(0.0, 1.0, ()),
    "numbers of their own": spaces.Box(np.array([0.0, -5.0]), np.array([10.0, 5.0]), dtype=np.float64),
    "numbers in a square": spaces.Box(-1.0, 1.0, (2, 3)),
    "without bounds": spaces.Box(-np.inf, np.inf, (2,)),
    "bounded on one side": spaces.Box(np.array([-np.inf, 1.0], np.float32), np.array([3.0, np.inf], np.float32)),
    "as far as floats reach": spaces.Box(np.finfo(np.float32).min, np.finfo(np.float32).max, (1,)),
    "whole numbers": spaces.Box(0, 9, (2,), np.int32),
}


@pytest.mark.parametrize("name", SPACES)
def test_every_action_of_the_agent_is_one_of_the_environments(name: str) -> None:
    space = SPACES[name]
    spec = action_spec(space)
    own, convert = adapted_action_space(spec), to_environment(spec)
    own.seed(0)
    for _ in range(20):
        action = own.sample()
        assert np.shape(action) == spec.shape and np.asarray(action).dtype == spec.agent_dtype
        assert space.contains(convert(action)), (action, convert(action))
        assert can_be_taken(spec, np.asarray(action))
    assert space.contains(convert(no_actions(spec)))


@pytest.mark.parametrize("name", SPACES)
def test_an_action_spec_survives_its_dict(name: str) -> None:
    spec = action_spec(SPACES[name])
    assert ActionSpec.from_dict(spec.__dict__ | {}) == spec
    listed = {key: list(value) if isinstance(value, tuple) else value for key, value in spec.__dict__.items()}  # as JSON has it
    assert ActionSpec.from_dict(listed) == spec


def test_choices_count_from_zero_and_are_moved_to_where_the_space_starts() -> None:
    convert = to_environment(action_spec(SPACES["choices from elsewhere"]))
    assert convert(np.array([0, 0])).tolist() == [5, -2] and convert(np.array([2, 1])).tolist() == [7, -1]
    square = to_environment(action_spec(SPACES["choices in a square"]))
    assert square(np.array([1, 2, 3, 4])).tolist() == [[1, 2], [3, 4]]


def test_numbers_are_stretched_to_the_bounds_and_clipped_there() -> None:
    convert = to_environment(action_spec(SPACES["numbers of their own"]))
    assert convert(np.array([-1.0, -1.0])).tolist() == [0, -5]
    assert convert(np.array([0.5, 0.0])).tolist() == [7.5, 0]
    assert convert(np.array([7.0, -9.0])).tolist() == [10, -5]
    whole = to_environment(action_spec(SPACES["whole numbers"]))
    assert whole(np.array([-1.0, 0.4])).tolist() == [0, 6]  # 0.7 of the way is 6.3


def test_where_a_bound_is_missing_numbers_stand_for_themselves() -> None:
    for name in ("without bounds", "as far as floats reach"):
        spec = action_spec(SPACES[name])
        assert set(spec.low) == {-1.0} and set(spec.high) == {1.0}
        assert to_environment(spec)(np.full(spec.size, 0.25)).tolist() == [0.25] * spec.size
    spec = action_spec(SPACES["bounded on one side"])
    assert (spec.low, spec.high) == ((1.0, 1.0), (3.0, 3.0))


def test_what_no_action_is_can_be_told() -> None:
    choices = action_spec(SPACES["two choices"])
    assert can_be_taken(choices, np.array([[1, 3], [0, 0]]))
    assert not can_be_taken(choices, np.array([[2, 3]])) and not can_be_taken(choices, np.array([[0, -1]]))
    assert not can_be_taken(action_spec(SPACES["one of five"]), np.array([5]))
    numbers = action_spec(SPACES["a number"])
    assert can_be_taken(numbers, np.array([[3.0]])) and not can_be_taken(numbers, np.array([[np.nan]]))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("one of five", "one of 5"),
        ("one of three from -1", "one of 3, from -1"),
        ("two choices", "2 choices, one of 2, 4"),
        ("a number", "1 number in -2..2"),
        ("numbers of their own", "2 numbers in 0..10, -5..5"),
    ],
)
def test_actions_are_described_in_a_line(name: str, said: str) -> None:
    assert describe_actions(action_spec(SPACES[name])) == said


@pytest.mark.parametrize("space", [spaces.Text(3), spaces.Dict(a=spaces.Discrete(2)), spaces.Box(0.0, 1.0, (0,))])
def test_spaces_that_no_policy_acts_in_are_refused_with_the_way_out(space: spaces.Space[Any]) -> None:
    with pytest.raises(UserError, match=r"is not supported.*env\.wrappers"):
        action_spec(space)
