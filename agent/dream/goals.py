"""The goal strip: where the worker stood, what its manager asked for, and where it got to."""

from __future__ import annotations

import json
import textwrap
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from agent.agent import Agent
from agent.dream.panels import panel
from agent.dream.picture import pictured
from agent.dream.places import direction, placed
from agent.dream.rollout import as_text
from agent.futures import observations
from agent.goals import Pursued, goal_space, similarities
from envs.spaces.specs import EnvSpec, ModalitySpec, presence_key
from hierarchy.goal import PLACE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 8  # goals that are drawn at most, evenly spread over the episode
ROWS = ("start", "goal", "reached")
NUMBERS = 6  # of a modality without picture that are told at most: its first ones
LETTERS = 40  # of a text
LINE = 22  # letters of a line below a picture
LINES = 10  # below a picture at most
LINE_HEIGHT = 0.13  # inches


def draw_goals(agent: Agent, pursued: Pursued, path: Path, new_layout: bool = False) -> bool:
    """Write PATH.png, a column a goal, and PATH.json, its words; False, and nothing, where nothing that changes is observed.

    What is no picture is told in words, below the first picture, or alone where there is none. `new_layout`: whether the episode
    was played on a layout kept out of training.
    """
    spec, goals = agent.model.spec, goal_space(agent.hierarchy)
    assert goals is not None
    pictures, told = pictured(spec), [leaf for leaf in worded(spec) if leaf.key in goals.spec.slices]
    if not pictures and not told:
        return False
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    count = len(pursued.start)
    chosen = np.unique(np.linspace(0, count - 1, min(COLUMNS, count)).round().astype(int)).tolist()
    start, end = pursued.start.tolist(), pursued.end.tolist()
    decoded = observations(agent.model, goals.state(pursued.code, pursued.z[pursued.start]))
    ways = goals.ways(goals.decode(pursued.code, pursued.anchor).groups).tolist() if goals.places else []
    mapped = [block.key.removeprefix(PLACE) for block in goals.spec.blocks if block.key.startswith(PLACE)]
    pivots = {key: agent.model.maps[key].pivot.tolist() for key in mapped}
    near, patch = similarities(goals, pursued), agent.model.config.image_patch

    def shown(i: int) -> list[dict[str, NDArray[Any]]]:
        """What is observed in the rows of a column."""
        seen, asked = pursued.episode.obs, {key: value[i] for key, value in decoded.items()}
        return [{key: value[start[i]] for key, value in seen.items()}, asked, {key: value[end[i]] for key, value in seen.items()}]

    cells = {i: [(obs, in_words(told, obs)) for obs in shown(i)] for i in chosen}
    lines = sum(max(len(cells[i][row][1]) for i in chosen) for row in range(len(ROWS)))
    leaves: list[ModalitySpec | None] = [*pictures] or [None]
    height = (4.3 * len(pictures) or 1.5) + 0.5 + LINE_HEIGHT * lines
    figure = plt.figure(figsize=(max(1.3 * len(chosen) + 0.9, 6.0), height), layout="constrained", dpi=110)
    figure.suptitle(_title(agent, pursued).replace("$", r"\$"), fontsize=9)
    for n, leaf in enumerate(leaves):
        for column, i in enumerate(chosen):
            for row, (obs, words) in enumerate(cells[i]):
                place = (3 * n + row) * len(chosen) + column + 1
                axes = figure.add_subplot(3 * len(leaves), len(chosen), place)
                axes.set_xticks([])
                axes.set_yticks([])
                below = words if n == 0 else []
                if leaf is None:
                    _write(axes, words)
                    below = []
                else:
                    picture = panel(leaf, obs[leaf.key], None, patch)
                    if row == 0 and leaf.key in mapped:
                        way = ways[i][mapped.index(leaf.key)]
                        picture = placed(obs[leaf.key], picture, pivots[leaf.key], way)
                        below = [*below, direction(obs[leaf.key], way)]
                    axes.imshow(picture)
                if column == 0:
                    axes.set_ylabel(f"{leaf.key}\n{ROWS[row]}" if leaf else ROWS[row], fontsize=8)
                if row == 0 and n == 0:
                    axes.set_title(f"steps {start[i]}-{end[i]}", fontsize=8)
                if row == 2:
                    below = [*below, f"{near[i, 0]:.2f} to {near[i, 1]:.2f} of {near[i, 2]:.2f}"]
                axes.set_xlabel("\n".join(below), fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # of scripts that the font does not have
        figure.savefig(path.with_suffix(".png"))
    plt.close(figure)
    where = " on a layout never trained on" if new_layout else ""
    caption = (
        f"{len(chosen)} of {count} goals of an episode of {pursued.episode.task}{where}. Above, what was "
        "seen when the manager chose; in the middle the goal it chose, decoded; below, what was seen when its time was over. "
        "The numbers say how like the goal that was, before and after, of what it allows (less than 1 where it leaves things "
        "open); 0 is what chance gives."
    )
    if mapped:
        caption += " A cyan arrow stands where the goal is to be reached and points where to look; words below tell it, too."
    alt = f"Start, goal and what was reached, for {len(chosen)} goals of an episode of {pursued.episode.task}."
    if told:
        alt += f" Told in words: {', '.join(leaf.key for leaf in told)}."
    said = {"caption": caption, "alt": alt, "title": "What the manager asked for, and what the worker made of it"}
    path.with_suffix(".json").write_text(json.dumps(said), encoding="utf-8")
    return True


def worded(spec: EnvSpec) -> list[ModalitySpec]:
    """The modalities that change and are no pictures; whether one of them is there is told by itself."""
    drawn = pictured(spec)
    found = [leaf for leaf in spec.observations if leaf not in drawn and not leaf.static]
    flags = {presence_key(leaf.key) for leaf in found if leaf.optional}
    return [leaf for leaf in found if leaf.key not in flags]


def in_words(leaves: list[ModalitySpec], obs: Mapping[str, NDArray[Any]]) -> list[str]:
    """Lines that tell these modalities of one observation: `direction 2`, `pose 0.1 -0.3`."""
    lines = []
    for leaf in leaves:
        there = not leaf.optional or bool(obs[presence_key(leaf.key)].any())
        said = f"{leaf.key} {_value(leaf, obs[leaf.key]) if there else 'absent'}"
        lines += [line.replace("$", r"\$") for line in textwrap.wrap(said, LINE)]
    return lines if len(lines) <= LINES else [*lines[: LINES - 1], f"({len(lines) - LINES + 1} lines more)"]


def _value(leaf: ModalitySpec, value: NDArray[Any]) -> str:
    if leaf.kind == "text":
        text = as_text(value)
        return f'"{text}"' if len(text) <= LETTERS else f'"{text[: LETTERS - 1]}…"'
    numbers = value.flatten().tolist()
    known = [f"{number:.3g}" if isinstance(number, float) else str(number) for number in numbers[:NUMBERS]]
    return " ".join([*known, "…"] if len(numbers) > NUMBERS else known)


def _write(axes: Axes, lines: list[str]) -> None:
    """Words in the place of a picture."""
    axes.text(0.5, 0.5, "\n".join(lines), fontsize=7, ha="center", va="center", transform=axes.transAxes)


def _title(agent: Agent, pursued: Pursued) -> str:
    """The task and its mission."""
    missions = [
        as_text(pursued.episode.obs[leaf.key][0]) for leaf in agent.model.spec.observations if leaf.kind == "text" and leaf.static
    ]
    return ": ".join([pursued.episode.task, *missions])
