"""Frame skip, idle starts, resize and frame stack, alone and in the order that config applies them."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from envs import EnvConfig, UserError, make_task_space
from envs.building import build_environment
from envs.frames import FrameSkip, FrameStack, Resize

LINE = dict(id="tests.envs.odd:Line-v0", kwargs={"size": 2, "goal": 5})


def built(**keys: Any) -> gym.Env[Any, Any]:
    config = EnvConfig(**keys)
    return build_environment(make_task_space(config).hardest, config)


class Film(gym.Env[Any, Any]):
    """Frame t is an image of 40 x 60 pixels of brightness 10 t on its left and 0 on its right, beside t itself and a word."""

    def __init__(self, flicker: bool = False) -> None:
        picture = spaces.Box(0, 255, (40, 60, 3), np.uint8)
        self.observation_space = spaces.Dict(
            {"film": spaces.Tuple((picture, spaces.Box(0, 99, (), np.int64))), "grey": spaces.Box(0, 255, (40, 60), np.uint8),
             "grid": spaces.Box(0, 9, (7, 7, 3), np.uint8), "word": spaces.Text(9)}
        )  # fmt: skip
        self.action_space = spaces.Discrete(3, start=-1)
        self.actions: list[int] = []

    def _observe(self) -> Any:
        picture = np.zeros((40, 60, 3), np.uint8)
        picture[:, :30] = 10 * self._t
        grid = np.full((7, 7, 3), self._t, np.uint8)
        return {"film": (picture, np.array(self._t)), "grey": picture[..., 0], "grid": grid, "word": f"t{self._t}"}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._t, self.actions = 0, []
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._t += 1
        self.actions.append(action)
        return self._observe(), 1.0, self._t == 5, False, {"t": self._t}


gym.register("Film-v0", entry_point=f"{__name__}:Film")
FILM = f"{__name__}:Film-v0"


def test_a_skipped_frames_reward_counts_and_an_episode_ends_where_it_ends():
    env = built(id=FILM, frame_skip=3)
    env.reset(seed=0)
    observation, reward, terminated, _, info = env.step(0)
    assert (observation["word"], reward, terminated, info["t"]) == ("t3", 3.0, False, 3)
    observation, reward, terminated, _, info = env.step(0)
    assert (observation["word"], reward, terminated, info["t"]) == ("t5", 2.0, True, 5)


def test_the_time_limit_counts_the_environments_own_steps():
    env = built(**LINE, frame_skip=2, max_episode_steps=3)
    env.reset(seed=0)
    assert env.step(0)[3] is False and env.step(0)[3] is True


def test_pooling_takes_the_larger_value_of_the_last_two_frames():
    class Flicker(gym.Env[Any, Any]):
        observation_space, action_space = spaces.Box(0, 255, (2,), np.uint8), spaces.Discrete(2)

        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
            self.t = 0
            return np.zeros(2, np.uint8), {}

        def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            self.t += 1
            frame = np.array([self.t, 9 - self.t], np.uint8)
            return frame, 0.0, self.t == 5, False, {}

    env = FrameSkip(Flicker(), 4, pool=True)
    env.reset()
    assert env.step(0)[0].tolist() == [4, 6], "of frames 3 and 4"
    assert env.step(0)[0].tolist() == [5, 4], "one frame alone was left"


def test_every_image_is_resized_to_the_mean_of_what_a_pixel_covers_and_grids_are_left():
    env = built(id=FILM, resize=[10, 4])
    observation, _ = env.reset(seed=0)
    for _ in range(4):
        observation, *_ = env.step(0)
    assert env.observation_space.contains(observation | {"film": (observation["film"][0], observation["film"][1])})
    image, grey = observation["film"][0], observation["grey"]
    assert image.shape == (10, 4, 3) and grey.shape == (10, 4) and image.dtype == np.uint8
    assert image[0, :, 0].tolist() == grey[9].tolist() == [40, 40, 0, 0]
    assert observation["grid"].shape == (7, 7, 3)
    odd = built(id=FILM, resize=[1, 1])
    odd.reset(seed=0)
    assert odd.step(0)[0]["grey"].tolist() == [[5]]


def test_frames_are_stacked_along_the_last_axis_oldest_first():
    env = built(id=FILM, frame_stack=3)
    observation, _ = env.reset(seed=0)
    assert observation["film"][1].tolist() == [0, 0, 0]
    env.step(0)
    observation, *_ = env.step(0)
    assert observation["film"][1].tolist() == [0, 1, 2]
    assert observation["film"][0].shape == (40, 60, 9) and observation["film"][0][0, 0].tolist() == [0] * 3 + [10] * 3 + [20] * 3
    assert observation["grey"].shape == (40, 60, 3) and observation["grid"].shape == (7, 7, 9)
    assert observation["word"] == "t2"
    assert env.observation_space.contains(observation)
    assert env.reset(seed=0)[0]["film"][1].tolist() == [0, 0, 0], "nothing is left of the episode before"


def test_vectors_are_stacked_too_and_copied():
    env = FrameStack(gym.make("CartPole-v1"), 2)
    first, _ = env.reset(seed=0)
    second, *_ = env.step(1)
    assert second.shape == (8,) and second[:4].tolist() == first[4:].tolist() and env.observation_space.contains(second)


def test_an_idle_start_is_as_long_as_the_seed_says():
    env = built(id=FILM, noop_start=3)
    lengths = []
    for seed in (*range(12), *range(12)):
        observation, info = env.reset(seed=seed)
        lengths.append(int(observation["film"][1]))
        assert env.unwrapped.actions == [-1] * lengths[-1] and info["t"] == lengths[-1]  # type: ignore[attr-defined]
    assert lengths[:12] == lengths[12:] and set(lengths) == {1, 2, 3}


def test_wrappers_of_ones_own_lie_between_frame_skip_and_resize():
    env = built(id=FILM, frame_skip=2, resize=[8, 8], frame_stack=2, wrappers=["PassiveEnvChecker"])
    names = []
    while isinstance(env, gym.Wrapper):
        names.append(type(env).__name__)
        env = env.env
    assert names[:4] == ["FrameStack", "Resize", "PassiveEnvChecker", "FrameSkip"]
    assert Resize.__mro__[1] is gym.ObservationWrapper


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"frame_skip": 0}, r"env\.frame_skip=0 has to be 1 or more"),
        ({"frame_stack": 0}, r"env\.frame_stack=0 has to be 1 or more"),
        ({"noop_start": -1}, r"env\.noop_start=-1 has to be 0 or more"),
        ({"resize": [64]}, r"env\.resize=\[64\] has to be \[rows, columns\]"),
        ({"resize": [64, 0]}, r"env\.resize=\[64, 0\] has to be"),
        ({"resize": [64, 64]}, r"env\.resize: .* holds no image; set env\.resize=null"),
        ({"id": "FrozenLake-v1", "kwargs": {}, "frame_stack": 2}, r"env\.frame_stack: Discrete\(16\) holds no Box"),
        ({"id": "Pendulum-v1", "kwargs": {}, "noop_start": 2}, r"env\.noop_start needs discrete actions"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(keys: dict[str, Any], words: str):
    with pytest.raises(UserError, match=words):
        built(**(LINE | keys))
