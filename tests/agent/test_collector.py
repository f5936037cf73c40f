"""Playing, against episodes worked out by hand: what is recorded, judged and begun next; and episodes taken up again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from agent.collector import Collector
from agent.replay import Episode, OpenEpisode, Replay
from agent.rewards import LearnedReward
from curriculum.base import Curriculum
from envs import SuccessRule, TaskSpace, make_envs, make_task_space
from envs.config import EnvConfig
from envs.errors import UserError
from envs.tasks import Outcome, Task
from tests.agent.streams_data import assert_same
from tests.agent.tiny import Drift

Script = Callable[[int, int], int]  # (environment, step) -> action


class ScriptedAgent:
    """Acts by a script and keeps what it was shown."""

    def __init__(self, script: Script, step: int = 0) -> None:
        self.script, self.step = script, step
        self.seen: list[tuple[np.ndarray, np.ndarray, str, bool]] = []
        self.practises = False

    def initial_state(self, batch: int, exploring: bool = False) -> Any:
        return None

    def practice(self, state: Any) -> np.ndarray:
        """Environment 1 practises, if any does."""
        return np.arange(len(self.seen[-1][1])) == (1 if self.practises else -1)

    def act(self, obs: Mapping[str, np.ndarray], first: np.ndarray, state: Any, mode: str, grow: bool, plan: bool) -> Any:
        self.seen.append((obs["observation"].copy(), first.copy(), mode, grow))
        action = np.array([self.script(env, self.step) for env in range(len(first))])
        self.step += 1
        return action, np.full(len(first), -0.5, np.float32), state


class Diary(Curriculum):
    """Uniform over one task, and writes down what it is told and asked."""

    def __init__(self, tasks: TaskSpace) -> None:
        super().__init__(tasks)
        self.entries: list[Any] = []

    def distribution(self) -> np.ndarray:
        return np.ones(1)

    def update(self, outcomes: Sequence[Outcome]) -> None:
        self.entries += outcomes

    def sample(self, n: int, rng: np.random.Generator) -> list[Task]:
        tasks = super().sample(n, rng)
        self.entries += [f"asked for {n}"] if n else []
        return tasks


class Stage:
    """A collector on environments `env`, played by a script, with everything it hands out."""

    def __init__(self, env: dict[str, Any], num_envs: int, script: Script, reward: str = "raw", step: int = 0) -> None:
        config = EnvConfig(num_envs=num_envs, holdout=False, reward=reward, **env)
        tasks = make_task_space(config)
        self.envs = make_envs(config, tasks, gamma=0.9)
        self.reward = LearnedReward(config, self.envs)
        self.agent, self.curriculum, self.episodes = ScriptedAgent(script, step), Diary(tasks), list[Episode]()
        self.replay = Replay(self.envs.spec, num_envs, 1000, tasks.ids, self.episodes.append)
        rng = np.random.default_rng(0)
        agent: Any = self.agent
        rule = SuccessRule.parse("return>=1")
        self.collector = Collector(self.envs, agent, self.replay, self.curriculum, rule, self.reward, rng)

    def play(self, steps: int) -> list[Outcome]:
        return [outcome for _ in range(steps) for outcome in self.collector.step()]

    def taken_up(self, **changes: Any) -> tuple[Stage, list[str]]:
        """Another stage that takes up this one's episodes; `changes` of its arguments."""
        spec = self.arguments | changes
        other = Stage(**spec, step=self.agent.step)
        notes = other.collector.resume(self.replay.open_episodes(), self.collector.steps, None)  # type: ignore[arg-type]
        return other, notes

    @classmethod
    def begun(cls, **arguments: Any) -> Stage:
        stage = cls(**arguments)
        stage.arguments = arguments
        stage.collector.start()
        return stage

    arguments: dict[str, Any]


LINE = dict(id="tests.envs.odd:Line-v0", kwargs={"size": 1, "goal": 3, "cut": 5})
WAGE = dict(id="tests.agent.tiny:Wage-v0")
DRIFT = dict(id="tests.agent.tiny:Drift-v0")


def walk_or_stay(env: int, step: int) -> int:
    """Environment 0 always walks, so it arrives after 3 steps; environment 1 never does, so it is cut off after 5."""
    return 1 - env


def test_outcomes_carry_task_score_success_length_and_the_env_steps_of_the_whole_run():
    stage = Stage.begun(env=LINE, num_envs=2, script=walk_or_stay)
    assert stage.play(2) == []
    assert stage.play(1) == [Outcome("Line-v0", 1.0, True, 3, 6)]
    assert stage.play(2) == [Outcome("Line-v0", 0.0, False, 5, 10)]
    assert stage.play(1) == [Outcome("Line-v0", 1.0, True, 3, 12)]
    assert stage.collector.steps == 12


def test_episodes_that_were_practice_are_marked():
    stage = Stage.begun(env=LINE, num_envs=2, script=walk_or_stay)
    stage.agent.practises = True
    assert [(outcome.success, outcome.practice) for outcome in stage.play(6)] == [(True, False), (False, True), (True, False)]


def test_the_replay_holds_whole_episodes_with_termination_and_truncation_kept_apart():
    stage = Stage.begun(env=LINE, num_envs=2, script=walk_or_stay)
    stage.play(5)
    arrived, cut = stage.episodes
    assert arrived.obs["observation"][:, 0].tolist() == [0, 1, 2, 3] and cut.obs["observation"][:, 0].tolist() == [0] * 6
    assert arrived.action.tolist() == [1, 1, 1] and arrived.reward.tolist() == [0, 0, 1]
    assert (arrived.terminated, arrived.truncated) == (True, False)
    assert (cut.terminated, cut.truncated) == (False, True)
    assert arrived.log_prob.tolist() == [-0.5] * 3


def test_the_agent_is_told_where_episodes_start_and_lets_its_symbol_tables_grow():
    stage = Stage.begun(env=LINE, num_envs=2, script=walk_or_stay)
    stage.play(6)
    firsts = [first.tolist() for _, first, _, _ in stage.agent.seen]
    assert firsts == [[True, True], [False, False], [False, False], [True, False], [False, False], [False, True]]
    assert [obs[0, 0] for obs, *_ in stage.agent.seen] == [0, 1, 2, 0, 1, 2]
    assert {(mode, grow) for *_, mode, grow in stage.agent.seen} == {("sample", True)}


def test_the_curriculum_hears_of_an_episode_before_it_is_asked_for_the_next():
    stage = Stage.begun(env=LINE, num_envs=2, script=walk_or_stay)
    stage.play(3)
    assert stage.curriculum.entries == ["asked for 2", Outcome("Line-v0", 1.0, True, 3, 6), "asked for 1"]


def test_an_episode_is_played_on_the_seed_that_the_curriculum_gave():
    stage = Stage.begun(env=WAGE, num_envs=2, script=walk_or_stay)
    asked = [task.seed for task in stage.collector.playing]
    stage.play(3)
    assert [episode.seed for episode in stage.episodes] == asked
    assert [task.seed for task in stage.collector.playing] != asked
    numbers = [np.random.Generator(np.random.PCG64(seed)).integers(1000) for seed in asked]
    assert [episode.obs["observation"][0, 0] for episode in stage.episodes] == numbers


@pytest.mark.parametrize(("kind", "learned"), [("raw", [5, -2, 5]), ("sign", [1, -1, 1])])
def test_the_agent_may_learn_from_signs_but_scores_are_raw(kind: str, learned: list[float]):
    stage = Stage.begun(env=WAGE, num_envs=1, script=lambda env, step: (1, 0, 1)[step], reward=kind)
    assert stage.play(3) == [Outcome("Wage-v0", 8.0, True, 3, 3)]
    assert stage.episodes[0].reward.tolist() == learned


def test_an_unknown_kind_of_reward_is_refused_before_anything_is_played():
    with pytest.raises(UserError, match=r"env\.reward=log is unknown; choose one of raw, sign"):
        Stage(WAGE, 1, walk_or_stay, reward="log")


def test_the_current_task_is_the_one_that_most_environments_play():
    stage = Stage.begun(env=WAGE, num_envs=3, script=walk_or_stay)
    stage.collector.playing = [Task("hard"), Task("easy"), Task("hard")]
    assert stage.collector.current_task() == "hard"


# -- taking up episodes --------------------------------------------------------------------------------------------------


def staggered(env: int, step: int) -> int:
    """Environment 0 quits at every second step, 1 at every third, 2 at every fifth: their episodes are of different ages."""
    return int((step + 1) % (2, 3, 5)[env] != 0)


QUITS = dict(env=WAGE | {"kwargs": {"limit": 99, "quits": True}}, num_envs=3, script=staggered)


@pytest.mark.parametrize("steps", range(1, 9))
def test_episodes_of_any_age_are_taken_up_where_they_were_although_waiting_environments_end_and_begin_again(steps: int):
    stage = Stage.begun(**QUITS)
    stage.play(steps)
    ages = [len(episode) for episode in stage.replay.open_episodes()]
    assert ages == [steps % 2, steps % 3, steps % 5]
    other, notes = stage.taken_up()
    assert notes == [] and other.collector.steps == stage.collector.steps
    for name in ("first", "score", "length"):
        assert getattr(other.collector, name).tolist() == getattr(stage.collector, name).tolist(), name
    assert other.collector.playing == stage.collector.playing
    assert other.collector.obs["observation"].tolist() == stage.collector.obs["observation"].tolist()
    for mine, theirs in zip(other.replay.open_episodes(), stage.replay.open_episodes(), strict=True):
        assert_same(mine, theirs)
    # To the end of each of these episodes: what comes after is drawn anew.
    ends = [(0, steps // 2 * 2 + 2), (1, steps // 3 * 3 + 3), (2, steps // 5 * 5 + 5)]
    goes_on = [other.play(1) for _ in range(max(end for _, end in ends) - steps)]
    for env, end in ends:
        outcome = Outcome("Wage-v0", 5.0 * ((2, 3, 5)[env] - 1) - 2, True, (2, 3, 5)[env], 3 * end)
        assert outcome in goes_on[end - steps - 1]


@pytest.mark.parametrize(
    ("kwargs", "reason"),
    [({"shows": True}, "it shows something else"), ({"shows": False, "pays": True}, "it pays something else")],
)
def test_an_environment_that_does_not_repeat_itself_starts_anew_and_says_so(kwargs: dict[str, Any], reason: str):
    stage = Stage.begun(env=DRIFT | {"kwargs": kwargs}, num_envs=2, script=walk_or_stay)
    stage.play(3)
    other, notes = stage.taken_up()
    assert notes == [f"environment {i} did not come out the same when replayed: its episode starts anew" for i in (0, 1)], reason
    assert other.collector.first.all() and other.collector.length.tolist() == [0, 0] and other.collector.score.tolist() == [0, 0]
    assert [len(episode) for episode in other.replay.open_episodes()] == [0, 0]
    other.play(6)
    assert [len(episode) for episode in other.episodes] == [6, 6]


def test_an_episode_that_ends_early_when_replayed_starts_anew(monkeypatch: pytest.MonkeyPatch):
    blind = {"shows": False, "clock": False}  # nothing but the end itself tells
    stage = Stage.begun(env=DRIFT | {"kwargs": blind}, num_envs=2, script=walk_or_stay)
    stage.play(3)
    monkeypatch.setattr(Drift, "limit", 3)
    other, notes = stage.taken_up()
    assert len(notes) == 2 and other.collector.first.all() and not other.collector.length.any()


def test_only_the_environments_that_differ_start_anew():
    stage = Stage.begun(env=WAGE, num_envs=3, script=lambda env, step: 1)
    stage.play(2)
    changed: list[OpenEpisode] = stage.replay.open_episodes()
    changed[1].obs["observation"][1, 0] += 1  # as if environment 1 had shown something else
    other = Stage(WAGE, 3, lambda env, step: 1)
    notes = other.collector.resume(changed, stage.collector.steps, None)  # type: ignore[arg-type]
    assert notes == ["environment 1 did not come out the same when replayed: its episode starts anew"]
    assert other.collector.length.tolist() == [2, 0, 2] and other.collector.score.tolist() == [10, 0, 10]
    assert other.collector.first.tolist() == [False, True, False]


def test_environments_without_an_episode_under_way_begin_one():
    stage = Stage.begun(env=WAGE, num_envs=2, script=walk_or_stay)
    stage.play(2)
    other = Stage(WAGE, 3, lambda env, step: 1)
    assert other.collector.resume(stage.replay.open_episodes(), 4, None) == []  # type: ignore[arg-type]
    assert other.collector.first.tolist() == [False, False, True] and other.collector.steps == 4
    assert [len(episode) for episode in other.replay.open_episodes()] == [2, 2, 0]
