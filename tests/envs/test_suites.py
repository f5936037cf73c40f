"""Suites: that their recipes' environments are built as promised. What needs an extra is skipped where it is missing."""

from __future__ import annotations

import logging
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from envs import EnvConfig, UserError, make_task_space
from envs.building import build_environment
from envs.make import infer_spec
from tests.test_configs import composed


def needs(package: str, extra: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(find_spec(package) is None, reason=f"{package} is not installed: the extra `{extra}`")


def built(config: EnvConfig) -> gym.Env[Any, Any]:
    return build_environment(make_task_space(config).hardest, config)


def trace(env: gym.Env[Any, Any], actions: list[Any], seed: int) -> list[tuple[bytes, float]]:
    observation, _ = env.reset(seed=seed)
    seen = [(observation.tobytes(), 0.0)]
    for action in actions:
        observation, reward, *_ = env.step(action)
        seen.append((observation.tobytes(), float(reward)))
    return seen


# -- Crafter -------------------------------------------------------------------------------------------------------------


@needs("crafter", "suites")
def test_crafter_is_the_same_for_the_same_seed_in_another_environment():
    config = composed("env=crafter").env
    actions = np.random.default_rng(0).integers(0, 17, 60).tolist()
    one, other = built(config), built(config)
    other.reset(seed=5)
    assert trace(one, actions, 3) == trace(other, actions, 3)
    assert trace(one, actions, 3) != trace(one, actions, 4)
    assert one.observation_space.shape == (64, 64, 3) and one.action_space.n == 17  # type: ignore[attr-defined]


@needs("crafter", "suites")
def test_crafter_keeps_dying_apart_from_running_out_of_time():
    config = composed("env=crafter", "++env.kwargs.length=3").env
    env = built(config)
    env.reset(seed=0)
    assert [env.step(0)[2:4] for _ in range(3)] == [(False, False), (False, False), (False, True)]
    env.reset(seed=0)
    env.unwrapped._world._player.health = 0  # type: ignore[attr-defined]
    assert env.step(0)[2:4] == (True, False)


@needs("crafter", "suites")
def test_crafter_tells_what_was_unlocked():
    env = built(composed("env=crafter").env)
    _, info = env.reset(seed=0)
    assert len(info["unlocked"]) == 22 and info["progress"] == 0 and not any(info["unlocked"].values())
    env.unwrapped._world._player.achievements["eat_cow"] = 2  # type: ignore[attr-defined]
    _, reward, _, _, info = env.step(0)
    assert info["achievements"]["eat_cow"] == 2 and info["unlocked"]["eat_cow"] is True
    assert info["progress"] == pytest.approx(1 / 22) and reward == pytest.approx(1.0)


# -- Atari ---------------------------------------------------------------------------------------------------------------


@needs("ale_py", "suites")
def test_ataris_recipe_is_the_100k_protocol():
    config = composed("env=atari").env
    assert make_task_space(config).ids == ("Pong-v5",)
    env = built(config)
    ale = env.unwrapped.ale  # type: ignore[attr-defined]
    assert ale.getFloat("repeat_action_probability") == 0.0
    assert env.action_space.n == 6  # type: ignore[attr-defined]
    starts = set()
    for seed in range(8):
        observation, info = env.reset(seed=seed)
        assert observation.shape == (64, 64, 3) and observation.dtype == np.uint8
        starts.add(info["episode_frame_number"])
    assert len(starts) > 1 and max(starts) <= 30, "idle frames"
    before = info["episode_frame_number"]
    assert env.step(2)[4]["episode_frame_number"] == before + 4, "four frames a step"
    assert trace(env, [2, 3] * 10, 1) == trace(built(config), [2, 3] * 10, 1)


@needs("ale_py", "suites")
def test_ataris_images_show_what_flickers():
    config = composed("env=atari", "env.resize=null", "env.noop_start=0").env
    pooled, plain = built(config), built(composed("env=atari", "env.resize=null", "env.noop_start=0", "env.frame_skip=1").env)
    pooled.reset(seed=0), plain.reset(seed=0)
    frames = [plain.step(0)[0] for _ in range(4)]
    assert np.array_equal(pooled.step(0)[0], np.maximum(frames[2], frames[3]))


# -- the others ----------------------------------------------------------------------------------------------------------


@needs("mujoco", "mujoco")
@pytest.mark.parametrize(("name", "observed", "acted"), [("halfcheetah", 17, 6), ("hopper", 11, 3)])
def test_mujoco_recipes_observe_vectors_and_act_in_boxes(name: str, observed: int, acted: int):
    config = composed(f"env={name}").env
    spec = infer_spec(config, make_task_space(config))
    assert [(leaf.kind, leaf.shape) for leaf in spec.observations] == [("vector", (observed,))]
    assert (spec.action.kind, spec.action.size) == ("box", acted)


@needs("mujoco", "mujoco")
def test_mujoco_leaves_no_file_where_a_run_is_started_and_its_models_have_the_masses_they_ask_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.chdir(tmp_path)
    cheetah: Any = built(composed("env=halfcheetah").env).unwrapped
    assert cheetah.model.body_mass.sum() == pytest.approx(14), "the model's settotalmass, which MuJoCo warns of"
    hopper: Any = built(composed("env=hopper").env).unwrapped
    hopper.reset(seed=0)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            hopper.data.qpos[:] = np.nan  # MuJoCo warns of it, and starts again
            hopper.do_simulation(np.zeros(3), 1)
    assert list(tmp_path.iterdir()) == []
    assert [record.message for record in caplog.records if record.message.startswith("MuJoCo: ")] == [
        next(record.message for record in caplog.records if "Nan, Inf or huge value in QPOS" in record.message)
    ]


@pytest.mark.parametrize("name", ["acrobot", "mountaincar", "pendulum", "gotolocal", "gotoobject"])
def test_a_recipes_environment_is_mapped(name: str):
    config = composed(f"env={name}").env
    kinds = {leaf.kind for leaf in infer_spec(config, make_task_space(config)).observations}
    assert kinds == ({"grid", "categorical", "text"} if name.startswith("goto") else {"vector"})


@pytest.mark.parametrize("suite", ["babyai_goto", "babyai_pickup", "babyai_open"])
def test_babyai_levels_of_one_suite_can_be_played_by_one_agent(suite: str):
    config = EnvConfig(suite=suite)
    spec = infer_spec(config, make_task_space(config))
    assert {leaf.key: leaf.kind for leaf in spec.observations} == {"image": "grid", "direction": "categorical", "mission": "text"}


@pytest.mark.parametrize(
    ("env_id", "package", "extra"),
    [
        ("ALE/Pong-v5", "ale_py", "suites"),
        ("Crafter-v1", "crafter", "suites"),
        ("Hopper-v5", "mujoco", "mujoco"),
    ],
)
def test_what_is_not_installed_is_told_with_the_extra_to_install(
    env_id: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not there
    with pytest.raises(UserError, match=rf"{env_id} needs {package}, .*; pip install -e '\.\[{extra}\]'"):
        make_task_space(EnvConfig(id=env_id))
