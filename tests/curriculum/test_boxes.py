"""Schedulers of a continuous task box, by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from curriculum import CurriculumConfig, make_curriculum
from curriculum.adr import AutomaticDomainRandomization
from curriculum.alp_gmm import AlpGmm
from curriculum.box import BoxCurriculum
from curriculum.config import AlpGmmConfig, RangesConfig
from curriculum.expanding_range import ExpandingRange
from curriculum.mixture import Mixture, best_fit, fit
from curriculum.uniform import Uniform
from envs.boxes import TaskBox
from envs.errors import UserError
from envs.tasks import Outcome, Task, TaskSpace

BOX = TaskBox.parse({"density": [0.0, 0.4], "size": [5, 13]}, cells=2)
SPACE = TaskSpace(tuple(Task(name) for name in ("corner", "large", "dense", "far")), BOX)


def played(point: tuple[float, float], success: int = 0, score: float = 0.0) -> Outcome:
    return Outcome(SPACE.tasks[BOX.cell(np.array(point))].id, score, bool(success), 9, numbers=BOX.values(np.array(point)))


def config(name: str = "adr", **keys: object) -> CurriculumConfig:
    ranges = RangesConfig(start=0.5, step=0.25, window=2, low=0.5, boundary=0.5)
    return CurriculumConfig(**({"name": name, "window": 2, "threshold": 1.0, "ranges": ranges} | keys))  # type: ignore[arg-type]


def check_frequencies(scheduler: BoxCurriculum) -> None:
    """Pearson's chi-square over four cells: more than 16.3 turns up once in a thousand."""
    n, p = 3000, scheduler.distribution()
    drawn = [scheduler.index[task.id] for task in scheduler.sample(n, np.random.default_rng(0))]
    counts = np.bincount(drawn, minlength=4)
    assert p.sum() == pytest.approx(1) and not counts[p == 0].any()
    assert ((counts - n * p)[p > 0] ** 2 / (n * p)[p > 0]).sum() < 16.3


def test_a_box_is_cut_into_cells_from_easy_to_hard():
    assert BOX.places == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert BOX.values(BOX.centre(1)) == pytest.approx({"density": 0.1, "size": 11})
    assert [BOX.cell(np.array(point)) for point in ((0, 0), (0.5, 0.4), (1, 1))] == [0, 2, 3]
    assert BOX.point(BOX.values(np.array([0.3, 0.7]))) == pytest.approx([0.3, 0.7])
    assert BOX.chances(np.array([[0.25, 0.75], [0.1, 0.9]])) == pytest.approx([0.025, 0.225, 0.075, 0.675])


def test_a_drawn_task_carries_its_cell_and_its_own_numbers():
    task = SPACE.at(np.array([0.75, 0.25]), seed=3)
    assert (task.id, task.seed) == ("dense", 3) and task.params["numbers"] == pytest.approx({"density": 0.3, "size": 7})


def test_a_task_that_is_chosen_by_name_is_played_anywhere_in_its_cell_as_its_seed_says():
    tasks = Uniform(SPACE).sample(400, np.random.default_rng(0))
    points = np.array([BOX.point(task.params["numbers"]) for task in tasks])
    assert [BOX.cell(point) for point in points] == [SPACE.ids.index(task.id) for task in tasks]
    assert len(np.unique(points, axis=0)) == 400 and points.mean(0) == pytest.approx([0.5, 0.5], abs=0.05)
    again = SPACE.level(SPACE.ids.index(tasks[0].id), tasks[0].seed or 0)
    assert again.params["numbers"] == tasks[0].params["numbers"], "a level that is replayed is the same one"


def drawn(scheduler: BoxCurriculum, n: int) -> list[Task]:
    return scheduler.sample(n, np.random.default_rng(n))


def ended(task: Task, success: int) -> Outcome:
    return Outcome(task.id, 0.0, bool(success), 9, seed=task.seed or 0, numbers=task.params["numbers"])


def test_the_range_expands_when_its_window_is_mastered():
    scheduler = ExpandingRange(SPACE, config())
    assert scheduler.distribution().tolist() == [1, 0, 0, 0]
    tasks = drawn(scheduler, 4)
    scheduler.update([ended(task, success) for task, success in zip(tasks, (1, 0, 1), strict=False)])
    assert scheduler.extent == 0.5
    scheduler.update([ended(tasks[3], 1)])
    assert scheduler.extent == 0.75 and scheduler.distribution() == pytest.approx([4 / 9, 2 / 9, 2 / 9, 1 / 9])
    check_frequencies(scheduler)


def test_what_was_drawn_before_the_range_grew_does_not_make_it_grow_again():
    """Windows of two. Five under way: two successes widen the range, the other three are of the smaller one and do not count,
    in the same step or later. Nor does one of the next two that has ended before; it takes both of these."""
    scheduler = ExpandingRange(SPACE, config())
    before = drawn(scheduler, 5)
    scheduler.update([ended(task, 1) for task in before[:3]])
    assert scheduler.extent == 0.75 and not scheduler.recent and not scheduler.drawn
    first, second = drawn(scheduler, 2)
    scheduler.update([ended(before[3], 1), ended(first, 1), ended(before[4], 0), ended(first, 1)])
    assert scheduler.extent == 0.75 and list(scheduler.recent) == [True] and scheduler.drawn == {second.seed}
    state = json.loads(json.dumps(scheduler.state_dict()))
    assert state == {"extent": 0.75, "recent": [1], "drawn": [second.seed]}
    resumed = ExpandingRange(SPACE, config())
    resumed.load_state_dict(state)
    resumed.update([ended(second, 1)])
    assert resumed.extent == 1
    resumed.load_state_dict({"extent": 0.75, "recent": [1]})
    assert not resumed.drawn, "of a version that did not keep them"


def test_adr_moves_the_end_of_the_range_that_was_played():
    """Windows of two: mastered at the end of the density widens it; failed at that of the size narrows it."""
    scheduler = AutomaticDomainRandomization(SPACE, config())
    scheduler.update([played((0.5, 0.1), 1), played((0.2, 0.3), 1), played((0.3, 0.5), 0), played((0.5, 0.2), 1)])
    assert scheduler.ends.tolist() == [0.75, 0.5]
    scheduler.update([played((0.3, 0.5), 1)])
    assert scheduler.ends.tolist() == [0.75, 0.25], "one of two is the lower threshold"
    scheduler.update([played((0.3, 0.25), 0), played((0.2, 0.25), 0), played((0.0, 0.1), 0), played((0.0, 0.1), 0)])
    assert scheduler.ends.tolist() == [0.75, 0.25], "a step is left at the easy end, which is never moved"
    check_frequencies(scheduler)
    scheduler.load_state_dict({"ends": [[0.25, 0.75], [0.0, 0.5]], "results": [[1], [0], [], [1, 1]]})
    assert scheduler.ends.tolist() == [0.75, 0.5] and scheduler.results == [[0], [1, 1]], "of a version in which both ends moved"


def test_adr_that_begins_with_a_point_is_refused():
    with pytest.raises(UserError, match=r"curriculum\.ranges\.start=0 leaves adr no range"):
        make_curriculum(CurriculumConfig(name="adr", ranges=RangesConfig(start=0.0)), SPACE)


def test_adrs_distribution_by_hand():
    """Half inside [0, 0.75] x [0, 0.5]: 2/3, 1/3 by density, all small. A quarter at each end: density 0.75, and size 0.5, where
    the large cell begins."""
    scheduler = AutomaticDomainRandomization(SPACE, config())
    scheduler.ends = np.array([0.75, 0.5])
    corner = 0.5 * 2 / 3
    large, far = 0.25 * 2 / 3, 0.25 * 1 / 3
    assert scheduler.distribution() == pytest.approx([corner, large, 1 - corner - large - far, far])


def test_progress_is_the_distance_from_the_score_of_the_nearest_episode():
    scheduler = AlpGmm(SPACE, config("alp_gmm"))
    scheduler.update([played((0.1, 0.1), score=1.0), played((0.9, 0.9), score=5.0), played((0.2, 0.1), score=0.25)])
    assert scheduler.progress == [0, 4, 0.75]


def test_alp_gmm_plays_where_scores_change():
    scheduler = AlpGmm(SPACE, config("alp_gmm", explore=0.1, alp_gmm=AlpGmmConfig(first=100, every=100)))
    assert scheduler.distribution() == pytest.approx([0.25] * 4)
    rng = np.random.default_rng(0)
    for _ in range(200):
        point = rng.random(2)
        changing = (point > 0.5).all()
        scheduler.update([played((point[0], point[1]), score=float(rng.random()) if changing else 0.0)])
    assert scheduler.distribution()[3] > 0.5
    check_frequencies(scheduler)


def test_components_are_drawn_in_proportion_to_their_mean_progress():
    """Two points, one in the corner cell with progress 0.2, one in the far one with 0.6; a tenth is uniform over four cells. With
    a variance, the half of a Gaussian on the edge of two cells lies in each."""
    scheduler = AlpGmm(SPACE, config("alp_gmm", explore=0.1))
    mean = np.array([[0.25, 0.25, 0.2], [0.75, 0.75, 0.6]])
    scheduler.mixture = Mixture(np.array([0.5, 0.5]), mean, np.full((2, 3), 1e-6))
    assert scheduler.distribution() == pytest.approx([0.025 + 0.225, 0.025, 0.025, 0.025 + 0.675])
    check_frequencies(scheduler)
    scheduler.mixture.mean[0, 0], scheduler.mixture.variance[0] = 0.5, 1e-4
    assert sorted(scheduler.distribution()) == pytest.approx([0.025, 0.025 + 0.1125, 0.025 + 0.1125, 0.7])


def test_the_mixture_finds_two_clusters_and_knows_that_they_are_two():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(0.2, 0.05, (300, 1)), rng.normal(0.8, 0.1, (100, 1))])
    found = best_fit(x, 4, rng)
    assert len(found.weight) == 2
    order = found.mean[:, 0].argsort()
    assert found.mean[order, 0] == pytest.approx([0.2, 0.8], abs=0.03)
    assert found.weight[order] == pytest.approx([0.75, 0.25], abs=0.03)
    assert fit(x, 1, rng).variance[0, 0] == pytest.approx(x.var(), abs=2e-4)


@pytest.mark.parametrize("name", ["expanding_range", "adr", "alp_gmm"])
def test_a_task_space_that_is_no_box_is_refused(name: str):
    with pytest.raises(UserError, match=r"draws numbers from ranges, and there are none: give some, as env=obstacles"):
        make_curriculum(CurriculumConfig(name=name), TaskSpace((Task("only"),)))
