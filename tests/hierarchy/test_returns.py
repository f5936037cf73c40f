"""Lambda-returns and their scale, against numbers worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hierarchy.returns import ReturnScale, lambda_returns

REWARD, VALUE = [1.0, 2.0, 3.0], [99.0, 10.0, 20.0, 30.0]


def returns(
    cont: tuple[float, float, float] = (1, 1, 1), boundary: int | None = None, lmbda: float = 0.5, gamma: float = 0.5
) -> list[float]:
    edge = torch.zeros(1, 4, dtype=torch.bool)
    if boundary is not None:
        edge[0, boundary] = True
    reward, going_on, value = torch.tensor([REWARD]), torch.tensor([cont]).float(), torch.tensor([VALUE])
    return lambda_returns(reward, going_on, value, edge, gamma, lmbda)[0].tolist()


def test_a_return_mixes_the_next_value_and_the_next_return_and_the_last_one_bootstraps():
    # 3 + .5 * 30;  2 + .5 (.5 * 20 + .5 * 18);  1 + .5 (.5 * 10 + .5 * 11.5)
    assert returns() == pytest.approx([6.375, 11.5, 18.0])


def test_predicted_continuation_multiplies_the_discount():
    # 2 + .5 * .5 (10 + 9);  1 + .5 (5 + 3.375)
    assert returns(cont=(1, 0.5, 1)) == pytest.approx([5.1875, 6.75, 18.0])


def test_nothing_counts_beyond_a_termination():
    # 2;  1 + .5 (5 + 1)
    assert returns(cont=(1, 0, 1)) == pytest.approx([4.0, 2.0, 18.0])


def test_a_return_into_a_truncated_state_bootstraps_from_its_value():
    # State 2 is the last of its episode: 2 + .5 * 20;  1 + .5 (5 + 6)
    assert returns(boundary=2)[:2] == pytest.approx([6.5, 12.0])


def test_a_terminal_state_that_is_also_an_edge_is_worth_nothing():
    assert returns(cont=(1, 0, 1), boundary=2)[:2] == pytest.approx([4.0, 2.0])


def test_lambda_0_is_one_step_td_and_lambda_1_is_monte_carlo():
    assert returns(lmbda=0.0) == pytest.approx([1 + 5.0, 2 + 10.0, 3 + 15.0])
    assert returns(lmbda=1.0) == pytest.approx([1 + 0.5 * (2 + 0.5 * 18), 2 + 0.5 * 18, 18.0])


def test_what_comes_after_an_edge_changes_nothing_before_it():
    torch.manual_seed(0)
    reward, cont, value = torch.randn(2, 6), torch.rand(2, 6), torch.randn(2, 7)
    edge = torch.zeros(2, 7, dtype=torch.bool)
    edge[0, 3] = True
    before = lambda_returns(reward, cont, value, edge, 0.9, 0.8)
    reward[0, 3:], cont[0, 3:], value[0, 4:] = 100.0, 0.5, -100.0
    after = lambda_returns(reward, cont, value, edge, 0.9, 0.8)
    assert torch.equal(after[0, :3], before[0, :3]) and torch.equal(after[1], before[1])
    assert not torch.equal(after[0, 3:], before[0, 3:])


def test_returns_equal_the_recursion_written_out():
    torch.manual_seed(1)
    N, H, gamma, lmbda = 5, 9, 0.97, 0.9
    reward, cont, value = torch.randn(N, H), torch.rand(N, H), torch.randn(N, H + 1)
    edge = torch.rand(N, H + 1) < 0.2
    expected = torch.zeros(N, H)
    after = value[:, -1]
    for t in reversed(range(H)):
        ahead = torch.where(edge[:, t + 1], value[:, t + 1], (1 - lmbda) * value[:, t + 1] + lmbda * after)
        expected[:, t] = after = reward[:, t] + gamma * cont[:, t] * ahead
    torch.testing.assert_close(lambda_returns(reward, cont, value, edge, gamma, lmbda), expected, atol=1e-5, rtol=1e-5)


def test_the_scale_is_the_moving_range_between_the_5th_and_the_95th_percentile():
    scale = ReturnScale(decay=0.5, floor=0.1)
    hundred = torch.arange(101.0)  # 5th percentile 5, 95th 95
    scale.update(hundred)
    assert scale().item() == pytest.approx(90.0), "right after one update, although the average starts at zero"
    scale.update(torch.zeros(101))
    assert scale().item() == pytest.approx((0.25 * 90 + 0.5 * 0) / 0.75)  # weights .25 and .5, together .75


def test_a_few_outliers_do_not_move_the_scale():
    scale = ReturnScale(decay=0.9, floor=0.1)
    values = torch.arange(101.0)
    values[-1] = 1e6
    scale.update(values.view(1, -1))
    assert scale().item() == pytest.approx(90.0, rel=1e-5)


@pytest.mark.parametrize("updates", [[], [torch.full((8,), 3.0)]], ids=["before the first update", "returns that do not differ"])
def test_the_scale_never_falls_below_its_floor(updates: list[Tensor]):
    scale = ReturnScale(decay=0.9, floor=0.3)
    for values in updates:
        scale.update(values)
    assert scale().item() == pytest.approx(0.3)


def test_the_scale_is_part_of_a_checkpoint_and_takes_no_gradient():
    scale, copy = ReturnScale(0.5, 0.1), ReturnScale(0.5, 0.1)
    scale.update(torch.arange(101.0, requires_grad=True))
    copy.load_state_dict(scale.state_dict())
    assert copy() == scale() and not scale().requires_grad
    for each in (scale, copy):
        each.update(torch.arange(11.0))
    assert copy() == scale()
