"""Schedulers that play where success, or the world model, is changing: their arithmetic by hand."""

from __future__ import annotations

import numpy as np
import pytest

from curriculum import CurriculumConfig, make_curriculum
from curriculum.config import LearningProgressConfig, ModelProgressConfig, RangesConfig
from curriculum.learnability import Learnability
from curriculum.learning_progress import LearningProgress, emphasised
from curriculum.model_progress import ModelProgress, change
from curriculum.weights import RecentSuccess, shares
from envs.errors import UserError
from tests.curriculum.test_schedulers import TASKS, outcomes


def test_shares_are_in_proportion_and_a_part_of_them_is_for_all_alike():
    assert shares(np.array([1.0, 3.0])).tolist() == [0.25, 0.75]
    assert shares(np.array([0.0, 4.0]), explore=0.2) == pytest.approx([0.1, 0.9])
    assert shares(np.zeros(4), explore=0.2).tolist() == [0.25] * 4


def test_recent_success_is_laplaces_over_the_newest_episodes():
    recent = RecentSuccess(2, window=3)
    for success in (1, 1, 0, 0):
        recent.record(0, bool(success))
    assert recent.rate().tolist() == [2 / 5, 1 / 2]


def test_learnability_weighs_a_toss_up_most():
    """Rates by Laplace's rule: 9/10, 1/2 and, never played, 1/2; weights 0.09, 0.25, 0.25."""
    scheduler = Learnability(TASKS, CurriculumConfig(window=8, explore=0.0))
    scheduler.update(outcomes("easy", *[1] * 8) + outcomes("middle", *[1, 0] * 4))
    assert scheduler.distribution() == pytest.approx([0.09 / 0.59, 0.25 / 0.59, 0.25 / 0.59])


def test_emphasis_stretches_success_near_it():
    """(1 - e) p / (p + e (1 - 2p)) with e = 0.1: 0.09 / 0.18 at 0.1, 0.45 / 0.5 at 0.5; 0 and 1 stay; 0.5 changes nothing."""
    assert emphasised(np.array([0.0, 0.1, 0.5, 1.0]), 0.1) == pytest.approx([0, 0.5, 0.9, 1])
    assert emphasised(np.array([0.0, 0.3, 1.0]), 0.5) == pytest.approx([0, 0.3, 1])


def test_learning_progress_is_the_distance_of_two_averages():
    """Fast 0.5, slow a half of that again: 1 -> 0.5, 0.25; then 1 -> 0.75, 0.5."""
    rates = LearningProgressConfig(fast=0.5, slow=0.5, emphasis=0.5)
    scheduler = LearningProgress(TASKS, CurriculumConfig(explore=0.1, learning_progress=rates))
    scheduler.update(outcomes("easy", 1))
    assert scheduler.progress() == pytest.approx([0.25, 0, 0])
    scheduler.update(outcomes("easy", 1) + outcomes("middle", 1))
    assert scheduler.progress() == pytest.approx([0.25, 0.25, 0])
    assert scheduler.distribution() == pytest.approx([0.45 + 0.1 / 3, 0.45 + 0.1 / 3, 0.1 / 3])


def test_what_is_mastered_or_hopeless_makes_no_progress_and_what_is_forgotten_does():
    scheduler = LearningProgress(TASKS, CurriculumConfig(explore=0.0))
    scheduler.update(outcomes("easy", *[1] * 1000) + outcomes("middle", *[1] * 1000) + outcomes("hard", *[0] * 1000))
    assert scheduler.progress().max() < 1e-3
    scheduler.update(outcomes("middle", *[0] * 10))
    assert scheduler.distribution()[1] > 0.99


def test_a_change_of_losses_by_hand():
    """4, 2, 1, 1: means 3 and 1; successive differences 2, 1, 0 make a variance of 5/6, the means of two differ by chance by
    sqrt(2 * 5/6 / 2)."""
    assert change([4.0, 2.0, 1.0, 1.0]) == pytest.approx((2.0, np.sqrt(5 / 6)))
    assert change([9.0, 4.0, 2.0, 1.0, 1.0])[0] == 2.0, "the oldest of an odd number is left out"
    assert change([1.0, 1.0, 2.0, 4.0])[0] == 2.0, "a rise is a change"
    assert change([]) == change([3.0]) == (0.0, 0.0)


def test_chance_is_that_of_means_over_blocks_of_losses():
    """Forty-six losses: halves of twenty-three, of which ten blocks of two are left; they go up by one in every second block."""
    block = [0.0, 0.0, 1.0, 1.0]
    older, newer = [9.0] * 3 + block * 5, [9.0] * 3 + block * 5
    assert change(older + newer) == pytest.approx((0.0, np.sqrt(2 * 0.5 / 10)))


def test_every_task_weighs_what_chance_makes_of_the_median_task_besides():
    """Chance makes 0, c and 2 c of three losses, c = sqrt(5/6), which moved by 0, 2 and 4."""
    scheduler = ModelProgress(TASKS, CurriculumConfig(explore=0.0, model_progress=ModelProgressConfig(window=2, certainty=1.0)))
    assert scheduler.distribution() == pytest.approx([1 / 3] * 3), "nothing is known"
    for loss in (4.0, 2.0, 1.0, 1.0):
        scheduler.observe({"easy": {"model_loss": 1.0}, "middle": {"model_loss": loss}, "hard": {"model_loss": 2 * loss}})
    chance = np.sqrt(5 / 6)
    assert scheduler.distribution() == pytest.approx(np.array([chance, 2.0, 4.0 - chance]) / 6)


def test_model_progress_compares_the_newest_losses_with_those_before_and_forgets_the_rest():
    scheduler = ModelProgress(TASKS, CurriculumConfig(model_progress=ModelProgressConfig(window=2, certainty=0.0)))
    for loss in (100.0, 4.0, 2.0, 1.0, 1.0):
        scheduler.observe({"easy": {"model_loss": loss}, "hard": {"disagreement": 1.0}})
    assert scheduler.progress().tolist() == [2.0, 0.0, 0.0]


def test_what_an_untrained_model_lost_is_no_progress_later():
    """The loss falls from 100 to 1 in a few updates and stays there; another one still falls, slowly."""
    rng = np.random.default_rng(2)
    scheduler = ModelProgress(TASKS, CurriculumConfig(explore=0.0))
    for step in range(500):
        still, slow = 1 + 99 * np.exp(-step / 20), 3 * np.exp(-step / 500)
        losses = {"easy": still + 0.1 * rng.random(), "hard": slow + 0.1 * rng.random()}
        scheduler.observe({task: {"model_loss": loss} for task, loss in losses.items()})
        if step == 50:
            assert scheduler.distribution()[0] > 0.9, "that was progress"
    assert scheduler.distribution()[2] > 0.9


def test_where_nothing_changes_but_by_noise_that_lasts_a_while_all_tasks_are_played():
    """Losses of which each is half what its predecessor was beside a new one."""
    rng = np.random.default_rng(3)
    scheduler = ModelProgress(TASKS, CurriculumConfig(explore=0.0))
    losses, most = np.zeros(3), []
    for step in range(3000):
        losses = 0.5 * losses + rng.standard_normal(3)
        scheduler.observe({task.id: {"model_loss": float(loss)} for task, loss in zip(TASKS, losses, strict=True)})
        if step >= 300 and step % 50 == 0:
            most.append(scheduler.distribution().max())
    assert np.mean(most) < 0.4 and max(most) < 0.7


def test_noise_does_not_attract_and_neither_does_what_is_known():
    """A loss that is high and jumps by chance, one that is low and still, one that falls from 3 to 1 with a little noise."""
    rng = np.random.default_rng(1)
    scheduler = ModelProgress(TASKS, CurriculumConfig(explore=0.0))
    chosen = []
    for step in range(600):
        losses = {"easy": 9 + 2 * rng.standard_normal(), "middle": 0.1, "hard": 1 + 2 * np.exp(-step / 200) + 0.2 * rng.random()}
        scheduler.observe({task: {"model_loss": loss} for task, loss in losses.items()})
        if step >= 20:
            chosen.append(scheduler.distribution())
    easy, middle, hard = np.mean(chosen, 0)
    assert hard > 0.75 and middle < 0.1 and easy < 0.15


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("explore", 1.5, r"curriculum\.explore=1\.5 is no share: give 0 to 1"),
        ("revisit", -0.1, r"curriculum\.revisit=-0\.1 is no share"),
        ("threshold", 90, r"curriculum\.threshold=90 is no share: give 0 to 1"),
        ("ranges", RangesConfig(low=-1.0), r"curriculum\.ranges\.low=-1\.0 is no share"),
        ("learning_progress", LearningProgressConfig(slow=0.0), r"curriculum\.learning_progress\.slow=0\.0 is no share"),
        ("learning_progress", LearningProgressConfig(emphasis=1.0), r"emphasis=1\.0 is no success rate"),
        ("model_progress", ModelProgressConfig(window=0), r"curriculum\.model_progress\.window=0"),
    ],
)
def test_numbers_out_of_range_are_refused_by_their_key(key: str, value: object, says: str):
    with pytest.raises(UserError, match=says):
        make_curriculum(CurriculumConfig(**{key: value}), TASKS)  # type: ignore[arg-type]
