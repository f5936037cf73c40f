"""What learners are compared by. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median


def break_even_seconds_per_step(
    our_seconds: float | None, our_steps: float | None, peer_seconds: float | None, peer_steps: float | None
) -> float | None:
    """The time an environment step has to take for us to win in wall-clock as well.

    It is `(our seconds - its seconds) / (its steps - ours)`; `None` when we use no fewer steps, or when one of the two never got
    there; negative when we are faster even where steps are free.
    """
    if our_seconds is None or our_steps is None or peer_seconds is None or peer_steps is None or our_steps >= peer_steps:
        return None
    return (our_seconds - peer_seconds) / (peer_steps - our_steps)


def median_reached(figures: Sequence[float | None]) -> float | None:
    """The median, counting `None` (never reached) as worse than any figure; `None` when that is what the middle is."""
    if not figures:
        return None
    middle = median(math.inf if figure is None else figure for figure in figures)
    return None if math.isinf(middle) else middle


def worst_reached(figures: Sequence[float | None]) -> float | None:
    """The largest figure; `None` when any was never reached."""
    reached = [figure for figure in figures if figure is not None]
    return max(reached) if reached and len(reached) == len(figures) else None
