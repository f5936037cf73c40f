"""The hardest task alone: what a curriculum is measured against."""

from __future__ import annotations

import numpy as np

from curriculum.base import Curriculum


class TargetOnly(Curriculum):
    """Every episode is played on the last task of the task space: no curriculum, the control in surveys of them
    (Narvekar et al. 2020, arXiv:2003.04960)."""

    reads = frozenset[str]()

    def distribution(self) -> np.ndarray:
        p = np.zeros(len(self.tasks))
        p[-1] = 1.0
        return p
