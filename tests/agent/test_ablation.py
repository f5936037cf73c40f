"""Shuffled modalities: what an agent is shown in place of its own mission."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agent.ablation import Shuffle, check_shuffle
from agent.evaluation import evaluate
from agent.results import evaluation_summary
from agent.trainer import Trainer
from envs import make_task_space
from envs.errors import UserError
from envs.spaces.specs import ActionSpec, EnvSpec, ModalitySpec
from tests.agent.tiny import tiny_config

MISSIONS = np.array([[1], [2], [3], [1]])
EVERY = np.ones(4, bool)
GOTO = dict(id="BabyAI-GoToLocalS5N2-v0", kwargs={"max_steps": 6})


def test_every_environment_is_shown_a_mission_that_is_not_its_own_until_its_episode_ends():
    shuffle = Shuffle(["mission"], 4, np.random.default_rng(0))
    obs = {"mission": MISSIONS, "view": np.arange(4)}
    shuffle.begin(obs, EVERY)
    shown = shuffle(obs)
    assert (shown["mission"] != MISSIONS).all() and set(shown["mission"].ravel()) <= {1, 2, 3}
    assert shown["view"] is obs["view"] and obs["mission"] is MISSIONS, "nothing else changes, nor what was handed in"
    assert np.array_equal(shuffle(obs)["mission"], shown["mission"])

    later = {"mission": np.array([[1], [9], [3], [1]]), "view": np.arange(4)}
    shuffle.begin(later, np.array([False, True, False, False]))
    again = shuffle(later)["mission"]
    assert again[1] in (1, 2, 3) and np.array_equal(again[[0, 2, 3]], shown["mission"][[0, 2, 3]])


def test_where_all_missions_are_the_same_that_one_is_shown_and_counted():
    shuffle = Shuffle(["mission"], 3, np.random.default_rng(0))
    obs = {"mission": np.full((3, 1), 7)}
    shuffle.begin(obs, np.ones(3, bool))
    assert shuffle(obs)["mission"].ravel().tolist() == [7, 7, 7] and shuffle.unchanged == 3


def test_one_environment_is_shown_the_missions_of_its_own_earlier_episodes():
    shuffle = Shuffle(["mission"], 1, np.random.default_rng(0))
    shown = []
    for mission in (1, 2, 1):
        obs = {"mission": np.full((1, 1), mission)}
        shuffle.begin(obs, np.ones(1, bool))
        shown.append(int(shuffle(obs)["mission"].item()))
    assert shown == [1, 1, 2] and shuffle.unchanged == 1


def test_without_keys_nothing_is_shuffled():
    shuffle = Shuffle([], 4, np.random.default_rng(0))
    obs = {"mission": MISSIONS}
    shuffle.begin(obs, EVERY)
    assert shuffle(obs) == obs


def test_a_key_that_is_not_observed_is_refused_by_name():
    spec = EnvSpec((ModalitySpec("image", "grid", (7, 7, 3), "uint8"),), ActionSpec("discrete", 7))
    check_shuffle(["image"], spec)
    with pytest.raises(UserError, match=r"eval\.shuffle names mission, which is not observed; observed are: image"):
        check_shuffle(["mission"], spec)


def test_an_evaluation_with_missions_of_others_is_reported_beside_the_right_one(tmp_path: Path):
    config = tiny_config(GOTO)
    config.eval.shuffle = ["mission"]
    trainer = Trainer(config, tmp_path)
    row = evaluation_summary(trainer.agent, config)["BabyAI-GoToLocalS5N2-v0"]
    assert row["shuffled"]["modalities"] == ["mission"] and set(row["shuffled"]) >= {"success", "return", "length"}
    with pytest.raises(UserError, match=r"eval\.shuffle names words"):
        evaluate(trainer.agent, config.env, make_task_space(config.env), 2, shuffle=["words"])
    trainer.envs.close()
