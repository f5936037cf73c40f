"""A cached step equals the full pass; nothing flows from the future or across an episode's end."""

from __future__ import annotations

import torch

from tests.world_model.conftest import random_sequences
from world_model.dynamics import RollingState, rolling_step, segment_mask
from world_model.imagination import Starts, choose_starts, previous_history
from world_model.model import Sequences, WorldModel


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
def test_imagined_steps_equal_the_full_pass_over_context_and_imagined_steps(model):
    from world_model.imagination import ImaginationEnv

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
