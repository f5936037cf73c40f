"""Which episodes are kept out of training, for a validation loss."""

from __future__ import annotations

from dataclasses import dataclass
from zlib import crc32


@dataclass(frozen=True)
class Holdout:
    """A share of episodes that training never samples. The choice is a hash of the episode's task and seed: it draws no random
    number, and from `after` on the same episode always falls on the same side. A level that comes again, as in level replay, may
    have been trained on before.

    Attributes:
        share: of episodes, 0 to 1.
        after: env steps of the run from which episodes are held out; the few there are at first are worth more to training.
        records: held-out records kept in memory, all environments together: beyond `replay.capacity`.
    """

    share: float = 0.0
    after: int = 0
    records: int = 0

    def takes(self, task: str, seed: int, env_steps: int) -> bool:
        """Whether the episode that begins now is kept out of training."""
        return env_steps >= self.after and crc32(f"{task}/{seed}".encode()) < self.share * 2**32


NOTHING = Holdout()
