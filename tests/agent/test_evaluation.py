"""Evaluation: on layouts never trained on, of every episode that is begun, without a trace in the run that asks for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from agent.agent import Agent
from agent.build import build_agent
from agent.config import EvalConfig
from agent.evaluation import DRAWS, EvaluationStopped, StepLimit, check_evaluation, evaluate, seeded
from envs import TaskVectorEnv, make_envs, make_task_space
from envs.config import EnvConfig
from envs.errors import UserError
from envs.splits import split_of
from envs.tasks import TaskSpace
from tests.agent.tiny import DOORKEY, tiny_config

PHASES = EnvConfig(id="tests.agent.tiny:Phases-v0", num_envs=4, holdout=False, success="return>=1")
SMALL = EnvConfig(suite="doorkey", tasks=["DoorKey-5x5"], kwargs={"max_steps": 4}, num_envs=4)
CPU = torch.device("cpu")


class Watcher:
    """An agent that never moves, and notes which episodes it was shown the beginning of."""

    device = CPU

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.modes: set[str] = set()

    def initial_state(self, batch: int) -> Any:
        return None

    def act(self, obs: Mapping[str, np.ndarray], first: np.ndarray, state: Any, mode: str = "sample") -> Any:
        self.begun += next(iter(obs.values())).reshape(len(first), -1)[first, 0].astype(int).tolist()
        self.modes.add(mode)
        return np.zeros(len(first), np.int64), np.zeros(len(first), np.float32), state


def watched(config: EnvConfig, episodes: int, **keys: Any) -> tuple[Watcher, Any]:
    watcher: Any = Watcher()
    (result,) = evaluate(watcher, config, make_task_space(config), episodes, **keys).values()
    return watcher, result


def layouts_played(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The layout of every episode that any environment begins from here on."""
    played: list[str] = []
    reset = TaskVectorEnv.reset

    def recording(self: TaskVectorEnv, tasks: Any, mask: np.ndarray | None = None) -> Any:
        obs = reset(self, tasks, mask)
        played.extend(self.layout(i) for i in range(self.num_envs) if mask is None or mask[i])
        return obs

    monkeypatch.setattr(TaskVectorEnv, "reset", recording)
    return played


@pytest.mark.parametrize("split", ["test", "validation"])
def test_held_out_layouts_are_never_those_of_training(split: str, monkeypatch: pytest.MonkeyPatch):
    tasks = make_task_space(SMALL)
    trained = make_envs(SMALL, tasks, 1)
    seen = set()
    for seed in range(60):
        trained.reset([tasks.hardest.with_seed(seed)])
        seen.add(trained.layout(0))
    played = layouts_played(monkeypatch)
    watched(SMALL, 12, split=split)
    assert len(played) >= 12 and not seen & set(played)
    assert {split_of(layout) for layout in played} == {split} and {split_of(layout) for layout in seen} == {"train"}


@pytest.mark.parametrize("episodes", [1, 3, 4, 17])
def test_every_episode_that_is_begun_counts_so_that_quick_ones_are_not_favoured(episodes: int):
    watcher, result = watched(PHASES, episodes)
    begun = watcher.begun[:episodes]  # an episode of number n lasts 1 + n % 7 steps and pays 1 if n is even
    assert len(result.success) == len(result.score) == len(result.length) == episodes
    assert sorted(result.length) == sorted(1 + number % 7 for number in begun)
    assert sum(result.success) == sum(number % 2 == 0 for number in begun) == sum(result.score)


def test_layouts_are_not_played_twice_while_there_are_others():
    watcher, result = watched(replace(PHASES, holdout=True), 40)
    assert result.layouts == 40 == len(set(watcher.begun[:40]))
    small = replace(PHASES, holdout=True, kwargs={"numbers": 40})
    _, few = watched(small, 10)
    _, all_of_them = watched(small, 100)
    assert 2 <= few.layouts <= all_of_them.layouts < 10, "a tenth of 40, more or less"
    assert len(few.success) == 10 and len(all_of_them.success) == 100


def test_no_new_layouts_are_looked_for_once_there_are_none_left_and_where_none_are_held_out(monkeypatch: pytest.MonkeyPatch):
    played = layouts_played(monkeypatch)
    watched(replace(PHASES, holdout=True, kwargs={"numbers": 40}), 100)
    assert 100 < len(played) < 100 + 3 * DRAWS, "at most one episode draws in vain, and a few draw some times"
    played.clear()
    watched(replace(PHASES, kwargs={"numbers": 3}), 20)
    assert len(played) <= 20 + 4 * PHASES.num_envs, "every episode, and the environments that idle at the end, for three steps"


def test_an_evaluation_ends_at_once_when_it_is_told_to():
    watcher: Any = Watcher()
    asked = iter([False, False, True])
    with pytest.raises(EvaluationStopped):
        evaluate(watcher, PHASES, make_task_space(PHASES), 10**6, stopped=lambda: next(asked))


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_an_episode_without_an_end_is_cut_off_and_that_is_told_once(vectorization: str, caplog: pytest.LogCaptureFixture):
    limit = StepLimit(9)
    config = EnvConfig(id="tests.agent.tiny:Endless-v0", num_envs=2, vectorization=vectorization, holdout=False, report=["steps"])
    for _ in range(2):
        _, result = watched(replace(config, success="info:alive"), 5, limit=limit)
        assert result.length == [9] * 5 and result.success == [True] * 5, "its last info is that of the step it was cut off at"
        assert [info["steps"] for info in result.infos] == [9] * 5
    _, result = watched(config, 1, limit=limit)
    assert result.success == [False], "it did not terminate, whatever its last reward"
    assert [record.message for record in caplog.records if "eval.max_episode_steps=9" in record.message] == [
        "an episode of Endless-v0 was cut off after eval.max_episode_steps=9 steps, as any will be that takes so long: "
        "give more, or env.max_episode_steps=N if it has no end"
    ]


def test_an_episode_that_ends_by_itself_at_the_limit_is_none_that_was_cut_off(caplog: pytest.LogCaptureFixture):
    _, result = watched(PHASES, 30, limit=StepLimit(7))
    assert max(result.length) == 7 and not caplog.records
    assert watched(PHASES, 30)[1] == result


def test_an_evaluation_is_repeatable_and_its_seed_decides():
    first, again, other = (watched(PHASES, 12, seed=seed)[1] for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize("names", [("one", "two"), ("zero", "two", "one")])
def test_the_layouts_of_a_task_depend_neither_on_the_agent_nor_on_other_tasks(names: tuple[str, ...]):
    """Agents whose episodes last for other times leave environments idle, which draw layouts too."""

    class Marking(Watcher):
        def initial_state(self, batch: int) -> Any:
            self.starts = [*getattr(self, "starts", []), len(self.begun)]

    (task,) = make_task_space(PHASES)
    played = {}
    for limit in (3, 7):
        watcher: Any = Marking()
        tasks = TaskSpace(tuple(replace(task, id=name) for name in names))
        evaluate(watcher, PHASES, tasks, 6, limit=StepLimit(limit))
        played[limit] = {name: watcher.begun[start : start + 4] for name, start in zip(names, watcher.starts, strict=True)}
    assert played[3] == played[7]
    alone: Any = Marking()
    evaluate(alone, PHASES, TaskSpace((replace(task, id="two"),)), 6)
    assert alone.begun[:4] == played[3]["two"] != played[3]["one"]


@pytest.mark.parametrize("policy", ["sample", "greedy"])
def test_the_agent_is_asked_for_the_policy_that_is_evaluated(policy: str):
    assert watched(PHASES, 2, policy=policy)[0].modes == {policy}


def test_evaluation_of_a_real_agent_draws_no_random_number_of_its_caller_and_lets_no_table_grow():
    config = tiny_config(DOORKEY)
    tasks = make_task_space(config.env)
    spec = make_envs(config.env, tasks, 1).spec
    torch.manual_seed(0)
    agent: Agent = build_agent(config, spec, CPU)[0]
    weights = {name: value.clone() for name, value in agent.model.state_dict().items()}
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state(legacy=False)  # noqa: NPY002  # the global one has to stay
    results = evaluate(agent, config.env, tasks, 2, seed=7)
    assert set(results) == {"DoorKey-5x5", "DoorKey-6x6"}
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert str(np.random.get_state(legacy=False)) == str(numpy_state)  # noqa: NPY002
    assert all(torch.equal(value, weights[name]) for name, value in agent.model.state_dict().items())
    torch.manual_seed(99)  # and does not depend on where its caller's stand
    assert evaluate(agent, config.env, tasks, 2, seed=7) == results


def test_a_seeded_stretch_gives_the_random_state_back_even_when_it_fails():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError), seeded(3, CPU):
        drawn = torch.rand(3)
        raise ZeroDivisionError
    assert torch.equal(torch.get_rng_state(), before)
    with seeded(3, CPU):
        assert torch.equal(torch.rand(3), drawn)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (EvalConfig(policy="best"), "eval.policy=best is unknown; choose one of sample, greedy"),
        (EvalConfig(split="train"), "eval.split=train is unknown; choose one of test, validation"),
        (EvalConfig(max_episode_steps=0), "eval.max_episode_steps=0 is too few"),
        (EvalConfig(episodes=0), "eval.episodes=0 is too few"),
    ],
)
def test_what_evaluation_would_stumble_over_is_refused_before_training(config: EvalConfig, sentence: str):
    with pytest.raises(UserError, match=sentence):
        check_evaluation(config)
