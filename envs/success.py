"""When an episode counts as a success: `env.success`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from envs.errors import UserError
from envs.guards import BrokenInfo
from envs.infos import entries, lookup


@dataclass(frozen=True)
class SuccessRule:
    """Judges finished episodes.

    Attributes:
        kind: `positive_reward` (it terminated, and its last reward was positive), `info` (an entry of its last info is true)
            or `return` (it earned enough).
        key: info only: the entry, or its parts joined by dots.
        threshold: return only: the least undiscounted return that counts.
    """

    kind: str
    key: str = ""
    threshold: float = 0.0

    @classmethod
    def parse(cls, text: str) -> SuccessRule:
        """Read `positive_reward`, `info:KEY` or `return>=X`.

        Raises:
            UserError: it is none of these.
        """
        rule = text.strip()
        if rule == "positive_reward":
            return cls("positive_reward")
        if rule.startswith("info:") and rule[5:].strip():
            return cls("info", key=rule[5:].strip())
        if rule.startswith("return>="):
            try:
                return cls("return", threshold=float(rule[8:]))
            except ValueError:
                pass
        raise UserError(f"env.success={text} is no rule; write positive_reward, info:KEY or return>=X.")

    def judge(self, episode_return: float, last_reward: float, terminated: bool, info: Mapping[str, Any]) -> bool:
        """Whether a finished episode succeeded.

        An episode that was only cut off by a time limit did not reach anything, whatever its last reward.

        Raises:
            UserError: the rule asks for an info entry that the environment does not give.
        """
        if self.kind == "positive_reward":
            return bool(terminated) and last_reward > 0
        if self.kind == "return":
            return episode_return >= self.threshold
        if isinstance(info, BrokenInfo):
            return False
        try:
            value = lookup(info, self.key)
        except KeyError:
            known = entries(info)
            raise UserError(
                f"env.success=info:{self.key}: an episode's last info has no {self.key}, only {known}; choose another rule."
            ) from None
        return _holds(value)


def _holds(value: Any) -> bool:
    """Whether an info entry says yes; what is neither true nor false (NaN, an object that will not say) does not."""
    try:
        array = np.asarray(value)
        if array.ndim:
            return array.size > 0 and bool(array.all())
        return bool(value) and value == value
    except Exception:  # entries may be any objects
        return False
