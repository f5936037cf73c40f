"""A wrapper that films an environment: `env.render()` after every reset and step, while its film is rolling."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np

DEFAULT_FPS = 10.0


@dataclass
class Film:
    """What the cameras of an environment have seen of the episode under way.

    Attributes:
        limit: frames kept; what comes later is not drawn at all.
        rolling: whether anything is drawn; environments are built and probed before the episode that is wanted.
        frames: as the environment drew them, the first one after the reset.
        fps: frames a second, as the environment says.
        trouble: why the environment does not draw; empty if it does.
    """

    limit: int
    rolling: bool = False
    frames: list[np.ndarray] = field(default_factory=list)
    fps: float = DEFAULT_FPS
    trouble: str = ""


class Camera(gym.Wrapper[Any, Any, Any, Any]):
    """Puts frames on `film`. A renderer that fails ends the film, never the episode."""

    def __init__(self, env: gym.Env[Any, Any], film: Film) -> None:
        super().__init__(env)
        self.film = film
        film.fps = float(env.metadata.get("render_fps") or DEFAULT_FPS)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        answer = self.env.reset(seed=seed, options=options)
        self.film.frames.clear()
        self._shoot()
        return answer

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        answer = self.env.step(action)
        self._shoot()
        return answer

    def _shoot(self) -> None:
        film = self.film
        if not film.rolling or film.trouble or len(film.frames) >= film.limit:
            return
        try:
            frame = self.env.render()
        except Exception as error:  # a missing package, no display, a bug: renderers fail in many ways
            film.trouble = f"{type(error).__name__}: {error}"
            return
        if isinstance(frame, np.ndarray) and frame.ndim in (2, 3) and frame.size:
            film.frames.append(frame.copy())
        else:
            film.trouble = f"it draws {type(frame).__name__} and no picture"
