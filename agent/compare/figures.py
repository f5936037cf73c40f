"""The figures of a comparison, each as an SVG with a text that says the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.compare.comparison import Arm, Comparison, Pair
from agent.compare.statistics import Floats, reached_share
from agent.report.figures import COLOURS, Figure, draw, finish, style, thousands
from agent.report.imagined import imagined_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 60  # of a heat map over time
MOST_ROWS = 30  # of a heat map that are named
MOST_PAIRS = 45
HORIZON = "curriculum.imagined_success.horizon"
NUMBERED = 14  # columns of a matrix up to which every cell holds its number


def band_figure(comparison: Comparison, name: str, title: str, unit: str, caption: str) -> Figure:
    """One curve for each curriculum in its band: `mastered` or `success` of `comparison.bands`."""

    def paint(axes: Axes) -> None:
        for i, arm in enumerate(comparison.arms):
            colour, dash = style(i)
            value, low, high = comparison.bands[arm.name][name]
            look: Any = {"color": colour, "linestyle": dash, "label": arm.name, "marker": "o", "markersize": 3}
            axes.plot(arm.steps, value, **look)
            axes.fill_between(arm.steps, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.set_ylim(-0.03, 1.05)
        finish(axes, unit, 2)

    ends = []
    for arm in comparison.arms:
        value, low, high = comparison.bands[arm.name][name]
        ends.append(f"{arm.name} ends at {value[-1]:.2f} ({low[-1]:.2f} to {high[-1]:.2f})")
    alt = (
        f"Line chart of {title.lower()} over env steps, with bands. {'; '.join(ends)}, after {_last(comparison):,.0f} env steps."
    )
    return draw(paint, alt, caption, title)


def reached_figure(comparison: Comparison) -> Figure:
    """Share of runs that have reached the threshold on the hardest task trained on, over env steps."""
    said = []

    def paint(axes: Axes) -> None:
        for i, arm in enumerate(comparison.arms):
            colour, dash = style(i)
            times, shares = reached_share(arm.reached, arm.ended)
            end = max(arm.ended)
            look: Any = {"color": colour, "linestyle": dash, "label": arm.name, "where": "post"}
            axes.step([*times, end], [*shares, shares[-1]], **look)
        axes.set_ylim(-0.03, 1.05)
        finish(axes, "share of runs", 2)

    for arm in comparison.arms:
        there = [f"{steps:,.0f}" for steps in sorted(steps for steps in arm.reached if steps is not None)]
        said.append(f"{arm.name} in {len(there)} of {len(arm.runs)} runs" + (f" at {', '.join(there)}" if there else ""))
    alt = f"Step chart of the share of runs that reached the threshold on {comparison.trained[-1]}: {'; '.join(said)}."
    caption = "By evaluation on held-out layouts. A run that never got there is censored at its end, not dropped."
    return draw(paint, alt, caption, f"Reached the threshold on {comparison.trained[-1]}")


def pairs_figure(comparison: Comparison) -> Figure | None:
    """The probability of improvement of every pair; None where there is none, or there are too many to draw."""
    pairs = comparison.pairs[::-1]
    if not pairs or len(pairs) > MOST_PAIRS:
        return None

    def paint(axes: Axes) -> None:
        for y, pair in enumerate(pairs):
            seen = pair.improvement
            axes.plot([seen.low, seen.high], [y, y], color=COLOURS[0], linewidth=5, alpha=0.3, solid_capstyle="butt")
            axes.plot([seen.value], [y], "D", color=COLOURS[0], markersize=6)
        axes.axvline(0.5, color="#8a94a0", linewidth=1, linestyle=(0, (2, 2)), zorder=1)
        axes.set_yticks(range(len(pairs)), [f"{pair.left} over {pair.right}" for pair in pairs])
        axes.set_xlim(-0.03, 1.03)
        axes.set_ylim(-0.6, len(pairs) - 0.4)
        axes.set_xlabel("probability of improvement")
        axes.grid(visible=False, axis="y")

    alt = f"Chart of the probability of improvement: {'; '.join(map(pair_text, comparison.pairs))}."
    caption = (
        "How often a run of the first has the larger area than one of the second, ties counted half. Dotted: as good as chance."
    )
    return draw(paint, alt, caption, "Probability of improvement", (6.2, 1.0 + 0.34 * len(pairs)))


def pair_text(pair: Pair) -> str:
    seen = pair.improvement
    return f"{pair.left} over {pair.right} {seen.value:.2f} ({seen.low:.2f} to {seen.high:.2f})"


def probability_figures(comparison: Comparison) -> list[Figure]:
    """For each curriculum how likely every task was to be played next, over time: mean over its runs."""
    figures = []
    for arm in comparison.arms:
        mean = mean_probability(arm)
        if mean is None:
            continue
        quarters = [(0, "at first"), (COLUMNS // 2, "half-way"), (COLUMNS - 1, "at the end")]
        when = [f"{name} {_said(comparison.trained, mean[column])}" for column, name in quarters]
        alt = f"Heat map of the probability of each task over env steps under {arm.name}: {'; '.join(when)}."
        figures.append(_matrix(mean.T, max(arm.ended), comparison.trained, alt, arm.name))
    return figures


def mean_probability(arm: Arm, columns: int = COLUMNS) -> Floats | None:
    """Probability of each task (columns, tasks) at evenly spaced steps, mean over the runs that logged it."""
    centres = (np.arange(columns) + 0.5) / columns * max(arm.ended)
    logged = []
    for run in arm.runs:
        if len(run.probability_steps):
            index = np.searchsorted(run.probability_steps, centres, side="right") - 1
            logged.append(run.probability[np.maximum(index, 0)])
    return np.mean(logged, 0) if logged else None


def success_figures(comparison: Comparison) -> list[Figure]:
    """For each curriculum the success on every test task at every evaluation: mean over its runs."""
    figures = []
    for arm in comparison.arms:
        mean = arm.success.mean(0)  # (points, tasks)
        alt = (
            f"Matrix of success of tasks over env steps under {arm.name}: at {arm.steps[0]:,.0f} env steps "
            f"{_said(comparison.tasks, mean[0])}; at {arm.steps[-1]:,.0f} {_said(comparison.tasks, mean[-1])}."
        )
        ticks = [thousands(step) for step in arm.steps]
        figures.append(_matrix(mean.T, len(ticks), comparison.tasks, alt, arm.name, ticks))
    return figures


def imagined_figures(comparison: Comparison) -> list[Figure]:
    """For each curriculum whose runs had their successes foretold, how reliably: all its runs together."""
    figures = []
    for arm in comparison.arms:
        figure = imagined_figure(np.sum(arm.halves, 0), arm.name, arm.halves) if arm.halves else None
        if figure is not None:
            meant = f"Success means success {within_horizon(arm)}, foretold or real: what takes longer counts as a failure."
            figures.append(replace(figure, caption=f"{figure.caption} {meant}"))
    return figures


def within_horizon(arm: Arm) -> str:
    """How soon success has to come to be success that is foretold."""
    horizons = {run.settings.get(HORIZON) for run in arm.runs if run.halves is not None}
    known = len(horizons) == 1 and None not in horizons
    return f"within {horizons.pop()} steps" if known else "within the steps imagined"


def _matrix(values: Floats, end: float, rows: Sequence[str], alt: str, title: str, ticks: Sequence[str] = ()) -> Figure:
    """Values from 0 to 1, (rows, columns), columns even from 0 to `end` and the first row at the bottom; `ticks` name columns."""
    from matplotlib.ticker import FuncFormatter

    def paint(axes: Axes) -> None:
        extent = (0, end, 0, len(rows))  # an image: cells drawn one by one show seams
        look: Any = {"cmap": "Blues", "vmin": 0, "vmax": 1, "origin": "lower", "aspect": "auto", "interpolation": "nearest"}
        mesh = axes.imshow(values, extent=extent, **look)
        every = -(-len(rows) // MOST_ROWS)
        axes.set_yticks(np.arange(0, len(rows), every) + 0.5, list(rows)[::every])
        if ticks:
            every = -(-len(ticks) // 8)
            axes.set_xticks(np.arange(0, len(ticks), every) + 0.5, list(ticks)[::every])
            if len(ticks) <= NUMBERED and len(rows) <= MOST_ROWS:
                _number(axes, values)
        else:
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: thousands(value)))
        axes.set_xlabel("env steps")
        axes.tick_params(length=0)
        axes.grid(visible=False)
        axes.figure.colorbar(mesh, ax=axes, pad=0.02, aspect=max(8, 3 * len(rows)))

    return draw(paint, alt, title=title, size=(6.2, 1.1 + 0.36 * min(len(rows), MOST_ROWS)))


def _number(axes: Axes, values: Floats) -> None:
    for row, column in np.ndindex(values.shape):
        value = values[row, column]
        colour = "white" if value > 0.6 else "#1d242b"
        axes.text(column + 0.5, row + 0.5, f"{value:.2f}", ha="center", va="center", fontsize=8.5, color=colour)


def _said(names: Sequence[str], values: Floats, most: int = 8) -> str:
    """`easy 0.20, hard 0.80`; of many the largest."""
    order = range(len(names)) if len(names) <= most else sorted(np.argsort(-values)[:most].tolist())
    rest = "" if len(names) <= most else f" and {len(names) - most} more"
    return ", ".join(f"{names[i]} {values[i]:.2f}" for i in order) + rest


def _last(comparison: Comparison) -> float:
    return float(comparison.arms[0].steps[-1])
