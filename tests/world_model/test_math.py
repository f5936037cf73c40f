"""The mathematics, against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from world_model.math import (
    sample_codes,
    symexp,
    symexp_bins,
    symlog,
    two_hot,
    two_hot_loss,
    two_hot_mean,
    unimix_logits,
)

E = math.e
ALMOST_ONE = 1 - 2**-24  # the largest number that torch.rand answers
NEVER = -float("inf")


def test_symlog_and_symexp_at_known_points():
    assert symlog(torch.tensor([0.0, E - 1, 1 - E, E**3 - 1])).tolist() == pytest.approx([0, 1, -1, 3])
    assert symexp(torch.tensor([0.0, 1, -1, 3])).tolist() == pytest.approx([0, E - 1, 1 - E, E**3 - 1])


def test_symexp_undoes_symlog_for_small_and_large_numbers_of_both_signs():
    x = torch.tensor([1e-6, 1e-3, 0.7, 12.0, 5e4])
    x = torch.cat([-x.flip(0), torch.zeros(1), x])
    torch.testing.assert_close(symexp(symlog(x)), x, rtol=1e-4, atol=0)
    assert torch.equal(symlog(-x), -symlog(x)) and torch.equal(symexp(-x), -symexp(x))


def test_bins_are_spaced_as_symexp_of_equal_steps():
    assert symexp_bins(5, 2.0).tolist() == pytest.approx([1 - E**2, 1 - E, 0, E - 1, E**2 - 1])


@pytest.mark.parametrize("count", [3, 41, 127, 255])
def test_bins_mirror_each_other_exactly_so_that_equal_weights_mean_exactly_zero(count: int):
    bins = symexp_bins(count, 12.0)
    assert torch.equal(bins, -bins.flip(0)) and bins[count // 2] == 0 and (bins.diff() > 0).all()
    for logits in (torch.zeros(count), torch.full((2, 3, count), -1.5)):
        assert (two_hot_mean(logits, bins) == 0).all()


@pytest.mark.parametrize("count", [1, 2, 126])
def test_a_number_of_bins_without_a_zero_in_the_middle_is_refused(count: int):
    with pytest.raises(ValueError, match="must be odd and at least 3"):
        symexp_bins(count, 12.0)


@pytest.mark.parametrize(
    ("x", "weights"),
    [
        (0.25, [0, 0.75, 0.25, 0]),
        (-1.5, [0.75, 0.25, 0, 0]),
        (2.0, [0, 0, 0.5, 0.5]),
        (1.0, [0, 0, 1, 0]),
        (-2.0, [1, 0, 0, 0]),
        (3.0, [0, 0, 0, 1]),
        (99.0, [0, 0, 0, 1]),
        (-99.0, [1, 0, 0, 0]),
    ],
)
def test_two_hot_shares_a_number_between_the_bins_beside_it(x: float, weights: list[float]):
    assert two_hot(torch.tensor(x), torch.tensor([-2.0, 0, 1, 3])).tolist() == weights


def test_two_hot_keeps_the_mean_of_any_number_within_the_bins():
    bins = symexp_bins(63, 6.0).double()
    x = torch.linspace(-400, 400, 1001, dtype=torch.float64).view(7, 11, 13)
    weights = two_hot(x, bins)
    assert weights.shape == (7, 11, 13, 63) and (weights >= 0).all() and ((weights > 0).sum(-1) <= 2).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones_like(x))
    torch.testing.assert_close((weights * bins).sum(-1), x, rtol=1e-9, atol=1e-9)


def test_two_hot_loss_is_the_cross_entropy():
    logits, bins = torch.tensor([0.0, math.log(3)]), torch.tensor([0.0, 1.0])  # probabilities 1/4 and 3/4
    assert two_hot_loss(logits, torch.tensor(0.5), bins).item() == pytest.approx(-0.5 * math.log(1 / 4) - 0.5 * math.log(3 / 4))
    assert two_hot_loss(logits, torch.tensor(1.0), bins).item() == pytest.approx(-math.log(3 / 4))


def test_two_hot_mean_is_the_expected_bin():
    logits = torch.log(torch.tensor([0.2, 0.3, 0.5]))
    assert two_hot_mean(logits, torch.tensor([-2.0, 0.0, 2.0])).item() == pytest.approx(0.6)
    bins = symexp_bins(41, 4.0)
    x = torch.tensor([-53.0, -1.0, 0.0, 0.3, 17.0])
    torch.testing.assert_close(two_hot_mean(two_hot(x, bins).log(), bins), x, rtol=1e-4, atol=1e-5)


def test_codes_are_drawn_where_the_noise_falls_in_the_cumulative_distribution():
    logits = torch.log(torch.tensor([0.2, 0.5, 0.3]))
    noise = torch.tensor([0.0, 0.19, 0.21, 0.69, 0.71, ALMOST_ONE])
    assert sample_codes(logits.expand(6, 3), noise).tolist() == [0, 0, 1, 1, 2, 2]


def test_codes_are_drawn_as_often_as_their_probability_says_whatever_the_logits_are_offset_by():
    n = 20_000
    noise = (torch.arange(n) + 0.5) / n
    for offset in (0.0, 300.0, -300.0):
        logits = torch.log(torch.tensor([0.1, 0.6, 0.3])) + offset
        counts = sample_codes(logits.expand(n, 3), noise).bincount(minlength=3)
        assert (counts - torch.tensor([2000, 12000, 6000])).abs().max() <= 2


def test_a_class_that_does_not_exist_is_never_drawn_not_even_at_the_edges_of_the_noise():
    torch.manual_seed(0)
    logits = torch.randn(5000, 6)
    logits[:, 0], logits[:, 3], logits[:, 5] = NEVER, NEVER, NEVER
    for noise in (0.0, 2**-24, 0.5, ALMOST_ONE):
        drawn = sample_codes(logits, torch.full((5000,), noise))
        assert set(drawn.tolist()) <= {1, 2, 4}
    assert set(sample_codes(logits, torch.zeros(5000)).tolist()) == {1}
    assert set(sample_codes(logits, torch.full((5000,), ALMOST_ONE)).tolist()) == {4}


def test_drawing_leaves_the_logits_as_they_are():
    logits = torch.randn(3, 4)
    before = logits.clone()
    sample_codes(logits, torch.rand(3))
    assert torch.equal(logits, before)


def test_unimix_gives_every_class_its_share():
    logits = torch.tensor([0.0, NEVER])
    assert unimix_logits(logits, 0.5).exp().tolist() == pytest.approx([0.75, 0.25])
    assert unimix_logits(torch.zeros(4), 0.01).exp().tolist() == pytest.approx([0.25] * 4)
    x = torch.randn(5, 7)
    torch.testing.assert_close(unimix_logits(x, 0.0), x.log_softmax(-1))
    torch.testing.assert_close(unimix_logits(x, 0.3).exp().sum(-1), torch.ones(5))
