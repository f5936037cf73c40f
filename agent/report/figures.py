"""The figures of a report, each as an SVG in a data URI with a text that says the same."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent.report.data import RunData, Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Told apart by colour-blind readers; the dashes tell them apart in a black and white print.
COLOURS = ("#0069a8", "#d1570c", "#00876c", "#b5548f", "#c28800", "#3a9bdc", "#6a4c9c", "#4a4a4a")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (6, 1.5, 1.5, 1.5)), (0, (1.5, 1.2)))
STYLE: Any = {
    "font.size": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a94a0",
    "axes.labelcolor": "#46505a",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e8ec",
    "grid.linewidth": 0.8,
    "xtick.color": "#46505a",
    "ytick.color": "#46505a",
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "svg.hashsalt": "strata",
    "text.parse_math": False,  # a task may have dollar signs in its name
}


@dataclass(frozen=True)
class Figure:
    """One picture for the page."""

    uri: str
    alt: str
    caption: str = ""
    title: str = ""


def draw(
    paint: Callable[[Axes], None], alt: str, caption: str = "", title: str = "", size: tuple[float, float] = (6.2, 3.6)
) -> Figure:
    """Paint on one pair of axes of `size` inches and keep it as SVG. Uses no global figure, so it is safe in any thread."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure as Canvas

    with mpl.rc_context(STYLE):
        canvas = Canvas(figsize=size, layout="constrained")
        FigureCanvasSVG(canvas)
        paint(canvas.add_subplot())
        file = io.BytesIO()
        canvas.savefig(file, format="svg", metadata={"Date": None})
    picture = re.sub(rb">\s+<", b"><", file.getvalue())  # a tenth less: nothing in it is text that has spaces at its ends
    return Figure("data:image/svg+xml;base64," + base64.b64encode(picture).decode("ascii"), alt, caption, title)


def success_figure(run: RunData) -> Figure | None:
    """Training success of every task, thin without what was practice, its evaluations as diamonds, the threshold and when it was
    first reached."""
    training, judged, evaluated = (run.group(f"{kind}/") for kind in ("train/success", "train/judged", "eval/success"))
    if not training and not evaluated:
        return None
    mastered = run.mastered()

    def paint(axes: Axes) -> None:
        axes.axhline(run.threshold, color="#8a94a0", linewidth=1, linestyle=(0, (2, 2)), zorder=1)
        for i, task in enumerate(run.tasks):
            colour, dash = style(i)
            if task in training:
                series, full = training[task].thin(), run.full_from(task)
                axes.plot(*_where(series, [step <= full for step in series.steps]), color=colour, alpha=0.35, linewidth=1.4)
                axes.plot(*_where(series, [step >= full for step in series.steps]), color=colour, linestyle=dash, label=task)
            if task in judged:
                series = judged[task].thin()
                axes.plot(series.steps, series.values, color=colour, linewidth=0.8)
            if task in evaluated:
                label = None if task in training else task
                axes.plot(evaluated[task].steps, evaluated[task].values, "D", color=colour, markersize=5, label=label)
        for task, steps in mastered.items():
            _mark(axes, steps, run.threshold, style(run.tasks.index(task))[0])
        axes.set_ylim(-0.03, 1.05)
        finish(axes, "success", min(len(run.tasks), 3))

    figure = draw(paint, f"Line chart of success over env steps. {_ends(run, training)}")
    notes = ["Mean over a task's last 100 training episodes, of the exploring policy."]
    notes += [f"Dotted line: the threshold of {run.threshold:g}."]
    notes += ["Faint: fewer than 100 episodes so far."] if any(run.full_from(task) > 0 for task in training) else []
    notes += ["Thin: of the episodes that were no practice, which alone count towards the threshold."] if judged else []
    notes += ["Ring: the full window first reached the threshold."] if mastered else []
    notes += ["Diamonds: evaluation on layouts kept out of training."] if evaluated else []
    return Figure(figure.uri, figure.alt, " ".join(notes), "Success")


def lines_figure(run: RunData, prefix: str, title: str, unit: str, caption: str) -> Figure | None:
    """One line a task, of the metrics `<prefix><task>`."""
    group = run.group(prefix)
    if not group:
        return None
    ordered = {task: group[task] for task in run.tasks if task in group}

    def paint(axes: Axes) -> None:
        for task, series in ordered.items():
            colour, dash = style(run.tasks.index(task))
            thin = series.thin()
            axes.plot(thin.steps, thin.values, color=colour, linestyle=dash, label=task)
        finish(axes, unit, min(len(ordered), 3))

    return draw(paint, f"Line chart of {title.lower()} over env steps. {_ends(run, ordered)}", caption, title)


def pair_figure(run: RunData) -> Figure | None:
    """What the model promises against what the environment pays: `policy/imagined_return` and `policy/real_return`."""
    pair = {name: series for name in ("imagined", "real") if (series := run.series(f"policy/{name}_return")) is not None}
    caption = "Where the imagined return rises and the real one does not follow, the policy exploits its model."
    return _compared(pair, "return", caption, "Imagined against real") if pair else None


def validation_figure(run: RunData) -> Figure | None:
    """The world model's loss on training and on held-out episodes, from where the first of these were held out."""
    training, held_out = run.series("model/total"), run.series("validation/total")
    if training is None or held_out is None:
        return None
    since = [index for index, step in enumerate(training.steps) if step >= held_out.steps[0]]
    training = Series([training.steps[i] for i in since], [training.values[i] for i in since])
    caption = "Where the loss on held-out episodes rises and that on training episodes does not, the world model overfits."
    return _compared(
        {"training": training, "held-out": held_out}, "loss", caption, "World model: training against held-out", run.axis
    )


def reliability_figures(run: RunData) -> list[Figure]:
    """What was predicted at evaluation against what came, for rewards, ends and values: `calibration` of the summary."""
    names = {"reward": "Reward", "cont": "Chance to go on", "value": "Value"}
    table = run.table("calibration")
    return [_reliability(title, table[name]) for name, title in names.items() if isinstance(table.get(name), dict)]


def _reliability(title: str, bins: Mapping[str, Any]) -> Figure:
    predicted, observed, count = bins["predicted"], bins["observed"], bins["count"]
    total = sum(count)

    def paint(axes: Axes) -> None:
        ends = [min(*predicted, *observed, 0.0), max(*predicted, *observed, 0.0)]
        axes.plot(ends, ends, color="#8a94a0", linewidth=1, linestyle=(0, (2, 2)), zorder=1)
        axes.plot(predicted, observed, color=COLOURS[0], linewidth=1)
        axes.scatter(predicted, observed, s=[18 + 130 * n / total for n in count], color=COLOURS[0], zorder=3)
        axes.set_xlabel("predicted")
        axes.set_ylabel("observed")

    caption = f"Mean error {bins['error']:.2g} over {total:,} steps. On the dotted line predictions are right on average."
    pairs = ", ".join(f"{p:.3g} came as {o:.3g} ({n} times)" for p, o, n in zip(predicted, observed, count, strict=True))
    return draw(paint, f"{title}, predicted against observed in bins: {pairs}.", caption, title, (3.6, 3.2))


def _compared(lines: Mapping[str, Series], unit: str, caption: str, title: str, axis: str = "env steps") -> Figure:
    """Named lines on the same axes."""

    def paint(axes: Axes) -> None:
        for i, (name, series) in enumerate(lines.items()):
            colour, dash = style(i)
            thin = series.thin()
            axes.plot(thin.steps, thin.values, color=colour, linestyle=dash, label=name)
        finish(axes, unit, 2)
        axes.set_xlabel(axis)

    ends = ", ".join(f"{name} {series.last:.3g}" for name, series in lines.items())
    alt = f"Line chart of {' and '.join(lines)} {unit} over {axis}; at the end {ends}."
    return draw(paint, alt, caption, title)


def curriculum_figure(run: RunData) -> Figure | None:
    """The probability of every task over env steps, stacked, with a mark where a task was mastered."""
    import numpy as np

    names = [task for task in run.tasks if task in run.group("curriculum/p/")]
    if not names:
        return None
    rows = [row for row in run.metrics if any(f"curriculum/p/{name}" in row for name in names)]
    steps = [row["env_steps"] for row in rows]
    shares = np.array([[row.get(f"curriculum/p/{name}", 0.0) for row in rows] for name in names])

    def paint(axes: Axes) -> None:
        colours = [style(run.tasks.index(name))[0] for name in names]
        areas = axes.stackplot(steps, shares, colors=colours, labels=names, alpha=0.85, step="post", linewidth=0)
        for area, hatch in zip(areas, ("", "//", "..", "xx") * len(names), strict=False):
            area.set(hatch=hatch, edgecolor="white", linewidth=0)
        for task, reached in run.mastered().items():
            axes.axvline(reached, color="#1d242b", linewidth=1.2, linestyle=(0, (2, 2)))
            _mark(axes, reached, 1.0, style(run.tasks.index(task))[0])
        axes.set_ylim(0, 1)
        axes.set_xlim(min(steps), max([*steps, *run.mastered().values()]))
        finish(axes, "share of new episodes", min(len(names), 3))

    marks = [f"{task} at {steps:,.0f} env steps" for task, steps in run.mastered().items()]
    mastered = "Reached the threshold (rings): " + ", ".join(marks) + "." if marks else "No task reached the threshold."
    last = ", ".join(f"{name} {share:.2f}" for name, share in zip(names, shares[:, -1], strict=True))
    caption = f"How likely each task was to be played next. {mastered}"
    return draw(paint, f"Stacked areas of the curriculum's choice over env steps; at the end {last}. {mastered}", caption)


def time_figure(run: RunData) -> Figure | None:
    """Cumulative seconds of every phase, longest on top, with its share."""
    phases = run.phases()
    total = sum(phases.values())
    if total <= 0:
        return None

    def paint(axes: Axes) -> None:
        names = list(phases)[::-1]
        values = [phases[name] for name in names]
        colours = ["#b9c2cb" if name == "everything else" else COLOURS[0] for name in names]
        bars = axes.barh(names, values, color=colours, height=0.62)
        axes.bar_label(bars, [f"{duration(value)}  ({100 * value / total:.0f} %)" for value in values], padding=4, fontsize=9.5)
        axes.set_xlim(0, max(values) * 1.32)
        axes.set_xlabel("seconds")
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)

    parts = ", ".join(f"{name} {100 * value / total:.0f} %" for name, value in phases.items())
    return draw(paint, f"Bar chart of seconds by phase: {parts}.", size=(6.2, 0.8 + 0.36 * len(phases)))


def small_figures(run: RunData, prefix: str, limit: int = 24) -> tuple[list[Figure], int]:
    """One small chart for every metric under `prefix`, and how many more there were than `limit`."""
    group = run.group(prefix)
    figures = [_small(prefix, name, series, run.axis) for name, series in list(group.items())[:limit]]
    return figures, max(len(group) - limit, 0)


def _small(prefix: str, name: str, series: Series, over: str) -> Figure:
    thin = series.thin(150)
    spread = min(thin.values) > 0 and max(thin.values) > 50 * min(thin.values)

    def paint(axes: Axes) -> None:
        axes.plot(thin.steps, thin.values, color=COLOURS[0], linewidth=1.5)
        if spread:
            axes.set_yscale("log")
        finish(axes, "", 0)
        axes.set_xlabel("")

    axis = "logarithmic" if spread else "linear"
    alt = f"{prefix}{name} over {over}: from {thin.values[0]:.3g} to {thin.last:.3g}, {axis} axis."
    return draw(paint, alt, title=name, size=(2.9, 1.75))


def finish(axes: Axes, unit: str, columns: int) -> None:
    """Axis names, thousands on the x axis, and a legend above the plot where there is more than one thing to name."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.set_ylabel(unit)
    axes.set_xlabel("env steps")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: thousands(value)))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    if columns and axes.get_legend_handles_labels()[0]:
        where: Any = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.8}
        axes.legend(ncols=columns, handlelength=2.2, columnspacing=1.4, **where)


def style(index: int) -> tuple[str, Any]:
    """Colour and dashes of the task at `index`: the same in every figure."""
    return COLOURS[index % len(COLOURS)], DASHES[index % len(DASHES)]


def thousands(value: float) -> str:
    """`12500` -> `12.5k`, `2000000` -> `2M`."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{letter}"
    return f"{value:g}"


def duration(seconds: float) -> str:
    """`7.25` -> `7.2 s`, `754` -> `12 min 34 s`, `7500` -> `2 h 5 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _mark(axes: Axes, x: float, y: float, colour: str) -> None:
    """A ring: told apart from the diamonds of evaluations by shape, not by colour alone."""
    look: Any = {"markersize": 9, "markerfacecolor": "white", "markeredgecolor": colour, "markeredgewidth": 2}
    axes.plot([x], [y], "o", zorder=5, clip_on=False, **look)


def _where(series: Series, mask: Sequence[bool]) -> tuple[list[float], list[float]]:
    points = [(step, value) for step, value, keep in zip(series.steps, series.values, mask, strict=True) if keep]
    return [step for step, _ in points], [value for _, value in points]


def _ends(run: RunData, group: Mapping[str, Series]) -> str:
    ends = ", ".join(f"{task} ends at {group[task].last:.2f}" for task in run.tasks if task in group)
    return f"{ends}, after {run.env_steps:,} env steps." if ends else ""
