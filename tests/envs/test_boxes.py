"""A continuous box of tasks, from config to the numbers that an environment is reset with."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from envs import EnvConfig, make_envs, make_task_space
from envs.building import check_id
from envs.errors import UserError

ID = "Strata-Obstacles-v0"


def config(**keys: Any) -> EnvConfig:
    settings: dict[str, Any] = {"id": ID, "box": {"density": [0.0, 0.4], "size": [5, 9]}, "cells": 2, "num_envs": 1}
    return EnvConfig(**(settings | keys))


def test_an_episode_is_played_with_the_numbers_that_were_drawn():
    settings = config(holdout=False)
    tasks = make_task_space(settings)
    assert tasks.ids == ("density0.1_size6", "density0.1_size8", "density0.3_size6", "density0.3_size8")
    envs = make_envs(settings, tasks)
    try:
        slot = envs._pool.slots[0]  # type: ignore[attr-defined]
        envs.reset([tasks.at(np.array([0.5, 1.0]), seed=1)])
        assert slot._env.env.unwrapped.numbers == pytest.approx({"density": 0.2, "size": 9})
        envs.reset([tasks.tasks[0].with_seed(1)], np.ones(1, bool))
        assert slot._env.env.unwrapped.numbers == pytest.approx({"density": 0.1, "size": 6})
    finally:
        envs.close()


@pytest.mark.parametrize("density", [0.0, 0.4])
def test_rooms_have_their_size_and_density_and_are_made_again_by_their_seed(density: float):
    check_id(ID)
    env = gym.make(ID)
    first, _ = env.reset(seed=3, options={"density": density, "size": 8})
    room: Any = env.unwrapped
    cells = room.grid.encode()[1:7, 1:7, 0]  # inside the walls
    assert (cells == 2).sum() == round(density * 36) and (cells == 8).sum() == 1
    again, _ = env.reset(seed=3, options={"density": density, "size": 8})
    assert np.array_equal(first["image"], again["image"]) and room.max_steps == 256


@pytest.mark.parametrize("options", [{"size": 30}, {"density": -0.1}, {"lava": 1}])
def test_numbers_that_a_room_does_not_take_are_refused(options: dict[str, float]):
    check_id(ID)
    with pytest.raises(ValueError, match=r"out of its range|is none of"):
        gym.make(ID).reset(options=options)


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"box": {"size": [9, 5]}}, r"is no box of tasks: the range of size, \[9, 5\], has to go from a lower"),
        ({"box": {"size": [5]}}, r"has to be two numbers, \[LOW, HIGH\]"),
        ({"cells": 0}, "needs a number and a cell"),
        ({"id": None, "suite": "doorkey"}, r"name it as env\.id"),
        ({"box": {"size": [5, 40]}}, r"env\.box\.size=\[5, 40\] is beyond what Strata-Obstacles-v0 takes: \[5, 16\]"),
        ({"box": {"sise": [5, 8]}}, r"env\.box\.sise is no number of Strata-Obstacles-v0 \(did you mean size\?\)"),
    ],
)
def test_a_box_that_makes_no_sense_is_refused(keys: dict[str, Any], says: str):
    with pytest.raises(UserError, match=says):
        make_envs(config(**keys), make_task_space(config(**keys)))
