"""How far a manager is to be trusted."""

from __future__ import annotations

import pytest
import torch

from hierarchy.trust import ENOUGH, LEAST, MOST, RATE, Trust


def test_trust_grows_as_goals_come_to_bring_as_much_as_comes_without_them():
    trust = Trust()
    trust.seen.fill_(2 * ENOUGH)
    assert trust() == LEAST, "nothing ever succeeded"
    shares = []
    for goals in (0.1, 0.9, 0.93, 1.0, 2.0):
        trust.sums.copy_(torch.tensor([goals, 1.0]))
        shares.append(float(trust()))
    assert shares == pytest.approx([LEAST, LEAST, 0.3, MOST, MOST], abs=1e-5)
    trust.sums.copy_(torch.tensor([9.3e-5, 1e-4]))
    assert float(trust()) == pytest.approx(0.3, abs=1e-5), "however long it takes"


def test_a_few_episodes_say_nothing_yet():
    trust = Trust()
    while trust.seen.min() < ENOUGH:
        assert trust() == LEAST
        trust.ended(0.5, under=False)
        trust.ended(0.5, under=True)
    assert float(trust()) == pytest.approx(MOST)
    assert 10 < trust.seen.max() < 11


def test_both_kinds_of_episodes_are_averaged_over_the_same_time():
    trust = Trust()
    for worth, under in ((0.9, True), (0.3, False), (0.5, False)):
        trust.ended(worth, under)
    kept = 1 - RATE
    assert trust.seen.tolist() == pytest.approx([kept**2, kept + 1])
    assert trust.worth.tolist() == pytest.approx([0.9, (0.3 * kept + 0.5) / (kept + 1)])
    for _ in range(1000):
        trust.ended(0.2, under=False)
    assert trust.worth.tolist() == pytest.approx([0.9, 0.2], abs=1e-4)
    assert float(trust.seen[0]) < ENOUGH, "of goals nothing is known any more"
