"""A dream as a strip of pictures (PNG) and as a film (GIF), with its caption beside them for the report."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from agent.dream.panels import PICTURED, amount, panel
from agent.dream.rollout import Dream
from agent.dream.traces import draw_end, draw_reward, draw_values, spoken, text_lines, traced, write_lines
from agent.gif import encode_gif
from envs.spaces.specs import EnvSpec, ModalitySpec

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.gridspec import GridSpec

COLUMNS = 10  # steps of the dream that the strip shows at most
BEFORE = 3  # ... and of the steps before
ROWS = 4  # futures that are drawn as pictures at most
WIDTH = 960  # pixels of a film, at most


def draw_dream(dream: Dream, spec: EnvSpec, patch: int, path: Path, number: int = 1, new_layout: bool = False) -> None:
    """Write PATH.png: reality above, the futures below it, step by step; and PATH.json, its words.

    Args:
        patch: pixels a side of the patches in which images are compared.
        number: which of several dreams of a task it is.
        new_layout: whether the episode was played on a layout kept out of training.
    """
    pictures, texts, lines = pictured(spec), spoken(spec), traced(spec)
    futures = min(dream.samples, ROWS)
    steps = np.unique(np.linspace(0, dream.horizon, min(COLUMNS, dream.horizon + 1)).round().astype(int)).tolist()
    before = list(range(-min(BEFORE, len(next(iter(dream.context.values()))) - 1), 0))
    columns = [*before, *steps]
    heights = [1.35] * (len(pictures) * (1 + futures)) + [0.16 * (1 + dream.samples) * len(steps) + 0.3] * len(texts)
    heights += [1.3] * len(lines) + [1.1, 1.1]
    width = max(1.25 * len(columns) + 0.8, 7.0)
    with _figure(width, sum(heights) + 0.5, dream) as figure:
        layout = figure.add_gridspec(len(heights), len(columns), height_ratios=heights)
        for p, leaf in enumerate(pictures):
            for row in range(1 + futures):
                for column, step in enumerate(columns):
                    axes = figure.add_subplot(layout[p * (1 + futures) + row, column])
                    _strip_cell(axes, dream, leaf, row, step, patch)
                    name = f"{leaf.key}\n{_row_name(row)}"
                    if column == 0:
                        axes.set_ylabel(name, fontsize=8)
                    elif row and step == 0:  # beside the first that is drawn, where there is room
                        text = axes.text(
                            -0.05, 0.5, name, fontsize=8, rotation=90, ha="right", va="center", transform=axes.transAxes
                        )
                        text.set_in_layout(False)
                    if row == 0:
                        axes.set_title("start" if step == 0 else f"{step:+d}", fontsize=9)
        row = len(pictures) * (1 + futures)
        for leaf in texts:
            said = [(f"{step:+d}  {line}", wrong) for step in steps for line, wrong in text_lines(dream, leaf, step)]
            write_lines(figure.add_subplot(layout[row, :]), said, leaf.key)
            row += 1
        _draw_traces(figure, layout, row, dream, lines)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path.with_suffix(".png"), dpi=110)
    path.with_suffix(".json").write_text(json.dumps(words(dream, number, new_layout)), encoding="utf-8")


def film_dream(dream: Dream, spec: EnvSpec, patch: int, path: Path, fps: float) -> None:
    """Write PATH.gif: reality beside the futures, first the steps that the model was shown, then the dream."""
    pictures, texts, lines = pictured(spec), spoken(spec), traced(spec)
    columns = 1 + min(dream.samples, ROWS)
    heights = [1.9] * len(pictures) + [0.2 * (1 + dream.samples) + 0.2] * len(texts) + [1.1] * len(lines) + [0.9, 0.9]
    frames = []
    steps = range(1 - len(next(iter(dream.context.values()))), dream.horizon + 1)
    with _figure(max(1.9 * columns, 6.4), sum(heights) + 0.4, dream) as figure:
        layout = figure.add_gridspec(len(heights), columns, height_ratios=heights)
        shown = [[figure.add_subplot(layout[p, column]) for column in range(columns)] for p in range(len(pictures))]
        said = [figure.add_subplot(layout[len(pictures) + t, :]) for t in range(len(texts))]
        cursors = [
            axes.axvline(0, color="0.3", linewidth=1)
            for axes in _draw_traces(figure, layout, len(pictures) + len(texts), dream, lines)
        ]
        for step in steps:
            for leaf, row in zip(pictures, shown, strict=True):
                for column, axes in enumerate(row):
                    axes.clear()
                    _film_cell(axes, dream, leaf, column, step, patch)
            for leaf, axes in zip(texts, said, strict=True):
                write_lines(axes, text_lines(dream, leaf, step), leaf.key)
            for cursor in cursors:
                cursor.set_xdata([step, step])
            frames.append(_pixels(figure))
            figure.set_layout_engine("none")  # laid out once: frames must not jump
    names = ["shown to the model" if step < 0 else "the dream begins" if step == 0 else f"dream, step {step}" for step in steps]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".gif").write_bytes(encode_gif(frames, names, fps, longest=WIDTH))


def words(dream: Dream, number: int = 1, new_layout: bool = False) -> dict[str, str]:
    """Title, caption and description of a dream's pictures."""
    wrong = []
    for key, steps in dream.first_wrong().items():
        known = sorted(step for step in steps if step is not None)
        if known:
            wrong.append(f"{key} at step {known[0]}" + (f" ({len(known)} of {len(steps)} futures)" if len(steps) > 1 else ""))
    futures = "one future" if dream.samples == 1 else f"{dream.samples} futures"
    mission, where = f" ({dream.mission})" if dream.mission else "", ", on a layout never trained on" if new_layout else ""
    caption = (
        f"{dream.horizon} steps of an episode of {dream.task}{mission}{where}: what really happened, and {futures} that the "
        f"world model imagined from step {dream.start} on, given only the actions. "
        f"Red is where they part; first wrong: {', '.join(wrong) or 'nothing'}. "
        f"What had not come into view before can only be guessed."
    )
    alt = f"Real and imagined observations of {dream.task} over {dream.horizon} steps, with rewards and the chance to go on."
    title = "A dream beside what really happened"
    return {"caption": caption, "alt": alt, "title": title if number == 1 else f"{title}, number {number}"}


def pictured(spec: EnvSpec) -> list[ModalitySpec]:
    """The modalities that are drawn as pictures."""
    return [leaf for leaf in spec.observations if leaf.kind in PICTURED and not leaf.static]


@contextmanager
def _figure(width: float, height: float, dream: Dream) -> Iterator[Figure]:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(width, height), layout="constrained", dpi=80)
    title = f"{dream.task}: {dream.mission}" if dream.mission else dream.task
    figure.suptitle(title.replace("$", r"\$"), fontsize=9)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing")  # of scripts that the font does not have
            yield figure
    finally:
        plt.close(figure)


def _draw_traces(figure: Figure, layout: GridSpec, row: int, dream: Dream, leaves: list[ModalitySpec]) -> list[Axes]:
    """Vectors, categories, reward and end, each in a row of its own, from `row` on."""
    traces = [figure.add_subplot(layout[row + i, :]) for i in range(len(leaves) + 2)]
    for axes, leaf in zip(traces, leaves, strict=False):
        draw_values(axes, dream, leaf)
    draw_reward(traces[-2], dream)
    draw_end(traces[-1], dream)
    traces[-1].set_xlabel("steps since the dream began", fontsize=8)
    return traces


def _strip_cell(axes: Axes, dream: Dream, leaf: ModalitySpec, row: int, step: int, patch: int) -> None:
    if row and step < 0:
        axes.set_axis_off()
        return
    wrong = _show(axes, dream, leaf, row, step, patch)
    if wrong is not None and step > 0:
        axes.set_xlabel(amount(leaf, wrong), fontsize=7)


def _film_cell(axes: Axes, dream: Dream, leaf: ModalitySpec, column: int, step: int, patch: int) -> None:
    wrong = _show(axes, dream, leaf, column if step >= 0 else 0, step, patch)
    name = leaf.key if column == 0 else "" if wrong is None or step == 0 else amount(leaf, wrong)
    axes.set_title(_row_name(column) if step >= 0 or column == 0 else "(not yet)", fontsize=8)
    axes.set_xlabel(name, fontsize=7)
    for image in axes.images if step < 0 and column else ():
        image.set_alpha(0.35)


def _show(axes: Axes, dream: Dream, leaf: ModalitySpec, row: int, step: int, patch: int) -> NDArray[Any] | None:
    """Reality (row 0) or a future at one step; answers what is wrong with it."""
    wrong = dream.wrong[leaf.key][row - 1, step] if row else None
    if step < 0:
        frame = dream.context[leaf.key][step - 1]
    else:
        frame = dream.imagined[leaf.key][row - 1, step] if row else dream.real[leaf.key][step]
    axes.imshow(panel(leaf, frame, wrong, patch))
    axes.set_xticks([])
    axes.set_yticks([])
    return wrong


def _row_name(row: int) -> str:
    return "real" if row == 0 else f"dream {row}"


def _pixels(figure: Figure) -> NDArray[np.uint8]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
