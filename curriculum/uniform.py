"""Every task equally often: domain randomisation."""

from __future__ import annotations

import numpy as np

from curriculum.base import Curriculum


class Uniform(Curriculum):
    """Each episode's task is drawn uniformly."""

    def distribution(self) -> np.ndarray:
        return np.full(len(self.tasks), 1 / len(self.tasks))
