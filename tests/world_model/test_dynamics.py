"""A cached step equals the full pass; nothing flows from the future or across an episode's end."""

from __future__ import annotations

import itertools

import torch

from tests.world_model.conftest import random_sequences
from world_model.batch import Sequences
from world_model.dynamics import RecordingCache, RollingState, rolling_step, segment_mask
from world_model.imagination import ImaginationEnv
from world_model.mapping import MapState
from world_model.model import WorldModel
from world_model.starts import Starts, choose_starts, previous_history, starts_at, starts_now


def full_pass(model: WorldModel, batch: Sequences) -> tuple[torch.Tensor, torch.Tensor]:
    z, _ = model.posterior(batch.obs)
    steps = torch.arange(z.shape[1]).unsqueeze(0)
    return z, model.dynamics(model.embed(z, batch.action), segment_mask(batch.first, model.config.window), steps)


@torch.no_grad()
def test_the_rolling_cache_equals_the_full_pass_with_resets_and_windows_that_dropped_old_steps(model):
    batch = random_sequences(model, 3, 20, ends={1: 4, 2: 11})
    z, expected = full_pass(model, batch)
    state = RollingState.zeros(model.dynamics, 3, torch.device("cpu"))
    for t in range(20):
        h, state = rolling_step(model.dynamics, model.embed(z[:, t], batch.action[:, t]), state.restart(batch.first[:, t]))
        assert (h - expected[:, t]).abs().max() < 1e-4


@torch.no_grad()
def test_a_step_sees_neither_the_future_nor_another_episode_nor_beyond_the_window(model):
    batch = random_sequences(model, 1, 20, ends={0: 9})
    _, before = full_pass(model, batch)
    depth = model.config.layers * (model.config.window - 1)
    for changed in (3, 9, 15):
        batch.action[0, changed] = (batch.action[0, changed] + 1) % 5
        _, after = full_pass(model, batch)
        moved = (after - before).abs().amax(-1)[0] > 0
        end = 10 if changed <= 9 else 20
        may_move = [changed <= t < min(end, changed + depth + 1) for t in range(20)]
        assert moved[changed]
        assert not (moved & ~torch.tensor(may_move)).any()
        before = after


@torch.no_grad()
def test_nothing_that_is_observed_reaches_earlier_steps_or_another_episode(model):
    """By way of any modality, the attention among them, the decoder or the maps, to histories and predictions alike."""
    batch = random_sequences(model, 1, 20, ends={0: 9})

    def predicted() -> list[torch.Tensor]:
        output = model(batch)
        logits = model.prior_logits(output.h, output.z, output.context.recalled)
        return [output.h, *(x.flatten(2) for x in logits.values())]

    before = predicted()
    for key, changed in itertools.product(batch.obs, (3, 9, 15)):
        kept = batch.obs[key]
        batch.obs[key] = kept.clone()
        batch.obs[key][0, changed] = 1 - kept[0, changed] if kept.is_floating_point() else (kept[0, changed] == 0).to(kept.dtype)
        moved = torch.stack([(x - y).abs().amax(-1)[0] for x, y in zip(predicted(), before, strict=True)]).amax(0) > 0
        batch.obs[key] = kept
        assert moved[changed], key
        assert not moved[:changed].any() and not (changed <= 9 and moved[10:].any()), (key, changed)


@torch.no_grad()
def test_imagined_steps_equal_the_full_pass_over_context_and_imagined_steps(model):
    model.train()
    horizon = 8
    batch = random_sequences(model, 2, 12, ends={0: 4})
    output = model(batch)
    model.eval()
    step = torch.tensor([[3, 9], [0, 11]])
    rows = torch.arange(2).unsqueeze(1)
    history = previous_history(output.h, batch.first)
    starts = Starts(step, output.z[rows, step], history[rows, step], batch.first, output.context)
    env = ImaginationEnv(model, horizon, 4)
    rollout = env.imagine(lambda z, h: (torch.randint(5, (4,)), torch.zeros(4)), starts)
    for n in range(4):
        row, start = n // 2, int(step.flatten()[n])
        episode = 5 if (row, start) == (0, 9) else 0
        z = torch.cat([output.z[row, episode:start], rollout.z[n, :-1]])
        action = torch.cat([batch.action[row, episode:start], rollout.action[n]])
        first = torch.zeros(1, len(z), dtype=torch.bool)
        first[0, 0] = True
        h = model.dynamics(
            model.embed(z[None], action[None]), segment_mask(first, model.config.window), torch.arange(len(z)).unsqueeze(0)
        )
        assert (h[0, start - episode :] - rollout.h[n, 1:]).abs().max() < 1e-4


def test_starts_are_distinct_steps_and_leave_out_ends_of_episodes(model):
    batch = random_sequences(model, 2, 12, ends={0: 4, 1: 7})
    with torch.no_grad():
        starts = choose_starts(model(batch), batch, 11)
    assert sorted(starts.step[0].tolist()) == [t for t in range(12) if t != 4]
    assert sorted(starts.step[1].tolist()) == [t for t in range(12) if t != 7]


@torch.no_grad()
def test_imagination_goes_on_from_acting_as_from_a_full_pass(model):
    """Three episodes of different age: not begun, shorter than the window, longer than it (so the ring has turned over)."""
    model.eval()
    ages, horizon, window = (0, 4, 15), 4, model.config.window
    batch = random_sequences(model, 3, 16)
    z, _, _ = model.prefill(batch.obs, batch.action, batch.first)
    rows = torch.arange(3)
    alone = [play(model, z[row], batch.action[row], age) for row, age in enumerate(ages)]
    keys, values = torch.cat([s.keys for s, _ in alone], 1), torch.cat([s.values for s, _ in alone], 1)
    maps = {
        key: MapState(*(torch.cat([getattr(s.maps[key], name) for s, _ in alone]) for name in ("seen", "pose")))
        for key in model.maps.names
    }
    state = RollingState(keys, values, torch.tensor(ages), maps)
    history = torch.stack([h for _, h in alone])
    starts = starts_now(state, z[rows, list(ages)], history).branch(2)
    assert starts.step.shape == (3, 2)
    env = ImaginationEnv(model, horizon, 6)
    rollout = env.imagine(lambda z, h: (torch.randint(5, (6,)), torch.zeros(6)), starts)
    assert not torch.equal(rollout.z[4], rollout.z[5]), "two futures of one state"
    for n in range(6):
        row = n // 2
        codes = torch.cat([z[row, : ages[row]], rollout.z[n, :-1]])[None]
        taken = torch.cat([batch.action[row, : ages[row]], rollout.action[n]])[None]
        first = torch.zeros(1, codes.shape[1], dtype=torch.bool)
        first[0, 0] = True
        steps = torch.arange(codes.shape[1])[None]
        h = model.dynamics(model.embed(codes, taken), segment_mask(first, window), steps)
        assert (h[0, ages[row] :] - rollout.h[n, 1:]).abs().max() < 1e-4


def play(model, z, action, age):
    """The rolling cache after `age` steps, of a ring that held another episode, and the last history."""
    shape = RollingState.zeros(model.dynamics, 1, torch.device("cpu")).keys.shape
    position, h = torch.zeros(1, dtype=torch.int64), torch.zeros(1, 32)
    state = RollingState(torch.randn(shape), torch.randn(shape), position, model.maps.zeros(1, torch.device("cpu")))
    for t in range(age):
        h, state = model.take_in(z[t : t + 1], action[t : t + 1], state)
    return state, h[0]


@torch.no_grad()
def test_one_prefill_takes_in_sequences_of_different_lengths_with_episode_starts_inside(model):
    """Rows end at 5, 9 and 11; the second starts an episode at 4. What fills the rows behind their ends has no effect."""
    model.eval()
    batch, ends = random_sequences(model, 3, 12, ends={1: 3}), torch.tensor([[5], [9], [11]])
    z, h, context = model.prefill(batch.obs, batch.action, batch.first)
    other = {key: value.clone() for key, value in batch.obs.items()}
    for row, end in enumerate(ends.flatten().tolist()):
        for value in other.values():
            value[row, end + 1 :] = value[row, end, None]
    elsewhere = model.prefill(other, batch.action, batch.first)

    def imagine(z: torch.Tensor, h: torch.Tensor, context: RecordingCache) -> torch.Tensor:
        env = ImaginationEnv(model, 5, 3)
        env.set_seed(0)
        return env.imagine(lambda z, h: (z[:, 0] % 5, torch.zeros(3)), starts_at(ends, z, h, batch.first, context)).h

    assert (imagine(z, h, context) - imagine(*elsewhere)).abs().max() < 1e-5
    output = model(batch)
    assert torch.equal(output.z, z) and (output.h - h).abs().max() < 1e-6
