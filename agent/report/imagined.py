"""How well success in imagination foretold real success, in each half of a run: reliability curves and Brier scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from agent.report.figures import Figure, draw, style
from curriculum.imagined_success import BINS, TALLIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PREFIX = "curriculum/reliability/"
HALVES = ("first half", "second half")

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Tally:
    """Episodes by what was foretold of them.

    Attributes:
        values: (BINS, 4), of every tenth of [0, 1] how many episodes, and sums of their estimates, successes, squared errors.
    """

    values: Floats

    @property
    def episodes(self) -> int:
        return int(self.values[:, 0].sum())

    @property
    def brier(self) -> float:
        """Mean squared distance of estimate and success (Brier 1950); NaN without episodes."""
        return float(self.values[:, 3].sum() / self.episodes) if self.episodes else float("nan")

    @property
    def uninformed(self) -> float:
        """The Brier score of who always foretells the share of successes of these very episodes."""
        share = self.values[:, 2].sum() / self.episodes if self.episodes else float("nan")
        return float(share * (1 - share))

    @property
    def bins(self) -> list[tuple[float, float, int]]:
        """Mean estimate, share of successes and number of episodes of every bin that has some."""
        return [(float(foretold / n), float(came / n), int(n)) for n, foretold, came, _ in self.values if n]


def tallied_halves(rows: Sequence[Mapping[str, float]], env_steps: float) -> Floats | None:
    """(2, BINS, 4) tallies of the episodes that ended in each half of a run's env steps, from its log lines.

    None where nothing was foretold. Sums that shrink, of lines that are not a run's own, count as none.
    """
    lines = [row for row in rows if any(name.startswith(PREFIX) for name in row)]
    if not lines:
        return None
    steps = np.array([row["env_steps"] for row in lines])
    keys = [[f"{PREFIX}{i / BINS:.1f}/{name}" for name in TALLIES] for i in range(BINS)]
    sums = np.array([[[row.get(key, 0.0) for key in own] for own in keys] for row in (lines[0], *lines)])
    sums[0] = 0.0  # before the first line
    middle, end = (sums[np.searchsorted(steps, at, side="right")] for at in (env_steps / 2, max(env_steps, steps[-1])))
    halves = np.maximum(np.stack([middle, end - middle]), 0.0)
    halves[..., 1:] = np.minimum(halves[..., 1:], halves[..., :1])  # none of these is above 1 an episode
    return halves


def imagined_figure(halves: Floats, title: str, runs: Sequence[Floats] = ()) -> Figure | None:
    """Reliability of each half, (2, BINS, 4), as a curve; `runs`: those that it is the sum of, whose Brier scores are told.

    None without a single episode.
    """
    tallies = {name: Tally(values) for name, values in zip(HALVES, halves, strict=True) if values[:, 0].any()}
    if not tallies:
        return None
    most = max(n for tally in tallies.values() for _, _, n in tally.bins)

    def paint(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color="#8a94a0", linewidth=1, linestyle=(0, (2, 2)), zorder=1)
        for i, (name, tally) in enumerate(tallies.items()):
            colour, dash = style(i)
            predicted, observed, count = zip(*tally.bins, strict=True)
            axes.plot(predicted, observed, color=colour, linestyle=dash, linewidth=1.4, label=name)
            sizes = [12 + 130 * n / most for n in count]
            look: Any = {"color": colour, "alpha": 0.75, "linewidths": 0}
            axes.scatter(predicted, observed, sizes, **look)
        axes.set_xlim(-0.04, 1.04)
        axes.set_ylim(-0.04, 1.04)
        axes.set_xlabel("success foretold in imagination")
        axes.set_ylabel("share of successes")
        where: Any = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.8}
        axes.legend(ncols=2, handlelength=2.2, **where)

    scores = [brier_text(name, HALVES.index(name), tally, runs) for name, tally in tallies.items()]
    curves = [f"{name}: " + ", ".join(f"{p:.2f} came as {o:.2f} ({n})" for p, o, n in t.bins) for name, t in tallies.items()]
    alt = f"Reliability curves of imagined success, mean estimate of a tenth and share of successes. {'. '.join(curves)}."
    caption = (
        f"Training episodes in tenths by what was foretold of them, larger dots for more episodes; on the dotted line estimates "
        f"are right on average. Brier score, {'; '.join(scores)}. Lower is better."
    )
    return draw(paint, alt, caption, title, (4.6, 4.2))


def brier_text(name: str, half: int, tally: Tally, runs: Sequence[Floats] = ()) -> str:
    """`first half 0.12 (0.10 to 0.15 over 5 runs; 0.21 by always foretelling the share of successes)`."""
    own = [score for score in (Tally(run[half]).brier for run in runs) if np.isfinite(score)]
    spread = f"{min(own):.2f} to {max(own):.2f} over {len(own)} runs; " if len(own) > 1 else ""
    return f"{name} {tally.brier:.2f} ({spread}{tally.uninformed:.2f} by always foretelling the share of successes)"
