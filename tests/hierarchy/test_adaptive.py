"""A weight that holds a value at its target."""

from __future__ import annotations

import pytest
import torch

from hierarchy.adaptive import AdaptiveScale


def test_a_value_above_its_target_gets_a_tenth_more_weight_and_one_below_less():
    scale = AdaptiveScale(10.0, start=1e-2)
    scale.update(torch.tensor(12.0))
    assert scale().item() == pytest.approx(1.1e-2)
    scale.update(torch.tensor(8.0))
    assert scale().item() == pytest.approx(1e-2)


def test_within_a_tenth_of_the_target_the_weight_rests():
    scale = AdaptiveScale(10.0)
    for value in (9.1, 10.0, 10.9):
        scale.update(torch.tensor(value))
    assert scale().item() == pytest.approx(1e-2)


def test_what_the_weight_lifts_gets_more_of_it_when_it_is_too_low():
    scale = AdaptiveScale(0.5, below=True)
    scale.update(torch.tensor(0.1))
    assert scale().item() == pytest.approx(1.1e-2)
    scale.update(torch.tensor(0.9))
    assert scale().item() == pytest.approx(1e-2)


def test_the_weight_stays_within_its_bounds_and_in_the_state():
    scale = AdaptiveScale(1.0, high=0.02)
    for _ in range(50):
        scale.update(torch.tensor(9.0))
    assert scale().item() == pytest.approx(0.02)
    again = AdaptiveScale(1.0)
    again.load_state_dict(scale.state_dict())
    assert again().item() == pytest.approx(0.02)


@pytest.mark.parametrize("below", [False, True])
def test_a_value_that_answers_to_the_weight_settles_near_its_target(below: bool):
    """A KL that falls as 1 / weight, and an entropy that rises as the weight: both come to 5."""
    scale = AdaptiveScale(5.0, start=1.0, below=below, high=100.0)
    value = torch.zeros(())
    for _ in range(100):
        value = 20 * scale() if below else 20 / scale()
        scale.update(value)
    assert value.item() == pytest.approx(5.0, rel=0.12)
