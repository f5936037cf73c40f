"""When an episode counts as a success."""

from __future__ import annotations

import pytest

from envs import SuccessRule, UserError
from envs.guards import BrokenInfo
from envs.infos import reported


def test_positive_reward_asks_for_an_end_that_was_rewarded() -> None:
    rule = SuccessRule.parse("positive_reward")
    assert rule.judge(0.9, 0.9, True, {})
    assert not rule.judge(0.9, 0.0, True, {})
    assert not rule.judge(5.0, 1.0, False, {})  # cut off by a time limit
    assert not rule.judge(3.0, -1.0, True, {})


def test_an_info_entry_can_decide() -> None:
    rule = SuccessRule.parse("info:is_success")
    assert rule.judge(0.0, 0.0, False, {"is_success": 1})
    assert not rule.judge(9.0, 9.0, True, {"is_success": False})


def test_an_info_entry_may_lie_deep_inside() -> None:
    assert SuccessRule.parse("info:achievements.won").judge(0.0, 0.0, True, {"achievements": {"won": True}})


def test_an_odd_info_and_numbers_that_are_not_finite_are_not_reported() -> None:
    assert reported(BrokenInfo(), ["lives"]) == {}
    assert reported({"lives": float("nan"), "score": 2}, ["lives", "score"]) == {"score": 2.0}


def test_an_info_entry_that_is_missing_is_named() -> None:
    with pytest.raises(UserError, match=r"info:won: .* no won, only lives, score"):
        SuccessRule.parse("info:won").judge(0.0, 0.0, True, {"score": 1, "lives": 2})


def test_a_return_can_decide() -> None:
    rule = SuccessRule.parse("return>=450")
    assert rule.judge(450.0, 1.0, False, {}) and not rule.judge(449.5, 1.0, True, {})


@pytest.mark.parametrize("text", ["", "reward", "info:", "return>=much", "return>450"])
def test_other_rules_are_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"env\.success=.*write positive_reward, info:KEY or return>=X"):
        SuccessRule.parse(text)
