"""Does an agent use a part of what it observes? Show it another episode's, and see how it does then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from envs.errors import UserError
from envs.spaces.specs import EnvSpec

Observations = dict[str, np.ndarray]


def check_shuffle(keys: Sequence[str], spec: EnvSpec) -> None:
    """See that every key of `eval.shuffle` is observed.

    Raises:
        UserError: one is not.
    """
    known = [leaf.key for leaf in spec.observations]
    for key in keys:
        if key not in known:
            raise UserError(f"eval.shuffle names {key}, which is not observed; observed are: {', '.join(known)}")


class Shuffle:
    """Replaces some modalities by what another episode showed at its start, for the whole of an episode.

    Made for what stays the same over an episode, as a mission does: the agent then follows another episode's mission, and does
    clearly worse if it reads it. The other is drawn among all that episodes have begun with so far and that differ.

    Attributes:
        unchanged: episodes that were shown their own, because nothing else had been seen yet.
    """

    def __init__(self, keys: Sequence[str], num_envs: int, rng: np.random.Generator) -> None:
        self.keys, self.num_envs, self.rng = tuple(keys), num_envs, rng
        self.unchanged = 0
        self._shown: Observations = {}
        self._seen: dict[str, dict[bytes, np.ndarray]] = {key: {} for key in self.keys}

    def begin(self, obs: Mapping[str, np.ndarray], mask: np.ndarray) -> None:
        """Draw anew for the environments of `mask` (num_envs,), whose episodes begin with `obs` {key: (num_envs, *shape)}."""
        for key, seen in self._seen.items():
            shown = self._shown.setdefault(key, obs[key].copy())
            seen.update({obs[key][i].tobytes(): obs[key][i].copy() for i in np.flatnonzero(mask)})
            for i in np.flatnonzero(mask):
                others = [value for data, value in seen.items() if data != obs[key][i].tobytes()]
                self.unchanged += not others
                shown[i] = others[self.rng.integers(len(others))] if others else obs[key][i]

    def __call__(self, obs: Observations) -> Observations:
        """What the agent is shown in place of `obs`."""
        return obs | self._shown
