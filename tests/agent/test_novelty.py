"""The novelty score and its ROC, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from agent.foresight import Foresight
from agent.novelty import Novelty, auc, episode_means, roc


def foresight(surprise: list[float], unknown: float = 0.0) -> Foresight:
    values, same = np.array(surprise), np.full(len(surprise), unknown)
    return Foresight(same, same, same, same, values, same)


def test_the_area_is_the_share_of_pairs_that_are_told_apart():
    usual, strange = [1.0, 2.0, 3.0], [2.5, 4.0]  # of six pairs, (3, 2.5) is the wrong way round
    assert auc(usual, strange) == pytest.approx(5 / 6)
    assert auc(usual, usual) == pytest.approx(0.5)
    assert auc([0, 0], [1]) == 1.0 and auc([1], [0, 0]) == 0.0


def test_ties_count_half():
    assert auc([1.0, 2.0], [2.0]) == pytest.approx(0.75)


def test_the_curve_goes_from_nothing_to_everything_in_steps_of_the_scores():
    false, true = roc([1.0, 3.0], [2.0, 4.0])
    assert false.tolist() == [0, 0, 0.5, 0.5, 1] and true.tolist() == [0, 0.5, 0.5, 1, 1]


def test_the_score_is_in_deviations_of_what_was_usual_however_that_came_in():
    whole, parts = Novelty(), Novelty()
    whole.update(foresight([1.0, 3.0, 5.0, 7.0]))
    parts.update(foresight([1.0]))
    parts.update(foresight([3.0, 5.0, 7.0]))
    for novelty in (whole, parts):
        assert novelty.mean == pytest.approx(4.0) and novelty.deviation == pytest.approx(np.sqrt(5))
    assert whole(foresight([4.0, 4.0 + np.sqrt(5)])).tolist() == pytest.approx([0, 1])
    assert whole(foresight([4.0], unknown=0.02)).tolist() == pytest.approx([2.0])


def test_an_episode_scores_as_its_observations_do_on_average():
    assert episode_means([np.array([1.0, 3.0]), np.array([5.0])]) == [2.0, 5.0]
