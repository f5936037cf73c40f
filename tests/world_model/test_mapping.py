"""Maps of grids: motions against hand-worked ones, recall in a real maze, what is learned, and that all passes have one map."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import gymnasium as gym
import minigrid  # noqa: F401  # it registers its environments
import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.open_loop_grid import world_places
from envs.spaces.specs import ActionSpec
from tests.world_model.conftest import random_sequences
from world_model.batch import Sequences
from world_model.dynamics import RollingState
from world_model.imagination import ImaginationEnv
from world_model.latents import LatentBlock
from world_model.lattice import SIDE, motions
from world_model.mapping import GridMap, MapState, discovered
from world_model.model import WorldModel
from world_model.starts import starts_at, starts_now
from world_model.symbols import UNKNOWN

VIEW = 7
CPU = torch.device("cpu")
LEFT, RIGHT, FORWARD, TOGGLE = 0, 1, 2, 5


def grid_map(rows: int, columns: int, width: int = 4, classes: int = 64) -> GridMap:
    torch.manual_seed(0)
    block = LatentBlock("image", "grid", (classes,) * (rows * columns), layout=(rows, columns))
    return GridMap(block, width, ActionSpec("discrete", 7))


def motion_of(turn: Tensor, shift: Tensor, wanted: tuple[int, int, int]) -> int:
    (found,) = [m for m in range(len(turn)) if (int(turn[m]), *shift[m].tolist()) == wanted]
    return found


def test_the_motions_of_two_by_two_cells_by_hand():
    """Cells 0 1 / 2 3. In sight stay at least two of the four, so: no motion and turns round the middle, and steps aside."""
    turn, shift, where = motions(2, 2)
    assert (int(turn[0]), shift[0].tolist(), where[0].tolist()) == (0, [0, 0], [0, 1, 2, 3])
    assert len(turn) == 4 * 5, "a turn, then a step in one of four directions or none"
    # The next view lies one column to the right: its left column is the present right one.
    assert where[motion_of(turn, shift, (0, 0, 1))].tolist() == [1, 4, 3, 4]
    # A quarter turn (row, column) -> (column, -row), brought back by one column: the next cells 0 1 2 3 were 1 3 0 2.
    assert where[motion_of(turn, shift, (1, 0, 1))].tolist() == [1, 3, 0, 2]


def test_a_view_that_turns_round_its_pivot_stays_in_its_place_and_one_that_goes_on_does_not():
    """As MiniGrid's agent, who stands in the middle of the last column of what it sees, with what is ahead in those before."""
    grid = grid_map(VIEW, VIEW)
    turn, shift, _ = motions(VIEW, VIEW)
    left = motion_of(turn, shift, (1, 3 - 6, 6 + 3))  # (3, 6) turned is (6, -3)
    ahead = motion_of(turn, shift, (0, 0, -1))
    state, told = MapState.zeros(1, CPU), []
    for motion in (left, ahead, left, left):
        state, _ = grid._step(state, torch.ones(1, VIEW * VIEW).long(), torch.tensor([motion]))
        told.append(grid.pose(state)[0].tolist())
    # One column back in the view is, after one turn, (0, -1) -> (-1, 0): one row back on the map.
    assert grid.pose(MapState.zeros(1, CPU))[0].tolist() == [0, 3, 6]
    assert told == [[1, 3, 6], [1, 2, 6], [2, 2, 6], [3, 2, 6]]


def test_the_motion_of_a_discrete_action_is_the_likeliest_by_its_logits():
    grid = grid_map(5, 5)
    with torch.no_grad():
        for parameter in grid.parameters():
            parameter.copy_(torch.randn_like(parameter))
        grid.gate.weight[:, 7] += 1.0  # type: ignore[index,operator]  # likely by any action, so that the history chooses
        h, action = torch.randn(200, 4), torch.arange(200) % 7
        likeliest = grid.motion_logits(h, action)[1].argmax(-1)
        assert torch.equal(grid.motion(h, action), likeliest) and len(set(likeliest.tolist())) > 7


@pytest.mark.parametrize(("rows", "columns"), [(7, 7), (3, 9), (32, 32)])
def test_motions_name_the_cells_they_come_from_and_leave_enough_in_sight(rows: int, columns: int):
    turn, shift, where = motions(rows, columns)
    assert 0 < len(turn) <= 300 and len({(int(t), *s.tolist()) for t, s in zip(turn, shift, strict=True)}) == len(turn)
    inside = where < rows * columns
    assert (inside.float().mean(-1) >= 0.3).all()
    for row in where:
        kept = row[row < rows * columns]
        assert len(kept.unique()) == len(kept), "no cell comes from where another comes from"


def test_a_place_keeps_the_last_two_different_things_seen_there_and_the_unknown_is_not_seen():
    one = grid_map(1, 1)
    state, stay = MapState.zeros(1, CPU), torch.tensor([0])
    found = []
    for code in (5, 5, 7, 7, UNKNOWN, 5, 3):
        state, recalled = one._step(state, torch.tensor([[code]]), stay)
        found.append(tuple((recalled[0, 0] - 1).tolist()))
    assert found == [(5, -1), (5, -1), (7, 5), (7, 5), (7, 5), (5, 7), (3, 5)]


def play(
    task: str, steps: int, seed: int, choices: tuple[int, ...] = (LEFT, RIGHT, FORWARD, FORWARD)
) -> tuple[Tensor, Any, list[Any], Tensor]:
    """Views as codes (steps + 1, cells), actions, where the agent was, and which cells hid what they show."""
    env: Any = gym.make(task)
    obs, _ = env.reset(seed=seed)
    rng = np.random.default_rng(seed)
    where = [(*map(int, env.unwrapped.agent_pos), int(env.unwrapped.agent_dir))]
    views, actions = [obs["image"]], []
    for _ in range(steps):
        actions.append(int(rng.choice(choices)))
        obs, _, terminated, truncated, _ = env.step(actions[-1])
        assert not terminated and not truncated
        views.append(obs["image"])
        where.append((*map(int, env.unwrapped.agent_pos), int(env.unwrapped.agent_dir)))
    env.close()
    shown = np.stack(views).astype(np.int64)
    codes = 1 + shown[..., 0] + 11 * shown[..., 1] + 66 * shown[..., 2]
    return torch.from_numpy(codes).flatten(1), np.array(actions), where, torch.from_numpy(shown[..., 0] == 0).flatten(1)


def true_motions(where: list[Any], sources: Tensor) -> Tensor:
    """Which motion each step was, by where MiniGrid says that the agent was."""
    known = {tuple(row.tolist()): m for m, row in enumerate(sources)}
    found = []
    for before, after in pairwise(where):
        cell_at = {tuple(place): cell for cell, place in enumerate(world_places(before, VIEW).reshape(-1, 2).tolist())}
        source = [cell_at.get(tuple(place), VIEW * VIEW) for place in world_places(after, VIEW).reshape(-1, 2).tolist()]
        found.append(known[tuple(source)])
    return torch.tensor(found)


def test_in_a_real_maze_whatever_was_ever_seen_is_recalled_where_it_is():
    codes, _, where, hidden = play("MiniGrid-MultiRoom-N4-S5-v0", 100, seed=3)
    one = grid_map(VIEW, VIEW, classes=1024)
    motion = true_motions(where, one.where)
    state, seen, checked = MapState.zeros(1, CPU), dict[tuple[int, ...], int](), 0
    for t, m in enumerate(motion):
        for cell, place in enumerate(world_places(where[t], VIEW).reshape(-1, 2).tolist()):
            if not hidden[t, cell]:
                seen[tuple(place)] = int(codes[t, cell])
        state, recalled = one._step(state, codes[t : t + 1], m[None])
        for cell, place in enumerate(world_places(where[t + 1], VIEW).reshape(-1, 2).tolist()):
            last, other = (recalled[0, cell] - 1).tolist()
            if tuple(place) in seen:
                assert seen[tuple(place)] in (last, other)
                checked += not hidden[t + 1, cell]
    assert checked > 500


def test_motions_are_learned_from_views_alone():
    """From the action and the cell ahead: turns, steps, and bumping into what is in the way."""
    plays = [play("MiniGrid-DoorKey-8x8-v0", 63, seed) for seed in range(16)]
    kinds, codes = torch.stack([codes for codes, *_ in plays]).unique(return_inverse=True)  # (B, T + 1, cells)
    classes = len(kinds)
    actions = torch.from_numpy(np.stack([actions for _, actions, *_ in plays]))
    ahead = codes[:, :-1, 3 * VIEW + 5]  # an agent is at the middle of the view's last column and looks along its row
    features = torch.cat([torch.nn.functional.one_hot(actions, 3), torch.nn.functional.one_hot(ahead, classes)], -1).float()
    pairs = (features[..., :3, None] * features[..., None, 3:]).flatten(-2)
    one = grid_map(VIEW, VIEW, width=pairs.shape[-1], classes=classes)
    truth = torch.stack([true_motions(where, one.where) for _, _, where, _ in plays])
    learn_motions(one, pairs, actions, codes)
    assert (one.motion(pairs, actions) == truth).float().mean() > 0.98


def learn_motions(one: GridMap, h: Tensor, actions: Tensor, codes: Tensor) -> None:
    optimizer = torch.optim.Adam(one.parameters(), lr=2e-3)
    valid = torch.ones(actions.shape, dtype=torch.bool)
    for step in range(120):
        part = slice(step % 8, None)
        optimizer.zero_grad()
        now, after = codes[:, :-1][:, part], codes[:, 1:][:, part]
        one.loss(h[:, part], actions[:, part], now, after, valid[:, part]).mean().backward()
        optimizer.step()


def test_what_appears_behind_an_opening_door_is_no_leap():
    """Rooms are small and most of a view is hidden: much of it changes at once where a door is opened, and at turns."""
    choices = (LEFT, RIGHT, FORWARD, FORWARD, TOGGLE, TOGGLE)
    plays = [play("MiniGrid-MultiRoom-N4-S5-v0", 63, seed, choices) for seed in range(24)]
    kinds, codes = torch.stack([codes for codes, *_ in plays]).unique(return_inverse=True)
    actions = torch.from_numpy(np.stack([actions for _, actions, *_ in plays]))
    views = torch.nn.functional.one_hot(codes[:, :-1], len(kinds)).flatten(2).float()  # a history that could name every view
    one = grid_map(VIEW, VIEW, width=views.shape[-1], classes=len(kinds))
    truth = torch.stack([true_motions(where, one.where) for _, _, where, _ in plays])
    learn_motions(one, views, actions, codes)
    found, opened = one.motion(views, actions), codes[:, :-1].ne(codes[:, 1:]).sum(-1) > VIEW
    for action in (LEFT, RIGHT, TOGGLE):
        chosen = actions == action
        assert (opened & chosen).sum() > 5
        assert (found == truth)[chosen].float().mean() == 1
    assert (found == truth).float().mean() > 0.97


def test_a_sure_and_right_motion_costs_nothing_and_what_does_not_exist_does_not_count():
    one = grid_map(3, 3)
    now = torch.randint(1, 9, (1, 1, 9))
    turn, shift, where = motions(3, 3)
    right = motion_of(turn, shift, (0, 0, 1))
    after = torch.where(where[right] < 9, now[0, 0][where[right].clamp(max=8)], torch.randint(20, 64, (9,)))[None, None]
    h, valid = torch.zeros(1, 1, 4), torch.ones(1, 1, dtype=torch.bool)
    given = h, torch.tensor([[FORWARD]]), now, after
    unsure = one.loss(*given, valid)
    weight = one.gate.get_parameter("weight")
    with torch.no_grad():
        weight[FORWARD, right] = one.head.bias[right] = 30.0
    assert one.loss(*given, valid) < 0.01 < unsure
    with torch.no_grad():
        weight[FORWARD, right] = one.head.bias[right] = -30.0
    assert one.loss(*given, valid) > unsure
    assert one.loss(*given, ~valid) == 0


def wandering(model: WorldModel) -> WorldModel:
    """A new model's maps do not move: make the history matter."""
    torch.manual_seed(2)
    for key in model.maps.names:
        for layer in (model.maps[key].head, model.maps[key].gate):
            torch.nn.init.normal_(layer.get_parameter("weight"), std=1.0)
    return model


def played(model: WorldModel, batch: Sequences) -> list[tuple[Tensor, RollingState]]:
    """What the maps hold for each next view, and the state before each step, one step at a time."""
    z, _ = model.posterior(batch.obs)
    state, found = model.rolling_state(len(z), CPU), []
    for t in range(z.shape[1]):
        state = state.restart(batch.first[:, t])
        before = state
        h, state = model.take_in(z[:, t], batch.action[:, t], state)
        _, recalled = model.maps.step(before.maps, model.latents.split(z[:, t]), h, batch.action[:, t])
        found.append((recalled["image"], before))
    return found


@torch.no_grad()
def test_step_by_step_the_maps_are_those_of_the_full_pass_with_resets_and_windows_that_dropped_old_steps(model):
    batch = random_sequences(wandering(model), 3, 20, ends={1: 4, 2: 11})
    _, _, context = model.prefill(batch.obs, batch.action, batch.first)
    assert len(context.maps["image"].pose.flatten(0, 1).unique(dim=0)) > 10, "the maps move"
    for t, (recalled, before) in enumerate(played(model, batch)):
        assert torch.equal(recalled, context.recalled["image"][:, t])
        assert torch.equal(before.maps["image"].seen, context.maps["image"].seen[:, t])
        assert torch.equal(before.maps["image"].pose, context.maps["image"].pose[:, t])


@torch.no_grad()
def test_a_map_holds_nothing_from_the_future_nor_of_another_episode(model):
    batch = random_sequences(wandering(model), 1, 12, ends={0: 5})
    _, _, before = model.prefill(batch.obs, batch.action, batch.first)
    for changed in (2, 5, 9):
        batch.obs["image"][0, changed] = (batch.obs["image"][0, changed] + 1) % 9
        _, _, after = model.prefill(batch.obs, batch.action, batch.first)
        moved = (after.recalled["image"] != before.recalled["image"]).flatten(2).any(-1)[0]
        episode = range(changed, 6) if changed < 6 else range(changed, 12)
        assert moved[changed] and set(moved.nonzero().flatten().tolist()) <= set(episode)
        before = after


def cut(batch: Sequences, at: int) -> Sequences:
    """What comes from step `at` on, with all before it."""
    return replace(batch.apply(lambda x: x[:, at:]), before=batch.apply(lambda x: x[:, : at + 1]))


@torch.no_grad()
def test_maps_are_filled_by_what_came_before_a_sequence_and_nothing_else_changes(model):
    at = 9
    batch = random_sequences(wandering(model), 3, 24, ends={1: 1, 2: at - 1})  # in the last row an episode begins there
    _, _, whole = model.prefill(batch.obs, batch.action, batch.first)
    filled = model(with_before := cut(batch, at))
    empty = model(replace(with_before, before=None))
    assert torch.equal(filled.context.maps["image"].seen[:, 0], whole.maps["image"].seen[:, at])
    assert torch.equal(filled.context.maps["image"].pose[:, 0], whole.maps["image"].pose[:, at])
    news = filled.context.recalled["image"] != empty.context.recalled["image"]
    assert news.flatten(1).any(1).tolist() == [True, True, False]
    assert torch.equal(filled.h, empty.h) and torch.equal(filled.z, empty.z), "attention reaches back no further"
    assert filled.losses["prior/image"] != empty.losses["prior/image"]
    assert all(filled.losses[name] == empty.losses[name] for name in ("reward", "cont", "motion/image"))


def test_what_came_before_is_not_learned_from(model):
    batch = cut(random_sequences(wandering(model), 2, 12), 6)
    seen: list[bool] = []
    model.dynamics.register_forward_hook(lambda *_: seen.append(torch.is_grad_enabled()))
    model(batch).loss.backward()
    assert seen == [False, True]


@torch.no_grad()
def test_imagined_maps_are_those_of_a_full_pass_over_context_and_imagined_steps(model, monkeypatch: pytest.MonkeyPatch):
    batch = random_sequences(wandering(model), 2, 12, ends={0: 4})
    z, h, context = model.prefill(batch.obs, batch.action, batch.first)
    starts = starts_at(torch.tensor([[3, 9], [0, 11]]), z, h, batch.first, context).branch(2)
    recalled: list[Tensor] = []
    real = model.sample_next

    def watched(h: Tensor, z: Tensor, noise: Tensor | None, seen: Any) -> Tensor:
        recalled.append(seen["image"])
        return real(h, z, noise, seen)

    monkeypatch.setattr(model, "sample_next", watched)
    rollout = ImaginationEnv(model, 6, 8).imagine(lambda z, h: (torch.randint(5, (8,)), torch.zeros(8)), starts)
    for n in range(8):
        row, start = n // 4, int(starts.step.flatten()[n])
        begin = 5 if (row, start) == (0, 9) else 0
        codes = torch.cat([z[row, begin:start], rollout.z[n, :-1]])[None]
        taken = torch.cat([batch.action[row, begin:start], rollout.action[n]])[None]
        first = torch.zeros(1, codes.shape[1], dtype=torch.bool)
        first[0, 0] = True
        _, full = model._history(codes, taken, first, {})
        for k in range(6):
            assert torch.equal(full.recalled["image"][0, start - begin + k], recalled[k][n])
            news = discovered({"image": recalled[k][n]}, model.latents.split(rollout.z[n, k + 1]))
            assert rollout.discovered[n, k] == news
    assert 0 < rollout.discovered.mean() < 1


@torch.no_grad()
def test_imagination_from_acting_begins_with_the_map_of_the_episode_under_way(model):
    batch = random_sequences(wandering(model), 2, 10)
    z, h, context = model.prefill(batch.obs, batch.action, batch.first)
    _, before = played(model, batch)[9]
    now = starts_now(before, z[:, 9], h[:, 8]).branch(3)
    assert now.maps["image"].seen.shape == (2, 3, SIDE * SIDE)
    for row in range(2):
        for branch in range(3):
            assert torch.equal(now.maps["image"].seen[row, branch], context.maps["image"].seen[row, 9])
            assert torch.equal(now.maps["image"].pose[row, branch], context.maps["image"].pose[row, 9])


def test_news_is_what_a_place_has_shown_neither_last_nor_before():
    held = torch.tensor([[[0, 0], [5, 0], [5, 3], [5, 3]]])  # codes plus one, 0 for none
    views = torch.tensor([[4, 4, 2, 3], [UNKNOWN, 3, 2, 4]])
    assert discovered({"a": held.expand(2, -1, -1)}, {"a": views}).tolist() == [0.5, 0.25]
    both = discovered({"a": held, "b": held[:, :1]}, {"a": views[:1], "b": views[:1, :1]})
    assert both.tolist() == [0.75], "the mean over grids"


def test_without_what_its_map_holds_a_prior_refuses_to_answer(model):
    with pytest.raises(ValueError, match="'image' reads its map"):
        model.prior_logits(torch.zeros(1, 32), torch.zeros(1, model.latents.groups, dtype=torch.int64))
