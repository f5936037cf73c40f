"""How far a manager is to be trusted."""

from __future__ import annotations

import pytest
import torch

from hierarchy.trust import ENOUGH, LEAST, MOST, RATE, Trust


def test_trust_grows_as_goals_come_to_bring_as_much_as_comes_without_them():
    trust = Trust()
    trust.seen.fill_(ENOUGH)
    assert trust() == LEAST, "nothing ever succeeded"
    shares = []
    for goals in (0.1, 0.8, 0.9, 1.0, 2.0):
        trust.worth.copy_(torch.tensor([goals, 1.0]))
        shares.append(float(trust()))
    assert shares == pytest.approx([LEAST, LEAST, 0.5, MOST, MOST])
    trust.worth.copy_(torch.tensor([9e-5, 1e-4]))
    assert float(trust()) == pytest.approx(0.5), "however long it takes"


def test_a_few_episodes_say_nothing_yet():
    trust = Trust()
    for _ in range(ENOUGH):
        assert trust() == LEAST
        trust.ended(0.5, under=False)
        trust.ended(0.5, under=True)
    assert float(trust()) == pytest.approx(MOST)


def test_episodes_of_either_kind_are_averaged_by_themselves_the_first_ones_evenly():
    trust = Trust()
    for worth, under in ((0.9, True), (0.3, False), (0.5, False), (0.1, False)):
        trust.ended(worth, under)
    assert trust.worth.tolist() == pytest.approx([0.9, 0.3]) and trust.seen.tolist() == [1, 3]
    trust.seen[1] = 1000
    trust.ended(1.0, under=False)
    assert trust.worth[1].item() == pytest.approx(0.3 + 0.7 * RATE) and trust.worth[0].item() == pytest.approx(0.9)
