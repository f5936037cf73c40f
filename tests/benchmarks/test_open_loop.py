"""`benchmarks.open_loop`: what was seen, what happened, and which runs are measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from agent.futures import Start
from agent.sequences import Episode
from benchmarks.harness import Options
from benchmarks.open_loop import BENCHMARK, bars, plan, show, summarise
from benchmarks.open_loop_grid import TRACK, Tracker, event_figures, events, view_groups, world_places
from benchmarks.open_loop_measure import drawn_starts
from envs.errors import UserError
from envs.rendering import DOOR, EMPTY, KEY, UNSEEN, WALL

minigrid = pytest.importorskip("minigrid", reason="needs the suites extra")
LEFT, RIGHT, FORWARD, PICK_UP, DROP, TOGGLE = range(6)


def walk(env_id: str, actions: list[int], seed: int = 0) -> tuple[Episode, list[tuple[int, int, int]], gym.Env[Any, Any]]:
    """An episode of a MiniGrid under given actions, where its agent was, and the environment as it ends."""
    env = Tracker(gym.make(env_id))
    images = [env.reset(seed=seed)[0]["image"]]
    info: dict[str, Any] = {}
    for action in actions:
        obs, _, terminated, truncated, info = env.step(action)
        images.append(obs["image"])
        assert not (terminated or truncated)
    length = len(actions)
    zeros = np.zeros(length, np.float32)
    episode = Episode({"image": np.stack(images)}, np.array(actions), zeros, zeros, False, True, env_id, seed, 0, 0)
    return episode, info[TRACK], env


def test_every_visible_cell_is_what_the_world_holds_at_its_place():
    rng = np.random.default_rng(0)
    for env_id in ("MiniGrid-DoorKey-8x8-v0", "MiniGrid-FourRooms-v0"):
        episode, track, env = walk(env_id, rng.choice([LEFT, RIGHT, FORWARD, FORWARD], 60).tolist(), seed=3)
        assert len(track) == 61 and {direction for _, _, direction in track} == {0, 1, 2, 3}
        world = env.unwrapped.grid.encode()  # type: ignore[attr-defined]  # nothing was moved
        compared = 0
        for image, where in zip(episode.obs["image"], track, strict=True):
            places = world_places(where, 7)
            assert places[3, 6].tolist() == list(where[:2]), "the agent stands at the bottom centre"
            for cell, (x, y) in zip(image.reshape(-1, 3), places.reshape(-1, 2), strict=True):
                inside = 0 <= x < world.shape[0] and 0 <= y < world.shape[1]
                if cell[0] != UNSEEN and inside:
                    assert cell.tolist() == world[x, y].tolist()
                    compared += 1
        assert compared > 500


def test_what_was_visible_in_the_context_is_seen_and_nothing_else():
    """Two turns to the left and two back: after a whole turn round, everything near had been seen."""
    episode, track, _ = walk("MiniGrid-Empty-16x16-v0", [RIGHT, RIGHT, LEFT, LEFT, LEFT, LEFT])
    tracks = {id(episode): track}
    image = episode.obs["image"]
    seen = view_groups([Start(episode, 2)], tracks, "image", 2, (2,))[2]
    visible = image[4, ..., 0] != UNSEEN
    assert (seen["seen"][0] >= visible).all(), "step 4 looks where step 0 did"
    assert (seen["seen"] ^ seen["unseen"]).all()
    assert (seen["seen_in_view"] <= seen["seen"]).all() and (
        seen["seen_remembered"] == (seen["seen"] & ~seen["seen_in_view"])
    ).all()
    alone = view_groups([Start(episode, 2)], tracks, "image", 0, (1, 2))
    assert (alone[1]["seen"] == alone[1]["seen_in_view"]).all(), "with no context, the start alone has been seen"
    assert alone[2]["seen"].sum() < seen["seen"].sum()
    corner = [cell for cell in np.argwhere(alone[2]["unseen"][0]) if visible[tuple(cell)]]
    assert corner, "what only the first view showed"
    parts = seen["seen_near"].astype(int) + seen["seen_middle"] + seen["seen_far"]
    assert (parts == seen["seen"]).all()
    assert seen["seen_wall"][0][image[4, ..., 0] == WALL].all() and not seen["seen_wall"][0][image[4, ..., 0] == EMPTY].any()


def views(*steps: tuple[int, tuple[int, int]]) -> np.ndarray:
    """Views of 7x7 cells by what is carried and what is ahead (object, state)."""
    frames = np.zeros((1, len(steps), 7, 7, 3), np.uint8)
    for t, (carried, (kind, state)) in enumerate(steps):
        frames[0, t, 3, 6, 0] = carried
        frames[0, t, 3, 5] = (kind, 0, state)
    return frames


def test_events_are_read_from_two_views_and_the_action_between_them():
    frames = views((EMPTY, (KEY, 0)), (KEY, (EMPTY, 0)), (KEY, (DOOR, 2)), (KEY, (DOOR, 0)), (KEY, (DOOR, 1)), (EMPTY, (DOOR, 0)))
    actions = np.array([[PICK_UP, FORWARD, TOGGLE, TOGGLE, DROP]])
    found = {name: np.flatnonzero(when[0]).tolist() for name, when in events(frames, actions).items()}
    assert found == {"pick_up": [0], "drop": [4], "open": [2], "close": [3]}
    other = {name: when.any() for name, when in events(frames, np.full((1, 5), FORWARD)).items()}
    assert other == dict.fromkeys(found, False), "another door that comes into view was not opened"


def test_an_event_is_predicted_at_the_very_step_it_happens():
    real = views((EMPTY, (KEY, 0)), (KEY, (EMPTY, 0)), (KEY, (EMPTY, 0)), (EMPTY, (KEY, 0)))
    late = views((EMPTY, (KEY, 0)), (EMPTY, (KEY, 0)), (KEY, (EMPTY, 0)), (EMPTY, (KEY, 0)))
    actions = np.array([[PICK_UP, PICK_UP, DROP]])
    figures = event_figures(late, real, actions, np.ones((1, 3), bool))
    assert figures["pick_up"]["all"] == {"real": 1, "imagined": 1, "recall": 0.0, "precision": 0.0}
    assert figures["drop"]["2-5"] == {"real": 1, "imagined": 1, "recall": 1.0, "precision": 1.0}
    assert figures["pick_up"]["1"] == {"real": 1, "imagined": 0, "recall": 0.0, "precision": None}
    ended = event_figures(late, real, actions, np.array([[True, True, False]]))
    assert ended["drop"]["all"] == {"real": 0, "imagined": 0, "recall": None, "precision": None}


def test_events_of_a_real_doorkey_balance_what_is_carried():
    env = gym.make("MiniGrid-DoorKey-5x5-v0")
    world: Any = env.unwrapped
    taken = np.random.default_rng(0).integers(6, size=(1, 240))
    frames = [env.reset(seed=0)[0]["image"], *(env.step(int(action))[0]["image"] for action in taken[0])]
    found = {name: int(when.sum()) for name, when in events(np.stack(frames)[None], taken).items()}
    door = next(cell for cell in world.grid.grid if cell is not None and cell.type == "door")
    assert found["pick_up"] > 0 and found["pick_up"] - found["drop"] == (world.carrying is not None)
    assert found["open"] - found["close"] == door.is_open


def figures(one: float, fifteen: float, recall: float | None) -> dict[str, object]:
    event = {"all": {"real": 4, "imagined": 4, "recall": recall, "precision": recall}}
    steps = {
        step: {"starts": 9, "changed_accuracy_seen": {"model": x, "nothing": 0.0, "frequent": 0.1}}
        for step, x in (("1", one), ("5", 0.9), ("15", fifteen))
    }
    return {
        "task": "DoorKey-8x8", "starts": 9, "episodes": 2, "modalities": {"image": steps, "reward": {"1": {"starts": 0}}},
        "events": {"model": {"open": event, "pick_up": event, "drop": event}},
    }  # fmt: skip


def test_doorkeys_bars_are_met_or_not():
    assert all(bars(figures(0.95, 0.8, 0.5)).values())
    assert list(bars(figures(0.96, 0.79, None)).values()) == [True, False, False, False, False]


def test_its_figures_are_shown_and_summed_up():
    done = {**figures(0.96, 0.79, 0.7), "bars": bars(figures(0.96, 0.79, 0.7)), "reached": None}
    records = [
        {"variant": "doorkey", "seed": 1, "error": None, "figures": done},
        {"variant": "doorkey", "seed": 2, "error": "it broke", "figures": None},
    ]
    result = summarise(Options(), records)
    assert result["cases"]["doorkey"]["2"] == {"error": "it broke"} and result["steps"] == [1, 5, 15]
    assert len(show(result).renderables) == 1 + 3 + 5 + 1


def still(length: int) -> Episode:
    zeros = np.zeros(length, np.float32)
    return Episode({}, np.zeros(length, np.int64), zeros, zeros, False, True, "t", 0, 0, 0)


def test_long_episodes_have_no_more_starts_than_their_share():
    short, long, quick = still(19), still(500), still(3)
    starts = drawn_starts([short, long, quick], 16, 20, np.random.default_rng(0))
    assert [start.step for start in starts if start.episode is short] == [16, 17, 18]
    assert len(starts) == 13 and len({start.step for start in starts if start.episode is long}) == 10
    assert min(start.step for start in starts) >= 16
    with pytest.raises(UserError, match="no held-out episode is longer than the context of 16 steps"):
        drawn_starts([quick], 16, 20, np.random.default_rng(0))


@pytest.mark.parametrize("word", ["doorkey", "atari=folder", "doorkey="])
def test_runs_are_named_by_what_they_are_of(word: str):
    with pytest.raises(UserError, match="is not NAME=FOLDER with one of doorkey_at_mastery, doorkey, gotolocal"):
        plan(BENCHMARK.parse(["--runs", word]))


def test_what_takes_long_is_run_if_it_is_asked_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("benchmarks.open_loop.composed_config", lambda given: {})

    def planned(*words: str) -> list[tuple[str, int]]:
        return [(run.variant, run.seed) for run in plan(BENCHMARK.parse([*words, "--seeds", "1", "2"]))]

    assert planned() == [
        *[("doorkey_at_mastery", 1), ("doorkey_at_mastery", 2), ("gotolocal", 1), ("gotolocal", 2)],
        *[("crafter", 1), ("pendulum", 1)],
    ]
    assert planned("--only", "doorkey", "crafter") == [("doorkey", 1), ("doorkey", 2), ("crafter", 1), ("crafter", 2)]


def test_a_run_that_is_no_run_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="is not a Strata checkpoint"):
        plan(BENCHMARK.parse(["--runs", f"doorkey={tmp_path}"]))
    with pytest.raises(UserError, match="--context -1 is too short"):
        plan(BENCHMARK.parse(["--only", "doorkey", "--context", "-1"]))
