"""The goal strip: where the worker stood, what its manager asked for, and where it got to."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np

from agent.agent import Agent
from agent.dream.panels import panel
from agent.dream.picture import pictured
from agent.dream.rollout import as_text
from agent.futures import observations
from agent.goals import Pursued, similarities
from hierarchy.director import DirectorHierarchy
from hierarchy.goal import PLACE

COLUMNS = 8  # goals that are drawn at most, evenly spread over the episode
ROWS = ("start", "goal", "reached")


def draw_goals(agent: Agent, pursued: Pursued, path: Path, new_layout: bool = False) -> bool:
    """Write PATH.png, a column a goal, and PATH.json, its words; False, and nothing, where no modality is a picture.

    `new_layout`: whether the episode was played on a layout kept out of training.
    """
    leaves, hierarchy = pictured(agent.model.spec), agent.hierarchy
    if not leaves:
        return False
    assert isinstance(hierarchy, DirectorHierarchy)
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    count = len(pursued.start)
    chosen = np.unique(np.linspace(0, count - 1, min(COLUMNS, count)).round().astype(int)).tolist()
    start, end = pursued.start.tolist(), pursued.end.tolist()
    decoded = observations(agent.model, hierarchy.goals.state(pursued.code, pursued.z[pursued.start]))
    goals = hierarchy.goals
    ways = goals.ways(goals.decode(pursued.code, pursued.anchor).groups).tolist() if goals.places else []
    mapped = [block.key.removeprefix(PLACE) for block in goals.spec.blocks if block.key.startswith(PLACE)]
    near, patch = similarities(hierarchy, pursued), agent.model.config.image_patch
    figure = plt.figure(figsize=(max(1.3 * len(chosen) + 0.9, 6.0), 4.3 * len(leaves) + 0.5), layout="constrained", dpi=110)
    figure.suptitle(_title(agent, pursued).replace("$", r"\$"), fontsize=9)
    for n, leaf in enumerate(leaves):
        real = pursued.episode.obs[leaf.key]
        for column, i in enumerate(chosen):
            frames = real[start[i]], decoded[leaf.key][i], real[end[i]]
            for row, frame in enumerate(frames):
                place = (3 * n + row) * len(chosen) + column + 1
                axes = figure.add_subplot(3 * len(leaves), len(chosen), place)
                axes.imshow(panel(leaf, frame, None, patch))
                axes.set_xticks([])
                axes.set_yticks([])
                if column == 0:
                    axes.set_ylabel(f"{leaf.key}\n{ROWS[row]}", fontsize=8)
                if row == 0 and n == 0:
                    axes.set_title(f"steps {start[i]}-{end[i]}", fontsize=8)
                if row == 1 and leaf.key in mapped:
                    axes.set_xlabel(_way(ways[i][mapped.index(leaf.key)]), fontsize=7)
                if row == 2:
                    axes.set_xlabel(f"{near[i, 0]:.2f} to {near[i, 1]:.2f} of {near[i, 2]:.2f}", fontsize=7)
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
        caption += " Below a goal stands where on the map to be: rows and columns from there, and degrees turned."
    alt = f"Start, goal and what was reached, for {len(chosen)} goals of an episode of {pursued.episode.task}."
    said = {"caption": caption, "alt": alt, "title": "What the manager asked for, and what the worker made of it"}
    path.with_suffix(".json").write_text(json.dumps(said), encoding="utf-8")
    return True


def _way(way: list[int]) -> str:
    """Where a goal's place lies."""
    turns, row, column = way
    return f"{row:+d} {column:+d}, {90 * turns} degrees"


def _title(agent: Agent, pursued: Pursued) -> str:
    """The task and its mission."""
    missions = [
        as_text(pursued.episode.obs[leaf.key][0]) for leaf in agent.model.spec.observations if leaf.kind == "text" and leaf.static
    ]
    return ": ".join([pursued.episode.task, *missions])
