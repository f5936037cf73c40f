"""Numbers, categories, texts, rewards and ends of a dream over time, drawn into axes of matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from agent.dream.rollout import Dream, as_text
from envs.spaces.specs import EnvSpec, ModalitySpec

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NOT_TRACED = ("grid", "image", "text")  # but all others, of somebody's own kinds too
LINES = 6  # elements of a vector that are drawn at most: those that vary most
LETTERS = 60  # of a text that are shown
WRONG = "#e0283c"


def traced(spec: EnvSpec) -> list[ModalitySpec]:
    """The modalities that are drawn as lines."""
    found = [leaf for leaf in spec.observations if leaf.kind not in NOT_TRACED and not leaf.static]
    return [leaf for leaf in found if len(leaf.shape) == 1]


def spoken(spec: EnvSpec) -> list[ModalitySpec]:
    """The texts that change within an episode."""
    return [leaf for leaf in spec.observations if leaf.kind == "text" and not leaf.static]


def draw_values(axes: Axes, dream: Dream, leaf: ModalitySpec) -> None:
    """A vector or categories: reality as lines, every future dashed in the same colour, red dots where it is wrong."""
    before = dream.context[leaf.key][:-1]
    real = np.concatenate([before, dream.real[leaf.key]]).astype(float)  # (C + H + 1, elements)
    times = np.arange(len(real)) - len(before)
    drawn = np.sort(np.argsort(-real.std(0), kind="stable")[:LINES])
    style = "steps-mid" if leaf.kind == "categorical" else "default"
    for i in drawn:
        name = leaf.key if real.shape[1] == 1 else f"{leaf.key}[{i}]"
        (line,) = axes.plot(times, real[:, i], label=name, drawstyle=style)
        for future, wrong in zip(dream.imagined[leaf.key], dream.wrong[leaf.key], strict=True):
            axes.plot(np.arange(len(future)), future[:, i], "--", color=line.get_color(), alpha=0.6, linewidth=1, drawstyle=style)
            _dots(axes, np.flatnonzero(wrong[:, i]), future[wrong[:, i], i])
    hidden = real.shape[1] - len(drawn)
    axes.set_ylabel(leaf.key + (f"\n({hidden} more)" if hidden else ""), fontsize=8)
    _finish(axes, len(before), dream.horizon)


def draw_reward(axes: Axes, dream: Dream) -> None:
    """Rewards on arriving at each step."""
    times = np.arange(1, dream.horizon + 1)
    axes.plot(times, dream.reward, "o-", markersize=3, label="reward, real")
    for n, (future, wrong) in enumerate(zip(dream.imagined_reward, dream.wrong_reward, strict=True)):
        axes.plot(times, future, "--", color="C1", alpha=0.6, linewidth=1, label="dreamt" if n == 0 else None)
        _dots(axes, times[wrong], future[wrong])
    axes.set_ylabel("reward", fontsize=8)
    _finish(axes, len(next(iter(dream.context.values()))) - 1, dream.horizon)


def draw_end(axes: Axes, dream: Dream) -> None:
    """The chance to go on that each future predicts, and where the episode really ended."""
    times = np.arange(1, dream.horizon + 1)
    real = np.ones(dream.horizon)
    real[-1] = not dream.ended
    axes.plot(times, real, "o-", markersize=3, label="goes on, real")
    for n, (future, wrong) in enumerate(zip(dream.cont, dream.wrong_end, strict=True)):
        axes.plot(times, future, "--", color="C1", alpha=0.6, linewidth=1, label="chance, dreamt" if n == 0 else None)
        _dots(axes, times[wrong], future[wrong])
    axes.set_ylim(-0.08, 1.08)
    axes.set_ylabel("goes on", fontsize=8)
    _finish(axes, len(next(iter(dream.context.values()))) - 1, dream.horizon)


def text_lines(dream: Dream, leaf: ModalitySpec, step: int) -> list[tuple[str, bool]]:
    """What is said at one step, really and in each future, and whether that is wrong; steps below 0 are context."""
    if step < 0:
        return [(f"real: {_short(dream.context[leaf.key][step - 1])}", False)]
    lines = [(f"real: {_short(dream.real[leaf.key][step])}", False)]
    for n, (future, wrong) in enumerate(zip(dream.imagined[leaf.key], dream.wrong[leaf.key], strict=True)):
        lines.append((f"dream {n + 1}: {_short(future[step])}", bool(wrong[step].any())))
    return lines


def write_lines(axes: Axes, lines: list[tuple[str, bool]], title: str) -> None:
    """Lines of text in axes of their own, the wrong ones in red."""
    axes.clear()
    axes.set_axis_off()
    axes.set_title(title, fontsize=8, loc="left")
    for row, (line, wrong) in enumerate(lines):
        height = 1 - (row + 0.5) / len(lines)
        shown = line.replace("$", r"\$")
        axes.text(0, height, shown, fontsize=7, color=WRONG if wrong else "black", transform=axes.transAxes, va="center")


def _short(data: NDArray[Any]) -> str:
    text = as_text(data)
    return text if len(text) <= LETTERS else text[: LETTERS - 1] + "…"


def _dots(axes: Axes, times: NDArray[Any], values: NDArray[Any]) -> None:
    if len(times):
        axes.plot(times, values, "o", color=WRONG, markersize=3, zorder=3)


def _finish(axes: Axes, before: int, horizon: int) -> None:
    axes.axvline(0, color="0.7", linewidth=0.8, linestyle=":")
    axes.set_xlim(-before - 0.5, horizon + 0.5)
    axes.tick_params(labelsize=7)
    axes.legend(fontsize=6, ncols=4, loc="best", framealpha=0.6)
