"""Videos: one held-out episode of each task, played by the trained agent, as a GIF with its caption beside it."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from agent.agent import Agent
from agent.camera import Camera, Film
from agent.config import EvalConfig
from agent.evaluation import seeded
from agent.files import file_name
from agent.gif import encode_gif
from envs import EnvConfig, SuccessRule, TaskSpace, make_envs, make_task_space, render_grid
from envs.building import build_environment
from envs.errors import UserError
from envs.spaces.specs import EnvSpec

log = logging.getLogger(__name__)

PATIENCE = 10  # an episode is followed for so many times the frames that are drawn of it


@dataclass
class Recording:
    """One episode on film.

    Attributes:
        frames: the first of its T + 1 states.
        score: undiscounted return after 0, 1, ... T steps.
        success: None where it was not followed to its end.
    """

    task: str
    frames: list[np.ndarray] = field(default_factory=list)
    score: list[float] = field(default_factory=lambda: [0.0])
    success: bool | None = None
    fps: float = 10.0

    @property
    def steps(self) -> int:
        return len(self.score) - 1

    @property
    def outcome(self) -> str:
        return {True: "success", False: "no success", None: "not ended"}[self.success]

    def texts(self) -> list[str]:
        """What stands below each frame."""
        texts = [f"step {step}  return {self.score[step]:.3g}" for step in range(len(self.frames))]
        if len(self.frames) > self.steps and self.success is not None:
            texts[-1] += f"  {self.outcome}"
        return texts

    def caption(self, held_out: bool) -> str:
        """For the report and W&B."""
        where = "on a layout never trained on" if held_out else "from a start of its own"
        shown = f" The first {len(self.frames) - 1} steps are shown." if len(self.frames) <= self.steps else ""
        what = f"{self.outcome} after {self.steps} steps, return {self.score[-1]:.3g}"
        return f"{self.task}: {what}. The trained agent, {where}.{shown}"


def record_videos(
    agent: Agent, env: EnvConfig, settings: EvalConfig, seed: int, folder: Path, stopped: Callable[[], bool] = lambda: False
) -> Iterator[tuple[str, Path, str]]:
    """Film an episode of every task; answers `(task, path of the GIF, caption)` of those that can be drawn.

    What an environment does not draw is said in one line of the log: a film is never worth a run.
    """
    for task in make_task_space(env):
        if stopped():
            return
        path = folder / f"eval_{file_name(task.id)}.gif"
        try:
            recording = record_episode(agent, env, task.id, settings, seed, stopped)
            if recording is None:
                continue
            data = encode_gif(recording.frames, recording.texts(), recording.fps)
            caption = recording.caption(env.holdout)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            alt = f"Film of one episode of {task.id}: {recording.outcome} after {recording.steps} steps."
            title = f"{task.id}: {recording.outcome}"
            path.with_suffix(".json").write_text(json.dumps({"caption": caption, "alt": alt, "title": title}), encoding="utf-8")
        except Exception as error:  # whatever goes wrong in foreign code that draws: the run and its results come first
            log.warning("no video of %s: %s: %s", task.id, type(error).__name__, error)
            continue
        yield task.id, path, caption


def record_episode(
    agent: Agent, env: EnvConfig, task_id: str, settings: EvalConfig, seed: int, stopped: Callable[[], bool] = lambda: False
) -> Recording | None:
    """One episode under `settings.policy`, on a layout of `settings.split`; None, said in the log, where nothing draws it."""
    if not any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")):
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame complains of a missing screen, although it draws without one
    film = Film(settings.video_frames)
    config, trouble = with_camera(env, task_id, film)
    draw = observation_drawer(agent.model.spec)
    if trouble and draw is None:
        log.info("no video of %s: %s, and its observations are no picture", task_id, trouble)
        return None
    tasks = make_task_space(config)
    recording = _play(agent, config, tasks, task_id, settings, seed, film, None if not trouble else draw, stopped)
    if film.trouble and draw is not None and not stopped():
        recording = _play(agent, env, tasks, task_id, settings, seed, film, draw, stopped)
    if not recording.frames:
        log.info("no video of %s: %s", task_id, film.trouble or "it was stopped")
        return None
    return recording


def with_camera(env: EnvConfig, task_id: str, film: Film) -> tuple[EnvConfig, str]:
    """The config of an environment that is filmed, or as it was with the reason why it cannot be."""
    plain = build_environment(make_task_space(env)[task_id], env)
    modes = plain.metadata.get("render_modes") or []
    with suppress(Exception):  # it is no longer needed
        plain.close()
    if "rgb_array" not in modes:
        return replace(env, vectorization="sync"), "the environment does not render pictures"
    camera = {"name": f"{Camera.__module__}:{Camera.__name__}", "kwargs": {"film": film}}
    filmed = replace(
        env, kwargs={**env.kwargs, "render_mode": "rgb_array"}, wrappers=[*env.wrappers, camera], vectorization="sync"
    )
    try:
        tried = build_environment(make_task_space(filmed)[task_id], filmed)
    except UserError as error:
        return replace(env, vectorization="sync"), f"the environment refuses to render ({error})"
    with suppress(Exception):
        tried.close()
    return filmed, ""


def observation_drawer(spec: EnvSpec) -> Callable[[dict[str, np.ndarray]], np.ndarray] | None:
    """A function from the observations of one environment to a picture: its first image, else its first grid."""
    for leaf in sorted(spec.observations, key=lambda leaf: leaf.kind != "image"):
        if leaf.kind == "image":
            return lambda obs, key=leaf.key: obs[key]  # type: ignore[misc]
        if leaf.kind == "grid":
            return lambda obs, key=leaf.key: render_grid(obs[key], 24)  # type: ignore[misc]
    return None


def _play(
    agent: Agent,
    config: EnvConfig,
    tasks: TaskSpace,
    task_id: str,
    settings: EvalConfig,
    seed: int,
    film: Film,
    draw: Callable[[dict[str, np.ndarray]], np.ndarray] | None,
    stopped: Callable[[], bool],
) -> Recording:
    recording = Recording(task_id)
    envs = make_envs(config, tasks, 1, settings.split)
    try:
        film.rolling = draw is None
        obs = envs.reset([tasks[task_id].with_seed(seed)])
        state, first = agent.initial_state(1), np.ones(1, bool)
        drawn = [] if draw is None else [draw({key: value[0] for key, value in obs.items()})]
        with seeded(seed, agent.device):
            while recording.steps < PATIENCE * settings.video_frames and not stopped():
                action, _, state = agent.act(obs, first, state, settings.policy)
                step = envs.step(action)
                obs, first = step.obs, np.zeros(1, bool)
                recording.score.append(recording.score[-1] + float(step.reward[0]))
                if draw is not None and len(drawn) < film.limit:
                    drawn.append(draw({key: value[0] for key, value in obs.items()}))
                if step.terminated[0] or step.truncated[0]:
                    rule = SuccessRule.parse(config.success)
                    reward, terminated = float(step.reward[0]), bool(step.terminated[0])
                    recording.success = rule.judge(recording.score[-1], reward, terminated, step.infos[0])
                    break
                if film.trouble and draw is None:
                    break
    finally:
        film.rolling = False
        envs.close()
    recording.frames = drawn if draw is not None else list(film.frames)
    recording.fps = film.fps
    return recording
