"""Choices that depend on each other."""

from __future__ import annotations

import itertools

import pytest
import torch

from envs.spaces.specs import ActionSpec
from hierarchy.distributions import ActionHead
from hierarchy.ordered import CONTEXT, OrderedChoices, OrderedHead

SPEC = ActionSpec("multi_discrete", 3, classes=(2, 2, 2))
CODES = torch.tensor(list(itertools.product((0, 1), repeat=3)))


def linked(unimix: float = 0.01) -> OrderedHead:
    torch.manual_seed(0)
    head = OrderedHead(SPEC, unimix)
    torch.nn.init.normal_(head.told)
    return head


def raw(head: OrderedHead, rows: int) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(1, head.outputs).expand(rows, -1)


def of(head: OrderedHead, rows: int) -> OrderedChoices:
    found = head.distribution(raw(head, rows))
    assert isinstance(found, OrderedChoices)
    return found


def test_untrained_they_are_choices_each_for_itself():
    head, plain = OrderedHead(SPEC, 0.01), ActionHead(SPEC, 0.01, (0.1, 1.0))
    raw = torch.randn(8, head.outputs)
    expected = plain.distribution(plain.params(raw[:, :6]))
    found = head.distribution(head.params(raw))
    torch.testing.assert_close(found.log_prob(CODES), expected.log_prob(CODES))
    torch.testing.assert_close(found.entropy(), expected.entropy())
    assert torch.equal(found.deterministic_sample, expected.deterministic_sample)


def test_all_combinations_together_are_certain_and_come_as_often_as_they_are_likely():
    head = linked()
    chance = of(head, 8).log_prob(CODES).exp()
    assert chance.sum().item() == pytest.approx(1.0, abs=1e-5)
    drawn, log_prob = head.draw(raw(head, 20_000), greedy=False)
    torch.testing.assert_close(log_prob, of(head, 20_000).log_prob(drawn))
    share = (drawn.unsqueeze(1) == CODES).all(-1).float().mean(0)
    assert (share - chance).abs().max() < 0.015


def test_the_entropy_is_right_on_average():
    head = linked()
    chance = of(head, 8).log_prob(CODES).exp()
    exact = -(chance * chance.log()).sum()
    assert of(head, 50_000).entropy().mean().item() == pytest.approx(exact.item(), abs=0.01)


def test_a_choice_depends_on_those_before_it_and_on_none_after():
    head = linked()
    both = of(head, 8).conditional(CODES)  # (8, 3, 2)
    for group in range(3):
        same: dict[tuple[int, ...], list[torch.Tensor]] = {}
        for code, row in zip(CODES.tolist(), both[:, group], strict=True):
            same.setdefault(tuple(code[:group]), []).append(row)
        assert all(torch.allclose(rows[0], row) for rows in same.values() for row in rows)
        assert len({tuple(rows[0].tolist()) for rows in same.values()}) == 2**group


def test_two_good_combinations_are_learned_without_the_mixtures_of_them():
    torch.manual_seed(0)
    head = OrderedHead(SPEC, 0.0)
    state = torch.nn.Parameter(torch.zeros(1, head.outputs))
    optimizer = torch.optim.Adam([state, *head.parameters()], lr=0.05)
    good = torch.tensor([[0, 0, 1], [1, 1, 0]])
    for _ in range(200):
        optimizer.zero_grad()
        (-head.distribution(state.expand(2, -1)).log_prob(good).mean()).backward()
        optimizer.step()
    assert head.distribution(state.expand(2, -1)).log_prob(good).exp().tolist() == pytest.approx([0.5, 0.5], abs=0.05)
    drawn, _ = head.draw(state.detach().expand(1000, -1), greedy=False)
    assert (drawn.unsqueeze(1) == good).all(-1).any(1).float().mean() > 0.98


def test_every_choice_keeps_its_share_of_the_uniform_mixture():
    head = linked(unimix=0.1)
    sure = torch.zeros(8, head.outputs)
    sure[:, :6:2] = 100.0
    assert head.distribution(sure).conditional(CODES).exp().min().item() == pytest.approx(0.05, abs=1e-4)


def test_only_choices_of_equally_many_classes_will_do():
    with pytest.raises(ValueError, match="equally many"):
        OrderedHead(ActionSpec("multi_discrete", 2, classes=(2, 3)), 0.01)
    assert OrderedHead(SPEC, 0.0).outputs == 6 + CONTEXT
