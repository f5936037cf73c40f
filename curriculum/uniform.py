"""Every task equally often: domain randomisation."""

from __future__ import annotations

import numpy as np

from curriculum.base import Curriculum


class Uniform(Curriculum):
    """Each episode's task is drawn uniformly (Tobin et al. 2017, arXiv:1703.06907); of a box, a point of its cell, too."""

    reads = frozenset[str]()

    def distribution(self) -> np.ndarray:
        return np.full(len(self.tasks), 1 / len(self.tasks))
