"""Pictures and films of dreams, of every kind of observation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from agent.dream.job import picture_dream
from agent.dream.panels import RED, amount, outlined, panel
from agent.dream.picture import draw_dream, film_dream, words
from agent.dream.rollout import dream
from agent.dream.traces import text_lines
from envs import make_task_space
from envs.spaces.specs import ModalitySpec
from tests.agent.test_any_space import IMAGES, OBSERVATIONS
from tests.agent.test_dream import agent_of, episode_of
from tests.agent.tiny import CARTPOLE, DOORKEY, tiny_config

GRID = ModalitySpec("image", "grid", (2, 3, 3), "uint8")
PIXELS = ModalitySpec("image", "image", (5, 6, 1), "uint8")
KINDS = [
    "2-d int8",  # a grid that is no MiniGrid
    "image, 40x24x4",
    "image beside text",
    "1-d float64, 1e300 in it",
    "MultiDiscrete",
    "MultiBinary",
    "Text, not ASCII",
    "Text in a Dict in a Tuple",
    "keys of any spelling",
]


def any_space(name: str):
    settings = dict(id="tests.agent.test_any_space:AnySpace-v0", kwargs={"observation": name, "action": "Discrete"})
    return tiny_config(settings, holdout=False, text_bytes=40)


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_observation_is_drawn_and_filmed_with_words_for_those_who_cannot_see(name: str, tmp_path: Path):
    assert name in OBSERVATIONS | IMAGES
    config = any_space(name)
    agent = agent_of(config)
    found = dream(agent, episode_of(agent, config), 3, samples=2)
    path = tmp_path / "media" / "dream.png"
    draw_dream(found, agent.model.spec, 8, path)
    film_dream(found, agent.model.spec, 8, path, fps=5)
    assert path.read_bytes().startswith(b"\x89PNG")
    with Image.open(path.with_suffix(".gif")) as film:
        assert film.n_frames == 2 + 4, "two steps before, the start, three dreamt"  # type: ignore[attr-defined]
        assert film.info["duration"] == 200 and max(film.size) <= 960
    told = json.loads(path.with_suffix(".json").read_text())
    assert set(told) == {"caption", "alt", "title"} and "AnySpace-v0" in told["alt"]
    assert "3 steps" in told["caption"] and "2 futures" in told["caption"]


def test_a_second_dream_of_a_task_is_told_from_the_first():
    agent = agent_of()
    found = dream(agent, episode_of(agent), 3)
    assert words(found)["title"] == "A dream beside what really happened"
    assert words(found, 2)["title"].endswith(", number 2") and "one future" in words(found)["caption"]


def test_a_caption_tells_of_a_new_layout_only_where_layouts_are_held_out(tmp_path: Path):
    said = {}
    for config in (tiny_config(DOORKEY), tiny_config(CARTPOLE)):
        path = tmp_path / "dream.png"
        task = make_task_space(config.env).ids[0]
        picture_dream(agent_of(config), config, task, path)
        said[task] = json.loads(path.with_suffix(".json").read_text())["caption"]
    assert ", on a layout never trained on: what really happened" in said["DoorKey-5x5"]
    assert "layout" not in said["CartPole-v1"]


def test_wrong_cells_are_framed_in_red_and_no_others():
    picture = outlined(np.zeros((8, 12, 3), np.uint8), np.array([[False, True, False], [False, False, False]]), 4)
    red = (picture == RED).all(-1)
    assert red[:4, 4:8].sum() == 12 and red.sum() == 12, "a ring of a 4x4 cell"


def test_minigrids_cells_are_framed_where_they_are_drawn():
    """MiniGrid keeps columns first: cell [1, 2] is drawn in the third row, second column."""
    grid = np.zeros((2, 3, 3), np.uint8)
    wrong = np.zeros((2, 3), bool)
    wrong[1, 2] = True
    red = (panel(GRID, grid, wrong, 8) == RED).all(-1)
    assert red.shape == (48, 32) and red[32:, 16:].any() and red.sum() == red[32:, 16:].sum()
    red = (panel(GRID, grid + 100, wrong, 8) == RED).all(-1)
    assert red.shape == (32, 48) and red[16:, 32:].any() and red.sum() == red[16:, 32:].sum(), "any other grid: rows first"


def test_patches_at_the_edge_of_an_image_are_framed_too():
    wrong = np.array([[False, False], [False, True]])
    red = (panel(PIXELS, np.zeros((5, 6, 1), np.uint8), wrong, 4) == RED).all(-1)
    assert red.shape == (95, 114), "enlarged 19 times"
    assert red[76:, 76:].any() and red.sum() == red[76:, 76:].sum()


@pytest.mark.parametrize(
    ("count", "leaf", "said"),
    [(0, GRID, "all right"), (1, GRID, "1 cell wrong"), (2, GRID, "2 cells wrong"), (2, PIXELS, "2 patches wrong")],
)
def test_how_much_is_wrong_is_said_in_words(count: int, leaf: ModalitySpec, said: str):
    assert amount(leaf, np.arange(4).reshape(2, 2) < count) == said


def test_what_is_said_is_set_beside_what_is_dreamt():
    config = any_space("Text, not ASCII")
    agent = agent_of(config)
    found = dream(agent, episode_of(agent, config), 2, samples=2)
    (leaf,) = agent.model.spec.observations
    real, one, two = text_lines(found, leaf, 0)
    assert real[0].startswith("real: ") and not real[1] and one[0].startswith("dream 1: ") and not one[1]
    assert one[0].removeprefix("dream 1: ").replace(" ", "") == real[0].removeprefix("real: ").replace(" ", "")
    assert two[0].startswith("dream 2: ") and text_lines(found, leaf, -1)[0][0].startswith("real: ")
    assert len(text_lines(found, leaf, -1)) == 1, "the model says nothing before the dream begins"
