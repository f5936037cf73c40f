"""How far a manager is to be trusted."""

from __future__ import annotations

import pytest
import torch

from hierarchy.trust import LEAST, Trust


def test_trust_grows_as_goals_come_to_bring_as_much_as_comes_without_them():
    trust = Trust()
    assert trust() == LEAST, "nothing is known"
    shares = []
    for goals in (0.1, 0.85, 0.925, 1.0, 2.0):
        trust.worth.copy_(torch.tensor([goals, 1.0, 0.5]))
        shares.append(float(trust()))
    assert shares == pytest.approx([LEAST, LEAST, 0.5, 1.0, 1.0])
    trust.worth.copy_(torch.tensor([0.3, 0.3, 0.01]))
    assert trust() == LEAST, "as good as nothing was paid without them either: what is expected says nothing yet"


def test_what_rollouts_bring_is_kept_apart_by_whether_they_had_goals():
    trust = Trust()
    under, left, without = torch.tensor([9.0, 1.0]), torch.tensor([False, True]), torch.tensor([2.0, 4.0])
    for _ in range(500):
        trust.update(under, left, without, 2 * without)
    assert trust.worth.tolist() == pytest.approx([1.0, 3.0, 6.0], abs=1e-3), "those that were given a goal do not count"
    trust.update(under, torch.zeros_like(left), without, 2 * without)
    assert trust.worth.tolist() == pytest.approx([1.0, 3.0, 6.0], abs=1e-3)
