"""Stepping, resetting by mask, ends of episodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from envs import EnvConfig, StepResult, TaskVectorEnv, make_envs, make_task_space

DOORKEY = EnvConfig(suite="doorkey", tasks=["DoorKey-5x5", "DoorKey-8x8"])


def line(num_envs: int = 2, **kwargs: object) -> TaskVectorEnv:
    config = EnvConfig(id="tests.envs.odd:Line-v0", kwargs={"size": 1, **kwargs}, max_episode_steps=5, holdout=False)
    return make_envs(config, make_task_space(config), num_envs)


def start(envs: TaskVectorEnv, seeds: Sequence[int] | None = None) -> dict[str, np.ndarray]:
    return envs.reset([envs.tasks.hardest.with_seed(seed) for seed in seeds or range(envs.num_envs)])


def ends(result: StepResult) -> tuple[list[bool], list[bool], list[float]]:
    return result.terminated.tolist(), result.truncated.tolist(), result.reward.tolist()


def test_what_comes_out_has_the_promised_shapes_and_dtypes() -> None:
    envs = make_envs(DOORKEY, make_task_space(DOORKEY), 3)
    obs = start(envs)
    assert {key: (value.shape, str(value.dtype)) for key, value in obs.items()} == {
        "direction": ((3, 1), "int64"),
        "image": ((3, 7, 7, 3), "uint8"),
        "mission": ((3, 96), "uint8"),
    }
    result = envs.step(np.zeros(3, np.int64))
    assert isinstance(result, StepResult)
    assert [str(array.dtype) for array in result[1:4]] == ["float32", "bool", "bool"]
    assert result.infos == [{}, {}, {}]


def test_reaching_the_goal_terminates_and_running_out_of_time_truncates() -> None:
    envs = line()
    start(envs)
    for _ in range(3):
        result = envs.step(np.array([1, 0]))
    assert ends(result) == ([True, False], [False, False], [1.0, 0.0])
    envs.reset([envs.tasks.hardest.with_seed(7), None], np.array([True, False]))
    for _ in range(2):
        result = envs.step(np.array([0, 0]))
    assert ends(result) == ([False, False], [False, True], [0.0, 0.0])


def test_an_episode_may_terminate_and_truncate_at_once() -> None:
    envs = line(num_envs=1, goal=2, cut=2)
    start(envs)
    envs.step(np.array([1]))
    result = envs.step(np.array([1]))
    assert result.terminated[0] and result.truncated[0]


def test_the_last_observation_and_the_last_info_are_those_of_the_episode_that_ended() -> None:
    envs = line()
    start(envs)
    for _ in range(3):
        result = envs.step(np.array([1, 0]))
    assert result.obs["observation"].ravel().tolist() == [3.0, 0.0]
    assert result.infos == [{"steps": 3}, {}]


def test_nothing_is_reset_by_itself() -> None:
    envs = line()
    start(envs)
    for _ in range(3):
        envs.step(np.array([1, 0]))
    with pytest.raises(RuntimeError, match=r"environments \[0\] need a reset"):
        envs.step(np.array([0, 0]))


def test_a_mask_resets_the_chosen_and_leaves_the_others_under_way() -> None:
    envs = line()
    start(envs)
    envs.step(np.array([1, 1]))
    obs = envs.reset([None, envs.tasks.hardest.with_seed(3)], np.array([False, True]))
    assert obs["observation"].ravel().tolist() == [1.0, 0.0]
    assert envs.step(np.array([1, 1])).obs["observation"].ravel().tolist() == [2.0, 1.0]


def test_observations_handed_out_do_not_change_later() -> None:
    envs = line()
    first = start(envs)["observation"]
    second = envs.step(np.array([1, 1])).obs["observation"]
    envs.step(np.array([1, 1]))
    assert (first.ravel().tolist(), second.ravel().tolist()) == ([0.0, 0.0], [1.0, 1.0])


def test_each_environment_plays_the_task_it_was_asked_for() -> None:
    tasks = make_task_space(DOORKEY)
    envs = make_envs(DOORKEY, tasks, 2)
    envs.reset([tasks["DoorKey-8x8"].with_seed(1), tasks["DoorKey-5x5"].with_seed(1)])
    pool: Any = envs._pool
    assert [slot._env.env.unwrapped.grid.width for slot in pool.slots] == [8, 5]
    envs.reset([tasks["DoorKey-5x5"].with_seed(2), None], np.array([True, False]))
    assert [slot._env.env.unwrapped.grid.width for slot in pool.slots] == [5, 5]


def test_an_episode_depends_on_its_task_and_seed_alone_not_on_what_was_played_before() -> None:
    tasks = make_task_space(DOORKEY)
    fresh, used = make_envs(DOORKEY, tasks, 1), make_envs(DOORKEY, tasks, 1)
    for seed in range(5):
        used.reset([tasks["DoorKey-8x8"].with_seed(seed)])
        used.step(np.array([2]))
    task = [tasks["DoorKey-8x8"].with_seed(99)]
    assert np.array_equal(fresh.reset(task)["image"], used.reset(task)["image"])
    assert fresh.layout(0) == used.layout(0)


def test_max_episode_steps_replaces_the_registered_limit() -> None:
    config = EnvConfig(suite="doorkey", tasks=["DoorKey-5x5"], max_episode_steps=4)
    envs = make_envs(config, make_task_space(config), 1)
    start(envs)
    assert [bool(envs.step(np.array([0])).truncated[0]) for _ in range(4)] == [False, False, False, True]


def test_misuse_is_told_at_once() -> None:
    envs = line()
    task = envs.tasks.hardest
    with pytest.raises(RuntimeError, match="need a reset"):
        envs.step(np.array([0, 0]))
    with pytest.raises(ValueError, match="first reset has to start every environment"):
        envs.reset([task.with_seed(0), None], np.array([True, False]))
    with pytest.raises(ValueError, match="a task that carries a seed"):
        envs.reset([task, task])
    with pytest.raises(ValueError, match="one task and one mask entry"):
        envs.reset([task.with_seed(0)])
    with pytest.raises(ValueError, match="split 'exam'"):
        make_envs(DOORKEY, make_task_space(DOORKEY), 1, split="exam")


def test_async_environments_bring_what_sync_ones_do() -> None:
    config = EnvConfig(suite="doorkey", tasks=["DoorKey-5x5", "DoorKey-8x8"], max_episode_steps=6)
    tasks = make_task_space(config)
    sync = make_envs(config, tasks, 2)
    config.vectorization = "async"
    parallel = make_envs(config, tasks, 2)
    rng, seed = np.random.default_rng(0), 2
    asked = [tasks["DoorKey-5x5"].with_seed(0), tasks["DoorKey-8x8"].with_seed(1)]
    seen = [envs.reset(asked) for envs in (sync, parallel)]
    assert all(np.array_equal(seen[0][key], seen[1][key]) for key in seen[0])
    for _ in range(20):
        actions = rng.integers(0, 7, 2)
        one, two = sync.step(actions), parallel.step(actions)
        assert all(np.array_equal(one.obs[key], two.obs[key]) for key in one.obs)
        for a, b in zip(one[1:4], two[1:4], strict=True):
            assert np.array_equal(a, b)
        ended = one.terminated | one.truncated
        if ended.any():
            seed += 1
            again = [tasks["DoorKey-8x8"].with_seed(seed) if end else None for end in ended]
            sync.reset(again, ended)
            parallel.reset(again, ended)
            assert [sync.layout(i) for i in range(2)] == [parallel.layout(i) for i in range(2)]
    with pytest.raises(RuntimeError, match="need a reset"):
        while True:
            parallel.step(np.array([0, 0]))
    parallel.close()
