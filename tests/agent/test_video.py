"""Films of evaluation episodes: of what renders, of observations where nothing does, and of nothing at all without an error."""

from __future__ import annotations

import io
import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from PIL import Image, ImageSequence

from agent.agent import Agent
from agent.build import build_agent
from agent.config import EvalConfig, RunConfig
from agent.files import file_name
from agent.gif import LONGEST, as_rgb, encode_gif
from agent.report.data import load_run
from agent.video import Recording, record_episode, record_videos
from envs import make_task_space
from envs.make import infer_spec
from tests.agent.tiny import CARTPOLE, DOORKEY, tiny_config

SETTINGS = EvalConfig(video_frames=8)


def agent_of(config: RunConfig) -> Agent:
    torch.manual_seed(0)
    return build_agent(config, infer_spec(config.env, make_task_space(config.env)), torch.device("cpu"))[0]


def film(config: RunConfig, folder: Path, settings: EvalConfig = SETTINGS) -> list[tuple[str, Path, str]]:
    return list(record_videos(agent_of(config), config.env, settings, 1, folder))


def frames_of(gif: bytes) -> list[Image.Image]:
    return [frame.convert("RGB") for frame in ImageSequence.Iterator(Image.open(io.BytesIO(gif)))]


class Canvas(gym.Env[Any, Any]):
    """Shows and, if it `renders`, draws the number of steps as grey; its renderer breaks (`breaks`) or it refuses to have one."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 5}  # noqa: RUF012  # as in Gymnasium

    def __init__(
        self,
        render_mode: str | None = None,
        renders: bool = True,
        breaks: bool = False,
        refuses: bool = False,
        grid: bool = False,
    ) -> None:
        if refuses and render_mode:
            raise ValueError("no screen")
        self.metadata = {**self.metadata, "render_modes": ["rgb_array"] if renders else []}
        self.render_mode, self._breaks, self._grid = render_mode, breaks, grid
        self.observation_space = spaces.Box(0, 3, (4, 4, 1), np.uint8) if grid else spaces.Box(0.0, 100.0, (2,))
        self.action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._steps = 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._steps += 1
        return self._observe(), 1.0, self._steps == 3, False, {}

    def render(self) -> Any:
        if self._breaks:
            raise RuntimeError("no display")
        return np.full((30, 40, 3), 60 * self._steps, np.uint8)

    def _observe(self) -> np.ndarray:
        return np.full(*((4, 4, 1), min(self._steps, 3), np.uint8) if self._grid else ((2,), self._steps, np.float32))


gym.register("Canvas-v0", entry_point=f"{__name__}:Canvas")
CANVAS = dict(id="tests.agent.test_video:Canvas-v0", holdout=False)


def test_an_episode_is_filmed_frame_by_frame_with_its_outcome():
    config = tiny_config(CANVAS)
    recording = record_episode(agent_of(config), config.env, "Canvas-v0", SETTINGS, 1)
    assert recording is not None
    assert [int(frame[0, 0, 0]) for frame in recording.frames] == [0, 60, 120, 180], "from the reset to the last step"
    assert (recording.score, recording.success, recording.fps) == ([0, 1, 2, 3], True, 5)
    assert recording.texts() == ["step 0  return 0", "step 1  return 1", "step 2  return 2", "step 3  return 3  success"]
    assert (
        recording.caption(held_out=True)
        == "Canvas-v0: success after 3 steps, return 3. The trained agent, on a layout never trained on."
    )


def test_no_more_frames_are_drawn_than_asked_for_but_the_outcome_is_that_of_the_whole_episode():
    config = tiny_config(CANVAS)
    recording = record_episode(agent_of(config), config.env, "Canvas-v0", EvalConfig(video_frames=2), 1)
    assert recording is not None
    assert len(recording.frames) == 2 and recording.steps == 3 and recording.success
    assert recording.caption(False).endswith("The first 1 steps are shown.") and len(recording.texts()) == 2


@pytest.mark.parametrize("trouble", ["renders", "breaks", "refuses"])
def test_observations_are_drawn_where_the_environment_does_not_draw(trouble: str, tmp_path: Path):
    config = tiny_config(CANVAS, kwargs={"grid": True, trouble: trouble != "renders"})
    ((task, path, _),) = film(config, tmp_path)
    frames = frames_of(path.read_bytes())
    assert task == "Canvas-v0" and len(frames) == 4
    assert len({frame.getpixel((100, 100)) for frame in frames}) == 4, "another colour for each number"


@pytest.mark.parametrize(
    ("kwargs", "why"),
    [
        ({"renders": False}, "does not render pictures, and its observations are no picture"),
        ({"refuses": True}, "refuses to render"),
        ({"breaks": True}, "RuntimeError: no display"),
    ],
)
def test_what_cannot_be_drawn_is_said_in_one_line(
    kwargs: dict[str, Any], why: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.INFO, "agent.video"):
        assert film(tiny_config(CANVAS, kwargs=kwargs), tmp_path) == []
    (line,) = [record.getMessage() for record in caplog.records if record.name == "agent.video"]
    assert line.startswith("no video of Canvas-v0: ") and why in line
    assert list(tmp_path.iterdir()) == []


def test_every_task_gets_a_film_with_its_caption_beside_it_and_the_report_shows_the_hardest_first(tmp_path: Path):
    config = tiny_config(DOORKEY)
    films = film(config, tmp_path / "media")
    assert [(task, path.name) for task, path, _ in films] == [
        ("DoorKey-5x5", "eval_DoorKey-5x5.gif"),
        ("DoorKey-6x6", "eval_DoorKey-6x6.gif"),
    ]
    text = json.loads((tmp_path / "media" / "eval_DoorKey-5x5.json").read_text())
    assert text["caption"] == films[0][2] and "on a layout never trained on" in text["caption"] and len(text["alt"]) > 20
    steps = {"DoorKey-5x5": None, "DoorKey-6x6": None}
    (tmp_path / "summary.json").write_text(json.dumps({"steps_to_threshold": steps, "tasks": {}}))
    run = load_run(tmp_path)
    assert [video.name for video in run.videos] == ["eval_DoorKey-6x6", "eval_DoorKey-5x5"]
    assert all(video.uri.startswith("data:image/gif;base64,") for video in run.videos) and run.pictures == []


def test_a_page_is_kept_small_and_says_which_films_it_leaves_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    film(tiny_config(DOORKEY), tmp_path / "media")
    size = (tmp_path / "media" / "eval_DoorKey-6x6.gif").stat().st_size
    monkeypatch.setattr("agent.report.data.VIDEO_BYTES", size)
    (tmp_path / "summary.json").write_text(json.dumps({"steps_to_threshold": {"DoorKey-5x5": None, "DoorKey-6x6": None}}))
    run = load_run(tmp_path)
    assert [video.name for video in run.videos] == ["eval_DoorKey-6x6"] and run.videos_left_out == ["eval_DoorKey-5x5.gif"]


def test_pygame_environments_are_filmed_without_a_screen(tmp_path: Path):
    ((_, path, caption),) = film(tiny_config(CARTPOLE), tmp_path)
    assert frames_of(path.read_bytes())[0].size[0] == LONGEST
    assert caption.startswith("CartPole-v1: no")


def test_a_film_does_not_disturb_the_random_state_nor_the_callers_config(tmp_path: Path):
    config = tiny_config(CANVAS)
    before, env = torch.get_rng_state(), replace(config.env)
    agent = agent_of(config)
    torch.set_rng_state(before)
    list(record_videos(agent, config.env, SETTINGS, 1, tmp_path))
    assert torch.equal(torch.get_rng_state(), before) and config.env == env


def test_nothing_is_filmed_once_a_run_is_asked_to_stop(tmp_path: Path):
    config = tiny_config(CANVAS)
    assert list(record_videos(agent_of(config), config.env, SETTINGS, 1, tmp_path, lambda: True)) == []


@pytest.mark.parametrize(
    "frame",
    [
        np.full((2, 3), 7, np.uint8),
        np.full((2, 3, 1), 7, np.uint8),
        np.full((2, 3, 3), 7, np.int64),
        np.full((2, 3, 4), 7, np.uint8),
        np.full((2, 3, 3), 7 / 255, np.float32),
    ],
)
def test_frames_of_every_usual_kind_become_colours(frame: np.ndarray):
    picture = as_rgb(frame)
    assert picture.shape == (2, 3, 3) and picture.dtype == np.uint8 and (picture == 7).all()


def test_a_gif_keeps_speed_and_end_and_fits_its_size():
    noise = np.random.default_rng(0).integers(0, 255, (120, 64, 64, 3), dtype=np.uint8)
    texts = [str(i) for i in range(120)]
    whole, thin = encode_gif(list(noise[:4]), texts[:4], 20), encode_gif(list(noise), texts, 20, max_bytes=1_500_000)
    assert [frame.info["duration"] for frame in ImageSequence.Iterator(Image.open(io.BytesIO(whole)))] == [50, 50, 50, 1500]
    assert Image.open(io.BytesIO(whole)).size == (256, 276) and Image.open(io.BytesIO(whole)).info["loop"] == 0
    assert len(thin) <= 1_500_000
    durations = [frame.info["duration"] for frame in ImageSequence.Iterator(Image.open(io.BytesIO(thin)))]
    assert sum(durations[:-1]) == pytest.approx(119 * 50, abs=400) and durations[-1] == 1500


def test_an_episode_that_was_not_followed_to_its_end_is_no_failure():
    recording = Recording("t", frames=[np.zeros((1, 1, 3))] * 2, score=[0.0, 1.0, 2.0])
    assert recording.outcome == "not ended" and "not ended after 2 steps" in recording.caption(False)


def test_a_task_named_like_a_path_makes_one_file():
    assert file_name("ALE/Pong-v5") == "ALE-Pong-v5" and file_name("../x y") == "-x-y" and file_name("..") == "-"
