"""The schedulers against behaviour worked out by hand."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

from curriculum import CURRICULA, Curriculum, CurriculumConfig, make_curriculum
from curriculum.config import AlpGmmConfig, LevelReplayConfig
from curriculum.sequential import Sequential
from envs.boxes import TaskBox
from envs.errors import UserError
from envs.tasks import Outcome, Task, TaskSpace

TASKS = TaskSpace((Task("easy"), Task("middle"), Task("hard")), TaskBox(("size",), (0.0,), (3.0,), cells=3))


def scheduler(name: str, **keys: float) -> Curriculum:
    small, soon = LevelReplayConfig(levels=16), AlpGmmConfig(first=8, every=8)
    return make_curriculum(CurriculumConfig(name=name, level_replay=small, alp_gmm=soon, **keys), TASKS)  # type: ignore[arg-type]


def outcomes(task: str, *successes: int) -> list[Outcome]:
    return [Outcome(task, float(success), bool(success), 10) for success in successes]


def finished(task: Task, luck: np.random.Generator) -> Outcome:
    """How an episode of a drawn task went, by chance."""
    success = luck.random() < 0.8
    signals = {"value_error": float(luck.random()), "regret": float(luck.random())}
    return Outcome(
        task.id, float(success), bool(success), 10, seed=int(task.seed or 0), signals=signals, numbers=task.params.get("numbers")
    )


def told(curriculum: Curriculum, luck: np.random.Generator) -> dict[str, dict[str, float]]:
    """The signals that a scheduler asks for, by chance."""
    return {task: {name: float(luck.random()) for name in sorted(curriculum.required_signals)} for task in curriculum.tasks.ids}


def feed(curriculum: Curriculum, rounds: int) -> None:
    """Let a scheduler play and learn for a while."""
    rng, luck = np.random.default_rng(2), np.random.default_rng(3)
    for _ in range(rounds):
        curriculum.update([finished(task, luck) for task in curriculum.sample(3, rng)])
        curriculum.observe(told(curriculum, luck))


def sequential(window: int = 4, threshold: float = 0.75, revisit: float = 0.2) -> Sequential:
    return Sequential(TASKS, CurriculumConfig(threshold=threshold, window=window, revisit=revisit))


def test_target_only_plays_the_hardest_task_and_nothing_moves_it():
    target = scheduler("target_only")
    target.update(outcomes("hard", 0, 0, 0, 0))
    assert target.distribution().tolist() == [0, 0, 1]
    assert {task.id for task in target.sample(50, np.random.default_rng(0))} == {"hard"}


def test_uniform_plays_every_task_equally_often_and_nothing_moves_it():
    uniform = scheduler("uniform")
    uniform.update(outcomes("easy", 1, 1, 1, 1))
    assert uniform.distribution().tolist() == [1 / 3] * 3


def test_sequential_begins_with_the_easiest_task_alone():
    assert sequential().distribution().tolist() == [1, 0, 0]


def test_sequential_moves_on_when_a_full_window_reaches_the_threshold():
    curriculum = sequential(window=4, threshold=0.75)
    curriculum.update(outcomes("easy", 1, 1, 1))
    assert curriculum.current == 0, "three successes of three are not a full window"
    curriculum.update(outcomes("easy", 0))
    assert curriculum.current == 1, "three of four reach 0.75"


def test_sequential_looks_at_the_newest_episodes_only():
    curriculum = sequential(window=4, threshold=0.75)
    curriculum.update(outcomes("easy", 1, 1, 0, 0, 1))
    assert curriculum.current == 0
    curriculum.update(outcomes("easy", 1))
    assert curriculum.current == 0, "of the last four, two"
    curriculum.update(outcomes("easy", 1))
    assert curriculum.current == 1, "of the last four, three"


def test_sequential_starts_the_next_task_with_an_empty_window():
    curriculum = sequential(window=4, threshold=0.75)
    curriculum.update(outcomes("easy", 1, 1, 1, 1))
    curriculum.update(outcomes("middle", 1, 1, 1))
    assert curriculum.current == 1
    curriculum.update(outcomes("middle", 1))
    assert curriculum.current == 2


def test_sequential_hears_only_of_the_current_task():
    curriculum = sequential(window=4)
    curriculum.update(outcomes("hard", 1, 1, 1, 1) + outcomes("middle", 1, 1, 1, 1))
    assert curriculum.current == 0
    curriculum.update(outcomes("easy", 1, 1, 1, 1))
    curriculum.update(outcomes("easy", 1, 1, 1, 1))  # revisited
    assert curriculum.current == 1


def test_episodes_that_end_together_are_judged_one_after_the_other():
    curriculum = sequential(window=2, threshold=1.0)
    curriculum.update(outcomes("easy", 1, 1) + outcomes("middle", 1) + outcomes("easy", 0) + outcomes("middle", 1))
    assert curriculum.current == 2


def test_sequential_stays_at_the_last_task():
    curriculum = sequential(window=1, threshold=1.0)
    for _ in range(3):
        curriculum.update(outcomes("easy", 1) + outcomes("middle", 1) + outcomes("hard", 1))
    assert curriculum.current == 2


def test_a_share_of_the_episodes_revisits_what_was_passed_each_task_equally():
    curriculum = sequential(window=1, threshold=1.0, revisit=0.2)
    curriculum.update(outcomes("easy", 1))
    assert curriculum.distribution() == pytest.approx([0.2, 0.8, 0])
    curriculum.update(outcomes("middle", 1))
    assert curriculum.distribution() == pytest.approx([0.1, 0.1, 0.8])


def test_the_threshold_counts_as_reached_when_it_is_met_exactly():
    curriculum = sequential(window=30, threshold=0.9)
    curriculum.update(outcomes("easy", 0, 0, 0, *[1] * 26))
    assert curriculum.current == 0
    curriculum.update(outcomes("easy", 1))
    assert curriculum.current == 1, "27 of 30"


@pytest.mark.parametrize("name", CURRICULA)
def test_tasks_are_drawn_as_often_as_the_distribution_says(name: str):
    """Pearson's chi-square: with two degrees of freedom more than 13.8 turns up once in a thousand."""
    curriculum = scheduler(name, window=2, threshold=1.0)
    feed(curriculum, rounds=12)
    p, n = curriculum.distribution(), 4000
    assert p.sum() == pytest.approx(1) and (p >= 0).all()
    drawn = [task.id for task in curriculum.sample(n, np.random.default_rng(0))]
    counts = np.array([drawn.count(task.id) for task in TASKS])
    assert not counts[p == 0].any()
    assert ((counts - n * p)[p > 0] ** 2 / (n * p)[p > 0]).sum() < 13.8


@pytest.mark.parametrize("name", CURRICULA)
def test_every_drawn_task_carries_a_seed_of_its_own_and_the_generator_alone_decides(name: str):
    curriculum = scheduler(name)
    drawn = curriculum.sample(100, np.random.default_rng(7))
    assert len({task.seed for task in drawn}) == 100
    assert all(isinstance(task.seed, int) and 0 <= task.seed < 2**31 for task in drawn)
    assert curriculum.sample(100, np.random.default_rng(7)) == drawn
    assert curriculum.sample(100, np.random.default_rng(8)) != drawn


@pytest.mark.parametrize("name", CURRICULA)
def test_drawing_no_task_draws_no_random_number(name: str):
    rng = np.random.default_rng(3)
    before = rng.bit_generator.state
    assert scheduler(name).sample(0, rng) == []
    assert rng.bit_generator.state == before


@pytest.mark.parametrize("name", CURRICULA)
def test_a_state_that_went_through_json_continues_the_same_sequence_of_tasks(name: str):
    def go_on(curriculum: Curriculum, rng: np.random.Generator, luck: np.random.Generator, episodes: int) -> list[Task]:
        played = []
        for _ in range(episodes):
            (task,) = curriculum.sample(1, rng)
            played.append(task)
            curriculum.update([finished(task, luck)])
            curriculum.observe(told(curriculum, luck))
        return played

    straight, rng, luck = scheduler(name, window=5, threshold=0.8), np.random.default_rng(0), np.random.default_rng(1)
    go_on(straight, rng, luck, 23)
    stopped = json.loads(json.dumps([straight.state_dict(), rng.bit_generator.state, luck.bit_generator.state]))

    resumed = scheduler(name, window=5, threshold=0.8)
    resumed.load_state_dict(stopped[0])
    own_rng, own_luck = np.random.default_rng(), np.random.default_rng()
    own_rng.bit_generator.state, own_luck.bit_generator.state = stopped[1:]
    assert go_on(resumed, own_rng, own_luck, 40) == go_on(straight, rng, luck, 40)
    assert resumed.metrics() == straight.metrics() and resumed.state_dict() == straight.state_dict()


@pytest.mark.parametrize("name", CURRICULA)
def test_a_sample_of_a_thousand_tasks_takes_less_than_a_millisecond(name: str):
    tasks = TaskSpace(tuple(Task(f"task-{i}") for i in range(1000)), TaskBox(("size",), (0.0,), (1.0,), cells=1000))
    curriculum, luck = make_curriculum(CurriculumConfig(name=name), tasks), np.random.default_rng(0)
    curriculum.update([finished(task.with_seed(i), luck) for i, task in enumerate(tasks)])
    curriculum.observe(told(curriculum, luck))
    rng, seconds = np.random.default_rng(1), []
    for _ in range(30):
        began = time.perf_counter()
        curriculum.sample(1, rng)
        seconds.append(time.perf_counter() - began)
    assert min(seconds) < 1e-3, "the quickest: the rest is what else the machine does"


@pytest.mark.parametrize("name", CURRICULA)
def test_the_distribution_is_logged_by_task(name: str):
    curriculum = scheduler(name)
    metrics = curriculum.metrics()
    assert [metrics[f"p/{task.id}"] for task in TASKS] == curriculum.distribution().tolist()
    assert all(isinstance(value, float) for value in metrics.values())


def test_a_narrower_window_given_when_resuming_keeps_the_newest_episodes():
    before = sequential(window=4, threshold=0.75)
    before.update(outcomes("easy", 0, 1, 1))
    after = sequential(window=2, threshold=0.75)
    after.load_state_dict(before.state_dict())
    assert list(after.recent) == [True, True]


@pytest.mark.parametrize("name", CURRICULA)
def test_signals_that_were_not_asked_for_change_nothing(name: str):
    curriculum = scheduler(name)
    before = curriculum.distribution().tolist()
    curriculum.observe({"easy": {"mood": 1.0}})
    assert curriculum.distribution().tolist() == before


class Overheard:
    """A config that remembers which of its keys were read."""

    def __init__(self, config: CurriculumConfig) -> None:
        self.config, self.heard = config, set[str]()

    def __getattr__(self, key: str) -> object:
        self.heard.add(key)
        return getattr(self.config, key)


@pytest.mark.parametrize("name", CURRICULA)
def test_what_a_scheduler_says_that_it_reads_is_what_it_reads(name: str):
    config = Overheard(CurriculumConfig(window=2, threshold=0.5, alp_gmm=AlpGmmConfig(first=8, every=8)))
    curriculum = CURRICULA[name](TASKS, config)  # type: ignore[arg-type]
    feed(curriculum, 20)
    curriculum.metrics()
    curriculum.load_state_dict(curriculum.state_dict())
    assert frozenset(config.heard - {"name"}) == curriculum.reads


def test_an_unknown_name_is_refused_with_the_names_there_are():
    with pytest.raises(
        UserError, match=r"curriculum\.name 'random' is unknown; choose one of target_only, .* package\.module\.Class"
    ):
        scheduler("random")
