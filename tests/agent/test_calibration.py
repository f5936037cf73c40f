"""Reliability by hand, and of a trained agent's predictions."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from agent.calibration import calibrate, calibration_summary, foresee_tasks, reliability
from agent.foresight import Foresight, discounted, foresee
from agent.learner import real_trajectory
from agent.playing import play_episode
from agent.trainer import Trainer
from envs import make_task_space
from hierarchy import make_hierarchy
from hierarchy.flat import FlatPolicy
from tests.agent.test_dream import agent_of, episode_of
from tests.agent.tiny import CARTPOLE, DOORKEY, play, tiny_config
from world_model.batch import Sequences


def test_the_expected_calibration_error_weighs_the_distance_in_every_bin_by_how_many_are_in_it():
    predicted = [0.05, 0.07, 0.92, 0.94, 0.96, 0.98]
    observed = [0, 1, 1, 1, 1, 0]
    found = reliability(predicted, observed, probability=True)
    assert found["count"] == [2, 4]
    assert found["predicted"] == pytest.approx([0.06, 0.95]) and found["observed"] == pytest.approx([0.5, 0.75])
    assert found["error"] == pytest.approx((2 * 0.44 + 4 * 0.20) / 6)


def test_a_probability_of_one_is_in_the_last_bin():
    found = reliability([1.0, 0.95, 0.0], [1, 1, 0], probability=True)
    assert found["count"] == [1, 2] and found["error"] == pytest.approx(2 / 3 * 0.025)


def test_numbers_are_put_into_bins_of_equally_many_and_equal_ones_together():
    found = reliability(np.arange(100.0), np.arange(100.0) + 2)
    assert found["count"] == [10] * 10 and found["error"] == pytest.approx(2)
    same = reliability([0.0] * 9 + [1.0], [0.0] * 9 + [0.5])
    assert sum(same["count"]) == 10 and same["error"] == pytest.approx(0.05)


def test_the_return_of_a_state_is_all_that_follows_discounted():
    assert discounted(np.array([1.0, 0.0, 2.0]), 8.0, 0.5).tolist() == [1 + 0.25 * (2 + 4), 0.5 * (2 + 4), 6.0]


@pytest.mark.parametrize(("env", "ends"), [(DOORKEY, False), (CARTPOLE, True)], ids=["doorkey", "cartpole"])
def test_what_was_foreseen_is_what_a_pass_over_the_whole_episode_predicts(
    tmp_path: Path, env: dict[str, object], ends: bool, monkeypatch: pytest.MonkeyPatch
):
    config = tiny_config(env)
    trainer = Trainer(config, tmp_path)
    play(trainer, 60)
    agent = trainer.agent
    assert isinstance(agent.hierarchy, FlatPolicy)
    for parameter in agent.hierarchy.policy.critic.parameters():  # it begins at zero: everything would be worth the same
        torch.nn.init.normal_(parameter, std=0.2)
    tasks = make_task_space(config.env)
    episode = play_episode(agent, config.env, tasks, tasks.hardest.id, "test", 1, 0.9)
    assert episode.terminated == ends
    whole = foresee(agent, episode, 0.9)
    steps = len(episode)
    with torch.no_grad():
        obs = agent.model.tokenize({key: value[None] for key, value in episode.obs.items()})
        action = torch.as_tensor(np.append(episode.action, 0))[None]
        nothing = torch.zeros(1, steps + 1)
        first = torch.arange(steps + 1)[None] == 0
        end = (torch.arange(steps + 1) == steps)[None] & episode.terminated
        reward = torch.as_tensor(np.insert(episode.reward, 0, 0))[None]
        output = agent.model(Sequences(obs, action, reward, first, end, nothing.bool()))
    prior = sum(value for name, value in output.losses.items() if name.startswith("prior/"))
    assert whole.surprise.mean() == pytest.approx(float(prior), rel=1e-4)
    assert whole.reward == pytest.approx(agent.model.reward(output.h[0, :-1]).detach().numpy(), abs=1e-5)
    own = real_trajectory(agent.model, output, Sequences(obs, action, reward, first, end, nothing.bool()), nothing, discovery=0.5)
    value = agent.hierarchy.value(own.z[0], own.h[0]).detach().numpy()
    assert whole.value == pytest.approx(value[:-1], rel=1e-4) and abs(value[-1]) > 1e-2
    assert whole.returns == pytest.approx(discounted(episode.reward, 0.0 if ends else value[-1], 0.9), rel=1e-4)
    paid = foresee(agent, episode, 0.9, discovery=0.5)
    assert paid.paid == pytest.approx(own.reward[0].numpy(), abs=1e-5) and (whole.paid == episode.reward).all()
    assert paid.returns[0] >= whole.returns[0] and (paid.paid > episode.reward).any() == bool(agent.model.maps.names)
    monkeypatch.setattr("agent.foresight.PIECE", 3)  # window and layers are few: pieces need only some steps before them
    pieces = foresee(agent, episode, 0.9, discovery=0.5)
    for name in (field.name for field in fields(Foresight)):
        assert getattr(pieces, name) == pytest.approx(getattr(paid, name), rel=1e-4, abs=1e-4), name


def test_the_critic_is_compared_with_the_rewards_that_it_is_taught():
    """Imagined rewards hold the disagreement of the ensemble `hierarchy.explore` times, and so do those beside the values."""
    config = tiny_config(CARTPOLE)
    config = replace(config, model=replace(config.model, ensemble=3), hierarchy=replace(config.hierarchy, explore=2.0))
    agent = agent_of(config)
    assert agent.model.ensemble is not None
    agent.model.ensemble.scale.fill_(1.0)
    episode = episode_of(agent, config)
    found = foresee(agent, episode, 0.9)
    obs = agent.model.tokenize({key: value[None] for key, value in episode.obs.items()})
    first = torch.arange(len(episode) + 1)[None] == 0
    _, h, _ = agent.model.prefill(obs, torch.as_tensor(np.append(episode.action, 0))[None], first)
    extra = 2.0 * agent.model.disagreement(h[0, :-1]).detach().numpy()
    assert found.paid - episode.reward == pytest.approx(extra, rel=1e-3) and (extra > 1e-4).all()
    nothing = torch.zeros(1, len(episode) + 1)
    action, reward = torch.as_tensor(np.append(episode.action, 0))[None], torch.as_tensor(np.insert(episode.reward, 0, 0))[None]
    batch = Sequences(obs, action, reward, first, nothing.bool(), nothing.bool())
    with torch.no_grad():
        output = agent.model(batch)
    agent.model.ensemble.scale.fill_(1.0)  # which the pass has moved
    taught = real_trajectory(agent.model, output, batch, nothing, explore=agent.hierarchy.explores)
    assert found.paid == pytest.approx(taught.reward[0].numpy(), rel=1e-3), "real ones, too"
    manager = replace(config.hierarchy, name="director", horizon=4, period=2)
    agent.hierarchy = make_hierarchy(manager, agent.model.latents, agent.model.view_width, agent.model.spec.action)
    assert (foresee(agent, episode, 0.9).paid == episode.reward).all(), "a manager has a critic of its own for it"


def test_an_evaluation_compares_so_many_steps_of_every_task_and_disturbs_no_random_number(tmp_path: Path):
    config = tiny_config(DOORKEY)
    config.eval.calibration = 31
    trainer = Trainer(config, tmp_path)
    play(trainer, 40)
    before = torch.get_rng_state()
    found = calibration_summary(foresee_tasks(trainer.agent, config))
    assert torch.equal(torch.get_rng_state(), before)
    assert found.keys() == {"reward", "cont", "value"}
    assert all(sum(figures["count"]) == 2 * 16 and figures["error"] >= 0 for figures in found.values())
    config.eval.calibration = 0
    assert calibration_summary(foresee_tasks(trainer.agent, config)) == {}


def test_ends_are_observed_where_episodes_terminated_and_nowhere_else(tmp_path: Path):
    config = tiny_config(CARTPOLE)
    trainer = Trainer(config, tmp_path)
    trainer.collector.start()
    tasks = make_task_space(config.env)
    episode = play_episode(trainer.agent, config.env, tasks, tasks.hardest.id, "test", 1, 0.9)
    found = calibrate([episode], [foresee(trainer.agent, episode, 0.9)])["cont"]
    assert episode.terminated and found["predicted"] == [pytest.approx(0.5)]  # nothing has been learned
    assert found["observed"] == [pytest.approx((len(episode) - 1) / len(episode))]
