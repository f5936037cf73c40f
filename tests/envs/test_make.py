"""Task spaces from config, and the sentences for what is wrong with one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from envs import EnvConfig, UserError, make_envs, make_task_space
from envs.building import build_environment
from envs.tasks import Task, TaskSpace


def test_an_id_alone_is_a_task_space_of_one_named_by_it() -> None:
    tasks = make_task_space(EnvConfig(id="CartPole-v1", kwargs={"sutton_barto_reward": True}))
    assert tasks.ids == ("CartPole-v1",)
    assert tasks.hardest.params == {"env": "CartPole-v1", "kwargs": {"sutton_barto_reward": True}}


def test_a_module_in_the_id_is_imported_and_left_out_of_the_name() -> None:
    config = EnvConfig(id="tests.envs.odd:Odd-v0")
    assert make_task_space(config).ids == ("Odd-v0",)
    assert make_envs(config, make_task_space(config), 1).spec.action.size == 3


def test_minigrid_ids_are_known_without_naming_their_package() -> None:
    assert make_task_space(EnvConfig(id="MiniGrid-Empty-5x5-v0")).ids == ("MiniGrid-Empty-5x5-v0",)


@pytest.mark.parametrize(
    ("suite", "ids"),
    [
        ("doorkey", ("DoorKey-5x5", "DoorKey-6x6", "DoorKey-8x8", "DoorKey-16x16")),
        ("multiroom", ("MultiRoom-N2", "MultiRoom-N4", "MultiRoom-N6")),
        ("keycorridor", tuple(f"KeyCorridor-{s}" for s in ("S3R1", "S3R2", "S3R3", "S4R3", "S5R3", "S6R3"))),
    ],
)
def test_suites_run_from_easy_to_hard_and_their_environments_are_mapped(suite: str, ids: tuple[str, ...]) -> None:
    config = EnvConfig(suite=suite)
    tasks = make_task_space(config)
    assert tasks.ids == ids
    spec = make_envs(config, tasks, num_envs=1).spec
    assert {m.key: (m.kind, m.shape, m.static) for m in spec.observations} == {
        "image": ("grid", (7, 7, 3), False),
        "direction": ("categorical", (1,), False),
        "mission": ("text", (96,), True),
    }


@pytest.mark.parametrize("rooms", [2, 4, 6])
def test_multiroom_tasks_have_as_many_rooms_as_they_say(rooms: int) -> None:
    config = EnvConfig(suite="multiroom")
    env = build_environment(make_task_space(config)[f"MultiRoom-N{rooms}"], config)
    for seed in range(20):
        env.reset(seed=seed)
        assert len(env.unwrapped.rooms) == rooms  # type: ignore[attr-defined]


def test_chosen_tasks_keep_the_order_they_are_given_in() -> None:
    tasks = make_task_space(EnvConfig(suite="doorkey", tasks=["DoorKey-8x8", "DoorKey-5x5"]))
    assert tasks.ids == ("DoorKey-8x8", "DoorKey-5x5")


def test_kwargs_reach_every_task_of_a_suite() -> None:
    config = EnvConfig(suite="multiroom", kwargs={"agent_view_size": 5})
    tasks = make_task_space(config)
    assert tasks["MultiRoom-N4"].params["kwargs"] == {"minNumRooms": 4, "maxNumRooms": 4, "maxRoomSize": 5, "agent_view_size": 5}
    assert make_envs(config, tasks, 1).spec.observations[1].shape == (5, 5, 3)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (EnvConfig(), "give env.id=... .* or env.suite=..."),
        (EnvConfig(id="CartPoel-v1"), r"env\.id=CartPoel-v1 is unknown \(did you mean CartPole-v1"),
        (EnvConfig(id="MiniGrid-DoorKy-5x5-v0"), "did you mean MiniGrid-DoorKey-5x5-v0"),
        (EnvConfig(id="nowhere.to.find:Env-v0"), "cannot import nowhere.to.find"),
        (EnvConfig(suite="no_such_module:tasks"), r"env\.suite=no_such_module:tasks: there is no such function"),
        (EnvConfig(suite="tests.envs.odd:Line"), r"env\.suite=tests\.envs\.odd:Line"),
        (EnvConfig(suite="builtins:list"), r"env\.suite=builtins:list answers no tasks; let it answer Task"),
        (EnvConfig(suite="dorkey"), r"env\.suite=dorkey is unknown \(did you mean doorkey\?\); suites are: doorkey, multiroom"),
        (EnvConfig(suite="doorkey", tasks=["doorkey-8x8"]), r"doorkey-8x8 is no task of doorkey \(did you mean DoorKey-8x8"),
        (EnvConfig(suite="doorkey", tasks=[]), "env.tasks is empty"),
        (EnvConfig(suite="doorkey", tasks=["DoorKey-5x5", "DoorKey-5x5"]), "given twice"),
    ],
)
def test_a_task_space_that_does_not_exist_is_refused_in_one_sentence(config: EnvConfig, words: str) -> None:
    with pytest.raises(UserError, match=words):
        make_task_space(config)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kwargs": {"wings": 2}}, "CartPole-v1 with env.kwargs .*wings.* cannot be built: TypeError"),
        ({"wrappers": ["NoSuchWrapper"]}, "gymnasium.wrappers has no wrapper NoSuchWrapper"),
        ({"wrappers": ["TimeLimt"]}, "did you mean TimeLimit"),
        ({"wrappers": ["no.module:Wrapper"]}, "cannot import no.module"),
        ({"wrappers": [{"name": "TimeLimit", "kwargs": {"legs": 1}}]}, "TimeLimit with kwargs .*legs.* does not fit"),
        ({"wrappers": [{"nom": "TimeLimit"}]}, "is no wrapper; write"),
        ({"vectorization": "parallel"}, "env.vectorization=parallel is unknown; choose one of sync, async"),
        ({"num_envs": 0}, "env.num_envs=0 has to be at least 1"),
        ({"modalities": {"observation": "image"}}, "`observation` .* image"),
    ],
)
def test_environments_that_cannot_be_made_are_refused_in_one_sentence(changes: dict[str, Any], words: str) -> None:
    config = EnvConfig(id="CartPole-v1", **changes)
    with pytest.raises(UserError, match=words):
        make_envs(config, make_task_space(config))


def failing_suite() -> list[Task]:
    raise ValueError("no levels")


def bare_suite() -> list[Task]:
    return [Task("A", {"env": "CartPole-v1"})]


def test_a_suite_that_raises_is_refused_and_constructor_arguments_may_be_left_out() -> None:
    with pytest.raises(UserError, match=r"failing_suite raises ValueError: no levels"):
        make_task_space(EnvConfig(suite=f"{__name__}:failing_suite"))
    assert make_task_space(EnvConfig(suite=f"{__name__}:bare_suite")).hardest.params["kwargs"] == {}


def test_an_environment_without_spaces_is_refused() -> None:
    with pytest.raises(UserError, match=r"has no observation_space of gymnasium\.spaces"):
        make_envs(EnvConfig(), TaskSpace((fixed("none", None),)))  # type: ignore[arg-type]


def fixed(name: str, observation: spaces.Space[Any], action: spaces.Space[Any] | None = None) -> Task:
    return Task(name, {"env": "tests.envs.odd:Fixed-v0", "kwargs": {"observation": observation, "action": action}})


def test_tasks_that_observe_different_things_are_refused() -> None:
    tasks = TaskSpace((fixed("small", spaces.Box(0.0, 1.0, (2,))), fixed("large", spaces.Box(0.0, 1.0, (3,)))))
    with pytest.raises(
        UserError, match=r"`observation` is Box.*\(2,\).* in task small but is Box.*\(3,\).* in large; .*env\.tasks"
    ):
        make_envs(EnvConfig(), tasks)


def test_tasks_of_which_one_lacks_an_observation_are_refused() -> None:
    one, two = spaces.Dict({"a": spaces.Discrete(2)}), spaces.Dict({"a": spaces.Discrete(2), "b": spaces.Discrete(2)})
    with pytest.raises(UserError, match="`b` is missing in task one but is Discrete"):
        make_envs(EnvConfig(), TaskSpace((fixed("one", one), fixed("two", two))))


def test_tasks_with_different_actions_are_refused() -> None:
    view = spaces.Box(0.0, 1.0, (2,))
    with pytest.raises(UserError, match=r"action space is Discrete\(2\) in task two but Discrete\(3\) in three"):
        make_envs(EnvConfig(), TaskSpace((fixed("two", view, spaces.Discrete(2)), fixed("three", view, spaces.Discrete(3)))))


def test_full_views_of_rooms_of_different_sizes_are_refused() -> None:
    config = EnvConfig(suite="doorkey", wrappers=["minigrid.wrappers:FullyObsWrapper"])
    with pytest.raises(UserError, match=r"`image` .* in task DoorKey-5x5 but .* in DoorKey-6x6"):
        make_envs(config, make_task_space(config))


def test_wrappers_apply_in_the_order_given() -> None:
    stack = {"name": "FrameStackObservation", "kwargs": {"stack_size": 3}}
    config = EnvConfig(id="CartPole-v1", wrappers=[stack, "FlattenObservation"])
    envs = make_envs(config, make_task_space(config), 2)
    assert envs.spec.observations[0].shape == (12,)
    obs = envs.reset([make_task_space(config).hardest.with_seed(i) for i in range(2)])
    assert obs["observation"].dtype == np.float32


def test_an_id_takes_precedence_over_the_suite_of_the_default_recipe():
    tasks = make_task_space(EnvConfig(id="CartPole-v1", suite="doorkey", tasks=["DoorKey-5x5"]))
    assert tasks.ids == ("CartPole-v1",)
