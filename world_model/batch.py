"""What a training pass of the world model takes and what it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from world_model.dynamics import RecordingCache


@dataclass
class Sequences:
    """A batch of sequences as tensors. Index t: what was observed, whether the episode starts or ends there, the reward received
    on arriving there, and the action taken from there (any, where the episode ends).

    Attributes:
        obs: {key: codes (B, T, groups) int64, or floats (B, T, *shape) of a learned modality}.
        action: (B, T, *action shape), int64 choices or float numbers.
        reward: (B, T) float.
        first, terminated, truncated: (B, T) bool.
        steps: (), valid steps that losses are means over; by default those of the batch. Several processes that share a batch out
            have the mean of theirs here, so that the mean of their losses is that of the whole batch.
        before: what came before, up to and including index 0, from which the maps of grids are filled.
    """

    obs: dict[str, Tensor]
    action: Tensor
    reward: Tensor
    first: Tensor
    terminated: Tensor
    truncated: Tensor
    steps: Tensor | None = None
    before: Sequences | None = None

    @property
    def valid(self) -> Tensor:
        """(B, T - 1) bool: the step from t to t + 1 exists."""
        return ~self.last[:, :-1]

    @property
    def last(self) -> Tensor:
        return self.terminated | self.truncated

    def apply(self, change: Callable[[Tensor], Tensor]) -> Sequences:
        """The same of all tensors but `steps`, as of some rows."""
        names = ("action", "reward", "first", "terminated", "truncated")
        tensors = {name: change(getattr(self, name)) for name in names}
        before = None if self.before is None else self.before.apply(change)
        return Sequences({key: change(x) for key, x in self.obs.items()}, **tensors, steps=self.steps, before=before)


@dataclass
class ModelOutput:
    """What a training pass answers.

    Attributes:
        losses: {name: scalar}, unweighted, for the log.
        loss: scalar, their weighted sum, to go backward from.
        metrics: {name: scalar}, accuracies.
        z: (B, T, G) posterior codes.
        h: (B, T, D) decoder output; `h[:, t]` has seen everything up to and including (z_t, a_t).
        context: keys and values of the pass, for imagination to attend to.
    """

    losses: dict[str, Tensor]
    loss: Tensor
    metrics: dict[str, Tensor]
    z: Tensor
    h: Tensor
    context: RecordingCache
