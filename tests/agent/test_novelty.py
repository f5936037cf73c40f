"""The novelty score and its ROC, by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agent.calibration import Foreseen
from agent.foresight import Foresight
from agent.novelty import Novelty, auc, episode_means, novelty_summary, roc
from agent.trainer import Trainer
from tests.agent.tiny import CARTPOLE, play, tiny_config


def foresight(surprise: list[float], unknown: float = 0.0) -> Foresight:
    values, same = np.array(surprise), np.full(len(surprise), unknown)
    return Foresight(same, same, same, same, same, values, same)


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


def test_the_score_is_in_deviations_of_what_was_usual():
    novelty = Novelty([foresight([1.0]), foresight([3.0, 5.0, 7.0])])
    assert novelty.mean == pytest.approx(4.0) and novelty.deviation == pytest.approx(np.sqrt(5))
    assert novelty(foresight([4.0, 4.0 + np.sqrt(5)])).tolist() == pytest.approx([0, 1])
    assert novelty(foresight([4.0], unknown=0.02)).tolist() == pytest.approx([2.0])


def test_one_usual_observation_in_a_hundred_counts_as_unlike_and_a_strange_task_is_warned_of(caplog: pytest.LogCaptureFixture):
    usual = foresight(list(np.arange(1000.0)))
    novelty = Novelty([usual])
    found = novelty_summary(
        novelty, {"known": Foreseen(foresights=[usual]), "strange": Foreseen(foresights=[foresight([2000.0, 1.0])])}
    )
    assert found["known"]["unlike"] == pytest.approx(0.01) and found["known"]["score"] == pytest.approx(0.0)
    assert found["strange"]["unlike"] == 0.5 and found["strange"]["unknown"] == 0.0
    assert [record.getMessage().split(" is unlike")[0] for record in caplog.records] == ["50 % of what strange shows"]


def test_what_is_usual_is_what_a_run_has_stored(tmp_path: Path):
    trainer = Trainer(tiny_config(CARTPOLE), tmp_path)
    play(trainer, 60)
    trainer.writer.flush()
    novelty = Novelty.of_replay(trainer.agent, tmp_path / "replay")
    assert novelty is not None and novelty.deviation > 0
    assert Novelty.of_replay(trainer.agent, tmp_path / "nowhere") is None


def test_an_episode_scores_as_its_observations_do_on_average():
    assert episode_means([np.array([1.0, 3.0]), np.array([5.0])]) == [2.0, 5.0]
