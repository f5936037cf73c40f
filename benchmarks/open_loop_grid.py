"""MiniGrid's worlds under an egocentric view: which cells had been seen, and what happened to doors and things.

A cell of the view is *seen* if the place of the world that it shows was visible in one of the context's observations (the start's
own among them). What becomes visible only later can only be guessed by a model, and so can what hides behind it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from agent.futures import Start
from envs.rendering import BALL, BOX, DOOR, EMPTY, GOAL, KEY, OPEN, UNSEEN, WALL

Array = NDArray[Any]

TRACK = "open_loop_track"
MARGIN = 16  # cells that a view may reach over the edge of the world
PICK_UP, DROP, TOGGLE = 3, 4, 5  # MiniGrid's actions
SPANS = {"1": (1, 1), "2-5": (2, 5), "6-15": (6, 15), "all": (1, 15)}  # steps after the start
NAMES = {UNSEEN: "hidden", EMPTY: "empty", WALL: "wall", DOOR: "door", KEY: "key", BALL: "ball", BOX: "box", GOAL: "goal"}


class Tracker(gym.Wrapper[Any, Any, Any, Any]):
    """Notes where a MiniGrid's agent was and which way it looked, before the first step and after each: (x, y, direction)."""

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        answer = self.env.reset(**kwargs)
        self._track = [self._where()]
        return answer

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = self.env.step(action)
        self._track.append(self._where())
        return obs, reward, terminated, truncated, {**info, TRACK: self._track}

    def _where(self) -> tuple[int, int, int]:
        env: Any = self.env.unwrapped
        return int(env.agent_pos[0]), int(env.agent_pos[1]), int(env.agent_dir)


def world_places(where: tuple[int, int, int], size: int) -> Array:
    """The places (size, size, 2) of the world, (x, y), that the cells of a MiniGrid's view show: `view[i, j]` of an image.

    The view is cut out ahead of the agent and turned until the agent, at its bottom centre, looks up.
    """
    x, y, direction = where
    half = size // 2
    left = (x, x - half, x - size + 1, x - half)[direction]
    top = (y - half, y, y - half, y - size + 1)[direction]
    places = np.stack(np.meshgrid(left + np.arange(size), top + np.arange(size), indexing="ij"), -1)
    for _ in range(direction + 1):
        places = places.transpose(1, 0, 2)[:, ::-1]  # a quarter turn to the left
    return places


def view_groups(
    starts: Sequence[Start], tracks: Mapping[int, Sequence[tuple[int, int, int]]], key: str, context: int, steps: Sequence[int]
) -> dict[int, dict[str, Array]]:
    """Which cells of the view, `steps` after each start, show what had been seen: `{step: {name: (S, size, size) bool}}`.

    `seen` and `unseen` part all cells. Parts of the seen ones: `in_view` at the start itself, or `remembered` from before; by
    distance `near` (up to two cells), `middle` or `far` (five and more); and by what they turn into (`NAMES`).

    Args:
        tracks: {id of an episode: where its agent was at each of its observations}.
    """
    size = starts[0].episode.obs[key].shape[1]
    places = {name: np.stack([world_places(where, size) for where in track]) + MARGIN for name, track in tracks.items()}
    edge = max(int(place.max()) for place in places.values()) + 1
    i, j = np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
    distance = np.maximum(abs(i - size // 2), size - 1 - j)
    groups: dict[int, dict[str, Array]] = {step: {} for step in steps}
    rows: dict[int, dict[str, list[Array]]] = {step: {} for step in steps}
    for start in starts:
        images, shown = start.episode.obs[key], places[id(start.episode)]
        begin = max(0, start.step - context)
        before, now = np.zeros((edge, edge), bool), np.zeros((edge, edge), bool)
        visible = images[..., 0] != UNSEEN  # (T + 1, size, size)
        before[tuple(shown[begin : start.step + 1][visible[begin : start.step + 1]].T)] = True
        now[tuple(shown[start.step][visible[start.step]].T)] = True
        for step in steps:
            at = min(start.step + step, len(start.episode))
            seen, in_view = before[tuple(shown[at].T)].T, now[tuple(shown[at].T)].T
            parts = {"seen": seen, "unseen": ~seen, "seen_in_view": in_view, "seen_remembered": seen & ~in_view}
            parts |= {"seen_near": seen & (distance <= 2), "seen_far": seen & (distance >= 5)}
            parts["seen_middle"] = seen & (distance > 2) & (distance < 5)
            parts |= {f"seen_{name}": seen & (images[at, ..., 0] == kind) for kind, name in NAMES.items()}
            for name, part in parts.items():
                rows[step].setdefault(name, []).append(part)
    for step in steps:
        groups[step] = {name: np.stack(parts) for name, parts in rows[step].items()}
    return groups


def events(frames: Array, actions: Array) -> dict[str, Array]:
    """What happens in sequences of views (S, H + 1, size, size, 3) under actions (S, H), as they show it: `{event: (S, H) bool}`.

    A thing is carried where the agent stands, the bottom centre of the view; a door is worked on the cell ahead of it.
    """
    size = frames.shape[2]
    here, ahead = frames[:, :, size // 2, size - 1], frames[:, :, size // 2, size - 2]
    carried = np.isin(here[..., 0], (KEY, BALL, BOX))
    door, is_open = ahead[..., 0] == DOOR, ahead[..., 2] == OPEN
    doors = door[:, :-1] & door[:, 1:] & (actions == TOGGLE)
    return {
        "pick_up": (actions == PICK_UP) & ~carried[:, :-1] & carried[:, 1:],
        "drop": (actions == DROP) & carried[:, :-1] & ~carried[:, 1:],
        "open": doors & ~is_open[:, :-1] & is_open[:, 1:],
        "close": doors & is_open[:, :-1] & ~is_open[:, 1:],
    }


def event_figures(imagined: Array, real: Array, actions: Array, exists: Array) -> dict[str, dict[str, dict[str, Any]]]:
    """`{event: {steps after the start: {real, imagined, recall, precision}}}` of views as in `events`.

    An event is predicted if it is imagined at the very step at which it happens. Steps that do not `exist` (S, H) are left out.
    """
    found: dict[str, dict[str, dict[str, Any]]] = {}
    ours, theirs = events(imagined, actions), events(real, actions)
    for name in theirs:
        found[name] = {}
        for span, (first, last) in SPANS.items():
            there = exists[:, first - 1 : last]
            said, true = (x[name][:, first - 1 : last] & there for x in (ours, theirs))
            hits = int((said & true).sum())
            found[name][span] = {
                "real": int(true.sum()),
                "imagined": int(said.sum()),
                "recall": hits / int(true.sum()) if true.any() else None,
                "precision": hits / int(said.sum()) if said.any() else None,
            }
    return found
