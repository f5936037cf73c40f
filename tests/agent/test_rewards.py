"""What the agent learns from, worked by hand; returns, success and evaluation stay unshaped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agent.checkpoint import CheckpointStore
from agent.checkpointing import restore, save
from agent.evaluation import evaluate
from agent.rewards import LearnedReward
from agent.trainer import Trainer
from envs import EnvConfig, StepResult, make_envs, make_task_space
from envs.errors import UserError
from envs.tasks import Outcome
from tests.agent.test_collector import WAGE, Stage
from tests.agent.tiny import LINE, play, tiny_config

TASK = {"kind": "environment"}
STEPS = {"kind": "observation", "key": "observation", "index": 1}  # Wage shows the steps taken
NEW = {"kind": "count", "key": "observation"}


def learned(num_envs: int = 1, **keys: Any) -> LearnedReward:
    config = EnvConfig(id="tests.envs.odd:Line-v0", kwargs={"size": 2}, holdout=False, **keys)
    return LearnedReward(config, make_envs(config, make_task_space(config), num_envs, gamma=0.9))


def result(reward: list[float], terms: Any = None, obs: Any = ((0.0, 0.0),)) -> StepResult:
    no = np.zeros(len(reward), bool)
    values = None if terms is None else np.asarray(terms, np.float32)
    return StepResult({"observation": np.asarray(obs, np.float32)}, np.array(reward, np.float32), no, no, [{}], values)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, [-30, 0, 0.5]),
        ({"reward": "sign"}, [-1, 0, 1]),
        ({"reward_scale": 0.1}, [-3, 0, 0.05]),
        ({"reward_clip": 1.0}, [-1, 0, 0.5]),
        ({"reward_scale": 0.1, "reward_clip": 2.0}, [-2, 0, 0.05]),
        ({"reward": "sign", "reward_scale": 5.0, "reward_clip": 4.0}, [-4, 0, 4]),
    ],
)
def test_sign_scale_and_clip_apply_in_this_order(keys: dict[str, Any], expected: list[float]):
    assert learned(3, **keys)(result([-30.0, 0.0, 0.5])).tolist() == pytest.approx(expected)


def test_they_leave_the_other_terms_alone():
    rewards = {"a": {**STEPS, "weight": 2.0}, "task": {"kind": "environment", "weight": 3.0}}
    sized = learned(rewards=rewards, reward="sign", reward_scale=0.5)
    assert sized(result([7.0], [[10.0, 7.0]])).tolist() == [2.0 * 10 + 3.0 * 0.5]


def test_without_a_term_for_it_the_environments_reward_is_not_learned_from():
    assert learned(rewards={"a": STEPS})(result([7.0], [[10.0]])).tolist() == [10.0]


def test_a_bonus_falls_with_the_square_root_of_visits_of_all_environments():
    bonus = learned(2, rewards={"new": {**NEW, "weight": 4.0}})
    here, there = [1.0, 1.0], [2.0, 2.0]
    assert bonus(result([0, 0], [[0], [0]], [here, here])).tolist() == pytest.approx([4, 4 / np.sqrt(2)])
    assert bonus(result([0, 0], [[0], [0]], [there, here])).tolist() == pytest.approx([4, 4 / np.sqrt(3)])


def test_a_step_that_never_was_counts_no_visit():
    bonus = learned(rewards={"new": NEW})
    here = [[1.0, 1.0]]
    assert bonus(result([0], [[0]], here)).tolist() == [1]
    assert bonus(result([0], [[0]], here)._replace(dropped=np.array([True]))).tolist() == [0]
    assert bonus(result([0], [[0]], here)).tolist() == pytest.approx([2**-0.5])


def test_sums_of_other_terms_are_not_taken_up():
    one, other, same = (learned(rewards={name: STEPS}) for name in ("a", "b", "a"))
    one(result([0.0], [[3.0]]))
    for taken in (other, same):
        taken.load_state_dict(one.state_dict())
        taken.finish(np.array([True]))
    assert (other.pop(), same.pop()) == ({"reward/b": 0.0}, {"reward/a": 3.0})


def test_numbers_that_round_down_to_the_same_count_as_the_same():
    bonus = learned(2, rewards={"new": {**NEW, "resolution": 0.5}})
    assert bonus(result([0, 0], [[0], [0]], [[0.6, 1.0], [0.9, 1.4]])).tolist() == pytest.approx([1, 1 / np.sqrt(2)])
    assert bonus(result([0, 0], [[0], [0]], [[0.4, 1.0], [0.6, 1.6]])).tolist() == [1, 1]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"reward": "log"}, r"env\.reward=log is unknown; choose one of raw, sign"),
        ({"reward_scale": 0.0}, r"env\.reward_scale=0\.0 has to be"),
        ({"reward_scale": float("inf")}, r"env\.reward_scale=inf"),
        ({"reward_clip": -1.0}, r"env\.reward_clip=-1\.0 has to be above 0"),
        ({"rewards": {"new": {"kind": "count", "key": "image"}}}, r"env\.rewards\.new counts `image`.*observed are: observation"),
    ],
)
def test_settings_that_make_no_sense_are_refused(keys: dict[str, Any], words: str):
    with pytest.raises(UserError, match=words):
        learned(**keys)


def test_the_replay_holds_the_weighted_sum_while_score_and_success_are_the_environments():
    rewards = {"task": TASK, "steps": {**STEPS, "weight": -0.5}}
    stage = Stage.begun(env=WAGE | {"rewards": rewards}, num_envs=1, script=lambda env, step: (1, 0, 1)[step], reward="sign")
    assert stage.play(3) == [Outcome("Wage-v0", 8.0, True, 3, 3)]
    assert stage.episodes[0].reward.tolist() == [1 - 0.5, -1 - 1.0, 1 - 1.5]
    assert stage.reward.pop() == {"reward/task": 1.0, "reward/steps": -3.0}, "what each added up to in the episode"
    assert stage.reward.pop() == {}, "until another ends"


REWARDS = {
    "task": TASK,
    "near": {"kind": "potential", "observation": "observation", "index": 0, "weight": 0.3},
    "new": {**NEW, "weight": 0.1},
    "steps": {"kind": "info", "key": "steps", "change": True, "default": 0, "weight": 0.01},
}


def test_a_resumed_run_with_terms_equals_the_one_that_never_stopped(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    config = tiny_config(LINE | {"rewards": REWARDS})
    straight = Trainer(config, tmp_path / "straight")
    play(straight, 44)
    path = save(straight, CheckpointStore(tmp_path / "checkpoints"))
    torch_state = torch.get_rng_state()
    play(straight, 80)
    torch.set_rng_state(torch_state)

    resumed = Trainer(config, tmp_path / "resumed")
    (tmp_path / "resumed").mkdir(exist_ok=True)
    (tmp_path / "straight" / "replay").rename(tmp_path / "resumed" / "replay")
    restore(resumed, path)
    assert "anew" not in caplog.text
    play(resumed, 80)
    ours, theirs = resumed.reward.state_dict(), straight.reward.state_dict()
    assert torch.equal(ours["sums"], theirs["sums"]) and ours["sums"].abs().sum() > 0
    assert all(torch.equal(ours["counts"]["new"][part], theirs["counts"]["new"][part]) for part in ("names", "visits"))
    for mine, other in zip(resumed.replay.open_episodes(), straight.replay.open_episodes(), strict=True):
        assert np.array_equal(mine.reward, other.reward)


def test_each_term_is_logged_and_evaluation_knows_none(tmp_path: Path):
    config = tiny_config(LINE | {"rewards": REWARDS})
    trainer = Trainer(config, tmp_path)
    play(trainer, 64)
    found = trainer.metrics()
    assert {name for name in found if name.startswith("reward/")} == {f"reward/{name}" for name in REWARDS}
    assert 0 <= found["reward/task"] <= 1 and found["reward/new"] > 0
    for env in (config.env, replace(config.env, rewards={}, reward_scale=3.0, reward_clip=0.1)):
        tasks = make_task_space(env)
        (scores,) = [task.score for task in evaluate(trainer.agent, env, tasks, 4, seed=1).values()]
        assert set(scores) <= {0.0, 1.0}, "the environment's own reward, whatever is learned from"
