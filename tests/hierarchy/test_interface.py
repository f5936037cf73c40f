"""What a hierarchy owes the trainer, and what it gets: the interface the flat policy and any other keeps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from agent.learner import Learner, real_trajectory
from agent.sequences import SequenceBatch
from agent.timing import PhaseTimer
from envs.errors import UserError
from hierarchy import Hierarchy, HierarchyConfig, make_hierarchy
from hierarchy.base import Learning
from hierarchy.trajectory import LatentTrajectory
from tests.hierarchy.toy import ACTIONS, LATENTS, WIDTH, actor_critic, states
from tests.world_model.conftest import SPEC, random_observations, tiny_config
from world_model.batch import ModelOutput, Sequences
from world_model.dynamics import RecordingCache
from world_model.engines.local import LocalEngine
from world_model.imagination import ImaginationEnv
from world_model.model import WorldModel
from world_model.starts import Starts


class Pair(Hierarchy):
    """A manager and a worker of one weight each, learning one after the other; the manager's second lesson needs the first."""

    def __init__(self) -> None:
        super().__init__()
        self.manager, self.worker = nn.Parameter(torch.ones(())), nn.Parameter(torch.ones(()))
        self.frozen = nn.Parameter(torch.ones(()), requires_grad=False)
        self.events: list[Any] = []

    def learn(self, env: ImaginationEnv, starts: Starts, real: LatentTrajectory) -> Iterator[Learning]:
        self.events.append((env.horizon, tuple(starts.step.shape), tuple(real.action.shape), real.source))
        for name, target in (("manager", 0), ("worker", 0), ("manager", 9)):
            loss = (getattr(self, name) - target) ** 2
            self.events.append((name, self.manager.item(), self.worker.item()))
            yield Learning(loss, {"lesson": loss.detach()}, lambda name=name: self.events.append(f"after {name}"))  # type: ignore[misc]


def batch(B: int = 4, T: int = 8) -> SequenceBatch:
    rng = np.random.default_rng(0)
    nothing = np.zeros((B, T), bool)
    first = nothing.copy()
    first[:, 0] = True
    return SequenceBatch(
        obs=random_observations((B, T)),
        action=rng.integers(0, 5, (B, T)),
        log_prob=np.full((B, T), -1.6, np.float32),
        reward=np.zeros((B, T), np.float32),
        first=first,
        terminated=nothing,
        truncated=nothing.copy(),
        task=np.zeros((B, T), np.int64),
    )


def test_whatever_a_hierarchy_yields_gets_a_step_of_its_own_and_is_told_after_it():
    torch.manual_seed(0)
    pair = Pair()
    config = HierarchyConfig(horizon=3, starts=2, actor_critic=actor_critic(lr=0.1))
    learner = Learner(LocalEngine(WorldModel(SPEC, tiny_config()), torch.device("cpu")), pair, config, 4, torch.device("cpu"))
    log = learner.update(batch(), PhaseTimer())
    assert pair.events[0] == (3, (4, 2), (4, 7), "real")
    # Adam's first step is the learning rate; what was not in a loss stays.
    expected = [("manager", 1, 1), "after manager", ("worker", 0.9, 1), "after worker", ("manager", 0.9, 0.9), "after manager"]
    for event, wanted in zip(pair.events[1:], expected, strict=True):
        assert event == (wanted if isinstance(wanted, str) else (wanted[0], *map(pytest.approx, wanted[1:])))
    assert pair.frozen.item() == 1 and learner.updates == 1
    assert log["policy/lesson"] == pytest.approx((1 + 1 + (0.9 - 9) ** 2) / 3, rel=1e-4), "the mean of all three"


def test_before_the_policy_learns_the_model_learns_alone():
    pair = Pair()
    engine = LocalEngine(WorldModel(SPEC, tiny_config()), torch.device("cpu"))
    learner = Learner(engine, pair, HierarchyConfig(horizon=3, starts=2), 4, torch.device("cpu"))
    before = {name: value.clone() for name, value in engine.model.named_parameters()}
    log = learner.update(batch(), PhaseTimer(), policy=False)
    assert pair.events == [] and not any(name.startswith("policy/") for name in log)
    assert any(not torch.equal(value, before[name]) for name, value in engine.model.named_parameters())


def test_learning_in_imagination_leaves_the_world_model_without_gradients_and_unchanged():
    torch.manual_seed(0)
    model = WorldModel(SPEC, tiny_config())
    policy = make_hierarchy(HierarchyConfig(horizon=3, starts=2, actor_critic=actor_critic()), model.latents, 32, SPEC.action)
    engine = LocalEngine(model, torch.device("cpu"))
    learner = Learner(engine, policy, HierarchyConfig(horizon=3, starts=2), 4, torch.device("cpu"))
    output = model(learner.sequences(batch()))
    before = {name: value.clone() for name, value in model.named_parameters()}
    log_prob = torch.full((4, 8), -1.6)
    learner._learn_policy(output, learner.sequences(batch()), log_prob, PhaseTimer())
    assert all(torch.equal(value, before[name]) and value.grad is None for name, value in model.named_parameters())


def test_the_flat_policy_remembers_nothing_and_acts_on_what_it_sees():
    policy = make_hierarchy(HierarchyConfig(actor_critic=actor_critic()), LATENTS, WIDTH, ACTIONS)
    assert policy.initial_state(3) == {}
    z, h = states(0, 1, 1)
    action, log_prob, state = policy.act(z, h, {}, torch.tensor([True, False, False]))
    assert action.shape == log_prob.shape == (3,) and action.dtype == torch.int64 and state == {}
    assert not log_prob.requires_grad


def test_an_unknown_hierarchy_is_refused_with_those_there_are():
    with pytest.raises(UserError, match=r"hierarchy\.name 'boss' is unknown; choose one of flat, director"):
        make_hierarchy(HierarchyConfig(name="boss"), LATENTS, WIDTH, ACTIONS)


def test_a_training_pass_becomes_real_trajectories_with_rewards_and_ends_at_the_step_that_led_there():
    """Steps 0 1 | 2 3 4 | 5: the first episode terminates at step 1, the second is cut off at step 4."""
    number = torch.arange(6.0)

    def flags(*steps: int) -> Tensor:
        return torch.tensor([[step in steps for step in range(6)]])

    sequences = Sequences({}, torch.arange(6)[None], 10 * number[None], flags(0, 2, 5), flags(1), flags(4))
    h = number.view(1, 6, 1) + 1
    z = torch.arange(6).view(1, 6, 1)
    nothing: dict[str, Tensor] = {}
    output = ModelOutput(nothing, torch.zeros(()), nothing, z, h, RecordingCache())
    path = real_trajectory(WorldModel(SPEC, tiny_config()), output, sequences, log_prob=-number[None])
    assert path.z[0, :, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert path.h[0, :, 0].tolist() == [0, 1, 0, 3, 4, 0], "the history before each state; none where an episode starts"
    assert path.action[0].tolist() == [0, 1, 2, 3, 4] and path.log_prob[0].tolist() == [0, -1, -2, -3, -4]
    assert path.reward[0].tolist() == [10, 20, 30, 40, 50]
    assert path.cont[0].tolist() == [0, 1, 1, 1, 1], "step 1 is terminal; step 4 is cut off, which is no termination"
    assert path.weight[0].tolist() == [1, 0, 1, 1, 0, 1]
    assert path.boundary[0].tolist() == [False, True, False, False, True, False]


def test_rows_of_a_trajectory_keep_every_part_and_the_source():
    path = LatentTrajectory(
        z=torch.arange(6).view(3, 2, 1),
        h=torch.zeros(3, 2, 4),
        action=torch.tensor([[5], [6], [7]]),
        log_prob=torch.zeros(3, 1),
        reward=torch.zeros(3, 1),
        cont=torch.ones(3, 1),
        weight=torch.ones(3, 2),
        boundary=torch.zeros(3, 2, dtype=torch.bool),
        source="imagined",
    )
    rows = path.rows(torch.tensor([2, 0]))
    assert rows.z[..., 0].tolist() == [[4, 5], [0, 1]] and rows.action.tolist() == [[7], [5]] and rows.source == "imagined"


def test_a_hierarchy_without_goals_never_decides_on_one():
    policy = make_hierarchy(HierarchyConfig(actor_critic=actor_critic()), LATENTS, WIDTH, ACTIONS)
    decided = policy.decides(policy.initial_state(2), torch.tensor([True, False]))
    assert decided.tolist() == [False, False]
