"""A run that was stopped and resumed is the run that never stopped."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agent.checkpoint import CheckpointStore, load_weights
from agent.checkpointing import restore, save
from agent.config import RunConfig
from agent.trainer import Trainer
from envs.config import EnvConfig
from envs.errors import UserError
from tests.agent.streams_data import assert_same
from tests.agent.tiny import CARTPOLE, DOORKEY, LINE, play, same_tensors, tiny_config

PIXELS = DOORKEY | {"wrappers": [{"name": "minigrid.wrappers:RGBImgPartialObsWrapper", "kwargs": {"tile_size": 8}}]}
PENDULUM = dict(id="Pendulum-v1", success="return>=-250", holdout=False)  # actions are numbers


def checkpoint(trainer: Trainer) -> Path:
    return save(trainer, CheckpointStore(trainer.folder / "checkpoints"))


def stop_and_resume(config: RunConfig, folder: Path, at: int, then: RunConfig | None = None) -> Trainer:
    """A new trainer that takes up where one stopped after `at` env steps."""
    stopped = Trainer(config, folder)
    play(stopped, at)
    path = checkpoint(stopped)
    stopped.envs.close()
    torch.manual_seed(12345)  # another process would not have this one's random state
    resumed = Trainer(then or config, folder)
    restore(resumed, path)
    return resumed


def without_seconds(data: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in data.items() if name != "seconds_to_threshold"}


def everything(trainer: Trainer) -> dict[str, Any]:
    """All that a run consists of, wall-clock times apart."""
    tracker = json.loads(json.dumps(trainer.tracker.state_dict()), object_hook=without_seconds)
    collector = trainer.collector
    return {
        "model": trainer.engine.weights(),
        "hierarchy": trainer.agent.hierarchy.state_dict(),
        "model_optimizer": trainer.engine.optimizer_state(),
        "policy_optimizer": trainer.learner.optimizer.state_dict(),
        "counters": [trainer.env_steps, trainer.learner.updates, trainer.owed, trainer.replay.steps, trainer.replay.episodes],
        "tracker": tracker,
        "curriculum": trainer.curriculum.state_dict(),
        "playing": [(task.id, task.seed) for task in collector.playing],
        "episodes": [collector.first.tolist(), collector.score.tolist(), collector.length.tolist()],
        "layouts": [trainer.envs.layout(i) for i in range(trainer.envs.num_envs)],
        "acting": [collector.state.cache.keys, collector.state.cache.values, collector.state.cache.position, collector.state.h],
        "random": [trainer.task_rng.bit_generator.state, trainer.replay_rng.bit_generator.state, torch.get_rng_state()],
    }


def assert_same_run(left: Trainer, right: Trainer) -> None:
    ours, theirs = everything(left), everything(right)
    for name, value in ours.items():
        assert same_tensors(value, theirs[name]), name
    assert len(left.replay) == len(right.replay)
    for mine, other in zip(left.replay.open_episodes(), right.replay.open_episodes(), strict=True):
        assert_same(mine, other)
    # Everything in memory, found under the same draws.
    batches = [t.replay.sample(64, 8, np.random.default_rng(0), t.mix) for t in (left, right)]
    assert_same(batches[0], batches[1])


@pytest.mark.parametrize("env", [DOORKEY, PIXELS, CARTPOLE, PENDULUM], ids=["doorkey", "pixels", "cartpole", "pendulum"])
@pytest.mark.parametrize("at", [20, 56], ids=["before learning", "while learning"])
def test_a_resumed_run_equals_the_one_that_never_stopped_bit_for_bit(tmp_path: Path, env: dict[str, Any], at: int):
    config = tiny_config(env)
    straight = Trainer(config, tmp_path / "straight")
    play(straight, at)
    torch_state = torch.get_rng_state()
    resumed = stop_and_resume(config, tmp_path / "resumed", at)
    under_way = [len(episode) for episode in resumed.replay.open_episodes()]
    assert len(under_way) == 4 and max(under_way) > 0, "episodes are under way, so this has something to prove"
    assert torch.equal(torch.get_rng_state(), torch_state)
    losses = play(resumed, 112)
    final = torch.get_rng_state()

    torch.set_rng_state(torch_state)  # both runs draw from the one generator that this process has
    assert losses == play(straight, 112) and len(losses) >= 7
    assert torch.equal(torch.get_rng_state(), final)
    assert_same_run(straight, resumed)


def test_a_run_may_be_stopped_again_and_again(tmp_path: Path):
    config = tiny_config(DOORKEY)
    straight = Trainer(config, tmp_path / "straight")
    play(straight, 100)
    torch_state = torch.get_rng_state()
    trainer = stop_and_resume(config, tmp_path / "resumed", 36)
    for at in (40, 72, 100):
        play(trainer, at)
        path = checkpoint(trainer)
        trainer = Trainer(config, tmp_path / "resumed")
        restore(trainer, path)
    assert torch.equal(torch.get_rng_state(), torch_state)
    play(trainer, 120)
    torch.set_rng_state(torch_state)
    play(straight, 120)
    assert_same_run(straight, trainer)


def test_saving_draws_no_random_number_and_changes_nothing(tmp_path: Path):
    trainer = Trainer(tiny_config(DOORKEY), tmp_path)
    play(trainer, 60)
    before = everything(trainer)
    before["model"] = {name: value.clone() for name, value in before["model"].items()}
    checkpoint(trainer)
    assert same_tensors(everything(trainer), before)


def test_what_was_played_after_the_checkpoint_is_put_aside_and_played_again(tmp_path: Path):
    config = tiny_config(LINE)
    trainer = Trainer(config, tmp_path)
    play(trainer, 40)
    path = checkpoint(trainer)
    known = trainer.writer.names.copy()
    play(trainer, 80)  # more shards, then the process dies
    later = [name for name in trainer.writer.names if name not in known]
    assert known and later

    resumed = Trainer(config, tmp_path)
    restore(resumed, path)
    assert resumed.writer.names == known and resumed.env_steps == 40
    assert sorted(p.name for p in (tmp_path / "replay").iterdir()) == sorted([*known, *(f"{name}.orphan" for name in later)])


def test_the_log_says_which_episodes_start_anew_because_their_environment_is_not_deterministic(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    config = tiny_config({"id": "tests.agent.tiny:Drift-v0", "holdout": False})
    with caplog.at_level(logging.WARNING):
        resumed = stop_and_resume(config, tmp_path, 36)  # nine steps each: an episode of six, and three of the next
    notes = [record.message for record in caplog.records if "starts anew" in record.message]
    assert notes == [f"environment {i} did not come out the same when replayed: its episode starts anew" for i in range(4)]
    assert resumed.env_steps == 36 and resumed.replay.steps == 36
    assert resumed.collector.first.all() and not resumed.collector.length.any()
    assert [len(episode) for episode in resumed.replay.open_episodes()] == [0, 0, 0, 0]
    play(resumed, 60)
    assert resumed.replay.episodes == 8


def test_a_deterministic_environment_starts_no_episode_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        stop_and_resume(tiny_config(DOORKEY), tmp_path, 36)
    assert "anew" not in caplog.text


def test_another_number_of_environments_takes_up_replay_and_weights_but_no_episode(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    config = tiny_config(DOORKEY)
    with caplog.at_level(logging.INFO):
        resumed = stop_and_resume(config, tmp_path, 96, replace(config, env=replace(config.env, num_envs=2)))
    assert "env.num_envs changed" in caplog.text
    assert resumed.replay.episodes == 4 and resumed.env_steps == 96 and len(resumed.replay.open_episodes()) == 2
    assert play(resumed, 120)


def test_a_run_that_remembers_no_whole_sequence_waits_for_one_and_still_owes_its_updates(tmp_path: Path):
    config = tiny_config(DOORKEY, train=dict(random_steps=64))
    resumed = stop_and_resume(config, tmp_path, 64, replace(config, env=replace(config.env, num_envs=2)))
    before = resumed.learner.updates
    resumed.owed = 3.0
    assert resumed.replay.longest < config.train.length, "no episode has ended before"
    resumed.learn()
    assert resumed.learner.updates == before and resumed.owed == 3
    assert len(play(resumed, 64 + 2 * config.train.length)) >= 3 and resumed.owed < 1


def test_a_learning_rate_given_when_resuming_counts(tmp_path: Path):
    config = tiny_config(LINE)
    critic = replace(config.hierarchy.actor_critic, lr=2e-5)
    slower = replace(config, model=replace(config.model, lr=1e-5), hierarchy=replace(config.hierarchy, actor_critic=critic))
    resumed = stop_and_resume(config, tmp_path, 48, slower)
    assert resumed.engine.optimizer_state()["param_groups"][0]["lr"] == 1e-5
    assert resumed.learner.optimizer.param_groups[0]["lr"] == 2e-5
    moments = resumed.learner.optimizer.state_dict()["state"][0]
    assert moments["step"] > 0 and moments["exp_avg"].abs().sum() > 0, "its moments stay"


def test_a_checkpoint_from_before_words_were_saved_is_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def older(path: Path) -> dict[str, torch.Tensor]:
        return {name: value for name, value in load_weights(path).items() if not name.endswith(".spelling")}

    monkeypatch.setattr("agent.checkpointing.load_weights", older)
    resumed = stop_and_resume(tiny_config(DOORKEY), tmp_path, 16)
    name = "modalities.on_mission.spelling"
    assert not resumed.engine.weights()[name].any()
    play(resumed, 48)
    assert resumed.engine.weights()[name].any(), "and are saved from then on"


def test_a_checkpoint_from_when_goals_were_trusted_is_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    trust = {"hierarchy.trust.sums": torch.zeros(2), "hierarchy.trust.seen": torch.zeros(2)}
    monkeypatch.setattr("agent.checkpointing.load_weights", lambda path: load_weights(path) | trust)
    play(stop_and_resume(tiny_config(LINE), tmp_path, 16), 48)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda config: replace(config, model=replace(config.model, width=64)), "is of another model: model weight"),
        (
            lambda config: replace(
                config, hierarchy=replace(config.hierarchy, actor_critic=replace(config.hierarchy.actor_critic, hidden=8))
            ),
            "is of another model: hierarchy weight",
        ),
        (lambda config: replace(config, env=replace(config.env, tasks=["DoorKey-5x5"])), "on the tasks DoorKey-5x5, DoorKey-6x6"),
        (lambda config: replace(config, env=EnvConfig(id="CartPole-v1", num_envs=4)), "for other observations or actions"),
    ],
    ids=["width", "actor", "tasks", "environment"],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path, change: Any, sentence: str):
    config = tiny_config(DOORKEY)
    trainer = Trainer(config, tmp_path / "run")
    play(trainer, 16)
    path = checkpoint(trainer)
    with pytest.raises(UserError, match=sentence):
        restore(Trainer(change(config), tmp_path / "other"), path)


def test_a_truncated_shard_is_refused_before_anything_on_disk_changes(tmp_path: Path):
    config = tiny_config(LINE)
    trainer = Trainer(config, tmp_path)
    play(trainer, 48)
    path = checkpoint(trainer)
    play(trainer, 96)  # shards that would be put aside
    shard = tmp_path / "replay" / trainer.writer.names[0]
    shard.write_bytes(shard.read_bytes()[:-200])
    before = {p.name: p.read_bytes() for p in (tmp_path / "replay").iterdir()}
    with pytest.raises(UserError, match=rf"Replay shard .*{shard.name} cannot be used"):
        restore(Trainer(config, tmp_path), path)
    assert {p.name: p.read_bytes() for p in (tmp_path / "replay").iterdir()} == before


def test_weights_that_are_not_finite_are_never_saved_over_good_ones(tmp_path: Path):
    trainer = Trainer(tiny_config(LINE), tmp_path)
    play(trainer, 48)
    good = checkpoint(trainer)
    play(trainer, 52)
    with torch.no_grad():
        next(trainer.agent.hierarchy.parameters())[0] = float("nan")
    with pytest.raises(UserError, match=r"the weight hierarchy\.\S+ is not finite at 52 env steps.*resume="):
        checkpoint(trainer)
    assert CheckpointStore(tmp_path / "checkpoints").latest() == good


def test_a_copied_run_folder_resumes_like_the_original(tmp_path: Path):
    config = tiny_config(LINE)
    trainer = Trainer(config, tmp_path / "run")
    play(trainer, 40)
    path = checkpoint(trainer)
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    resumed = Trainer(config, tmp_path / "copy")
    restore(resumed, tmp_path / "copy" / path.relative_to(tmp_path / "run"))
    assert_same_run(trainer, resumed)
