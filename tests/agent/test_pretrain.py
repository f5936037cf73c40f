"""`job=pretrain`: a world model learns from stored episodes, and a run starts from it."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from agent import jobs
from agent.agent import Agent
from agent.checkpoint import load_weights, resolve
from agent.config import JobConfig, PretrainConfig, RunConfig
from agent.holdout import Holdout
from agent.metrics_file import read_metrics
from agent.pretrain.data import Split, data_folders
from agent.pretrain.exported import write_exported
from agent.pretrain.pretrainer import Pretrainer
from agent.sequences import Episode
from agent.shards import ShardReader, ShardWriter
from agent.trainer import Trainer
from envs.errors import UserError
from tests.agent.test_dream import agent_of, episode_of
from tests.agent.tiny import CARTPOLE, DOORKEY, QUIET, files, same_tensors, tiny_config

EPISODES = 6


def asking(data: Any, base: RunConfig | None = None, validation: float = 0.2, **pretrain: Any) -> RunConfig:
    settings = {"updates": 8, "log_every": 4, "checkpoint_every": 4} | pretrain
    config = replace(base or tiny_config(DOORKEY), job=JobConfig("pretrain"), pretrain=PretrainConfig(data=data, **settings))
    return replace(config, train=replace(config.train, validation=validation))


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of six episodes of random play in DoorKey, 20 steps each, in the replay's format."""
    folder = tmp_path_factory.mktemp("stored")
    agent = agent_of()
    writer = ShardWriter(folder, agent.model.spec, 4)
    for seed in range(EPISODES):
        writer.add(episode_of(agent, seed=seed))
    writer.flush()
    return folder


@pytest.fixture(scope="module")
def finished(stored: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "pretraining"
    config = asking(str(stored))
    jobs.run_job(replace(config, logger=replace(QUIET, report=True)), folder)
    return folder


def test_it_leaves_a_run_folder_with_curves_of_training_and_held_out_episodes(finished: Path):
    assert {path.name for path in finished.iterdir()} == {
        "config.yaml", "metrics.jsonl", "summary.json", "checkpoints", "report.html",
    }  # fmt: skip
    rows = read_metrics(finished)
    assert [(row["env_steps"], row["updates"]) for row in rows] == [(4, 4), (8, 8)], "steps are updates here"
    assert all(
        {"model/total", "model/prior/image", "validation/total", "validation/reward", "time/model"} <= set(r) for r in rows
    )
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["updates"] == 8 and summary["tasks"] == {}
    assert summary["data"]["episodes"] == EPISODES and summary["data"]["steps"] == 20 * EPISODES
    assert 1 <= summary["data"]["held_out"] < EPISODES
    assert summary["objective"] == -summary["validation"]["validation/total"] == -rows[-1]["validation/total"]
    assert yaml.safe_load((finished / "config.yaml").read_text())["job"]["name"] == "pretrain"
    page = (finished / "report.html").read_text()
    assert "World model: training against held-out" in page and "over updates" in page
    assert "env steps/s" not in page and "No episode was finished" not in page


def test_a_few_episodes_are_learned_by_heart(stored: Path, tmp_path: Path):
    config = asking(str(stored), updates=80, validation=0.0)
    job = Pretrainer(replace(config, model=replace(config.model, lr=3e-3)), tmp_path)
    losses = [float(job.learner.update(batch, job.timer, policy=False)["model/total"]) for batch in batches(job, 80)]
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:5])


def test_sequences_come_with_what_was_before_them(stored: Path, tmp_path: Path):
    job = Pretrainer(asking(str(stored)), tmp_path)
    (batch,) = batches(job, 1)
    assert batch.before is not None and batch.before.reward.shape == (4, job.config.train.burn_in + 1)


def batches(job: Pretrainer, number: int):
    for _ in range(number):
        yield job.data.training.sample(4, 8, job.rng, job.mix)


def test_a_run_starts_from_its_world_model_symbol_tables_included_but_once(finished: Path, tmp_path: Path):
    config = tiny_config(DOORKEY, train={"pretrained": str(finished), "env_steps": 32})
    weights = {name[6:]: value for name, value in load_weights(resolve(finished)).items() if name.startswith("model.")}
    assert int(weights[next(name for name in weights if name.endswith("table.count"))]) > 1

    started: dict[str, torch.Tensor] = {}
    run = Trainer.run

    def look(self: Trainer, *given: Any) -> None:
        started.update({name: value.clone() for name, value in self.engine.weights().items()})
        run(self, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "run", look)
        jobs.run_job(config, tmp_path / "run")
    assert same_tensors(started, weights)
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["train"]["pretrained"] == str(finished)
    learned = load_weights(resolve(tmp_path / "run"))
    assert not same_tensors({name[6:]: value for name, value in learned.items() if name.startswith("model.")}, weights)
    jobs.run_job(replace(config, resume=str(tmp_path / "run")), tmp_path / "run")
    assert same_tensors(load_weights(resolve(tmp_path / "run")), learned), "a resumed run keeps what it has learned since"


def test_a_pretraining_starts_from_another_ones_world_model_too(stored: Path, finished: Path, tmp_path: Path):
    config = asking(str(stored))
    job = Pretrainer(replace(config, train=replace(config.train, pretrained=str(finished))), tmp_path)
    weights = {name[6:]: value for name, value in load_weights(resolve(finished)).items() if name.startswith("model.")}
    assert job.updates == 0 and same_tensors(dict(job.engine.weights()), weights), "there is nothing new in the same data"


def test_its_checkpoint_is_an_agents_with_a_policy_that_knows_nothing(finished: Path):
    agent = Agent.load(finished, "cpu")
    assert len(episode_of(agent)) == 20


def test_a_stopped_pretraining_goes_on_as_if_it_had_not_been(
    stored: Path, tmp_path: Path, finished: Path, capsys: pytest.CaptureFixture[str]
):
    config = asking(str(stored))
    update = Pretrainer.validate

    def stop(self: Pretrainer) -> dict[str, float]:
        self.stopping = True
        return update(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pretrainer, "validate", stop)
        jobs.run_job(config, tmp_path)
    assert f"Stopped after 4 updates; go on with: python run.py resume={tmp_path}\n" in capsys.readouterr().out
    jobs.run_job(replace(config, resume=str(tmp_path)), tmp_path)
    assert same_tensors(load_weights(resolve(tmp_path)), load_weights(resolve(finished)))
    keys = ("model/total", "validation/total", "updates")
    assert [[row[key] for key in keys] for row in read_metrics(tmp_path)] == [
        [row[key] for key in keys] for row in read_metrics(finished)
    ]


def test_held_out_episodes_are_the_same_every_time_and_at_least_one():
    one = episode_of(agent_of())
    episodes = [replace(one, seed=seed) for seed in range(200)]
    split = Split(episodes, 0.1, most=10_000)
    trained = [episode.seed for episode in split]
    assert 8 <= len(split.kept) <= 32 and split.count == 200 and split.steps == 200 * 20
    assert sorted(trained + [episode.seed for episode in split.kept]) == list(range(200))
    assert all(Holdout(0.1).takes(episode.task, episode.seed, 0) for episode in split.kept)
    few = [episode for episode in episodes if not Holdout(0.01).takes(episode.task, episode.seed, 0)][:2]
    for number, share, kept in ((2, 0.01, 1), (2, 0.0, 0), (1, 0.01, 0)):
        split = Split(few[:number], share, most=10_000)
        assert len(list(split)) == number - kept and len(split.kept) == kept
    marked = [replace(episode, held_out=True) for episode in episodes]
    split = Split(marked, 0.0, most=3 * (len(one) + 1) + 5)
    assert not list(split) and split.held_out == 200 and split.records == 3 * (len(one) + 1)
    assert [episode.seed for episode in split.kept] == [197, 198, 199], "the newest"


def test_what_a_run_held_out_is_held_out_again_whole_and_in_no_way_of_what_is_learned_from(
    stored: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    spec = agent_of().model.spec
    episodes = [replace(e, held_out=i in (1, 4)) for i, e in enumerate(ShardReader(stored, spec).episodes())]
    assert not any(Holdout(0.01).takes(e.task, e.seed, 0) for e in episodes), "so the marks alone say what is kept"
    writer = ShardWriter(tmp_path / "shards", spec)
    for episode in episodes:
        writer.add(episode)
    writer.flush()
    write_exported(tmp_path / "exported", spec, episodes, {})
    for data in (tmp_path / "shards", tmp_path / "exported"):
        with caplog.at_level(logging.WARNING):
            job = Pretrainer(asking(str(data), validation=0.01), tmp_path / "run")
        assert not caplog.records, "nothing is lost"
        assert job.data.held_out == 2 and job.data.validation is not None
        assert len(job.data.validation) == 2 * 21 and len(job.data.training) == 4 * 21
        assert np.isfinite(job.validate()["validation/total"])


def test_tables_grow_by_what_is_learned_from_alone(stored: Path, tmp_path: Path):
    seen: list[Episode] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pretrainer, "_take_in", lambda self, episode: seen.append(episode))
        job = Pretrainer(asking(str(stored)), tmp_path)
    assert len(seen) == EPISODES - job.data.held_out and job.data.training.episodes == len(seen)


def test_only_the_newest_records_are_learned_from_where_memory_is_small(
    stored: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    config = asking(str(stored), validation=0.0)
    with caplog.at_level(logging.WARNING):
        job = Pretrainer(replace(config, replay=replace(config.replay, capacity=50)), tmp_path)
    assert len(job.data.training) == 50
    assert f"the first {21 * EPISODES - 50} observations of pretrain.data are not learned from" in caplog.text


def test_a_run_folders_replay_is_found(stored: Path, tmp_path: Path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "replay").symlink_to(stored)
    assert Pretrainer(asking([str(run), str(stored)]), tmp_path).data.episodes == 2 * EPISODES


@pytest.mark.parametrize("data", [None, "", [], [3], {"a": 1}])
def test_data_that_name_no_folder_are_refused(data: Any):
    with pytest.raises(UserError, match=r"needs pretrain\.data=FOLDER"):
        data_folders(data)


def test_what_cannot_be_learned_from_is_refused_with_the_way_out_and_leaves_no_trace(
    stored: Path, finished: Path, tmp_path: Path
):
    folder, empty, broken = tmp_path / "run", tmp_path / "empty", tmp_path / "broken"
    empty.mkdir()
    broken.mkdir()
    (broken / "shard_000000.h5").write_bytes(b"no HDF5")
    mixed = ShardWriter(tmp_path / "imagined", agent_of().model.spec, 4, {"run": "first"})
    mixed.add(episode_of(agent_of()))
    mixed.flush()
    here = str(stored)
    refused = {
        r"pretrain\.data=.*/nowhere does not exist": asking(str(tmp_path / "nowhere")),
        r"empty holds no stored episodes": asking(str(empty)),
        r"shard_000000\.h5 cannot be used": asking(str(broken)),
        r"holds imagined episodes .*replay\.synthetic=true": asking(str(tmp_path / "imagined")),
        r"recorded in another environment, where observation": asking(here, tiny_config(CARTPOLE)),
        r"fewer than train\.length=500": asking(here, tiny_config(DOORKEY, train={"length": 500})),
        r"pretrain\.updates=0 is too few": asking(here, updates=0),
        r"train\.validation=1\.5 has to be": asking(here, validation=1.5),
        r"model\.width=32 has to be a multiple": replace(asking(here), model=replace(asking(here).model, heads=3)),
    }
    for reason, config in refused.items():
        with pytest.raises(UserError, match=reason):
            jobs.run_job(config, folder)
        assert files(folder) == {}
    with pytest.raises(UserError, match="holds a run already"):
        jobs.run_job(asking(here), finished)


def test_a_run_refuses_to_start_from_what_does_not_fit(finished: Path, tmp_path: Path):
    door = tiny_config(DOORKEY, train={"pretrained": str(finished)})
    refused = {
        "agent for other observations": tiny_config(CARTPOLE, train={"pretrained": str(finished)}),
        r"of another model: model weight .* use the model= options": replace(door, model=replace(door.model, width=16)),
        r"job=train takes no checkpoint=: give train\.pretrained=": replace(tiny_config(DOORKEY), checkpoint=str(finished)),
        "does not exist": tiny_config(DOORKEY, train={"pretrained": str(tmp_path / "nowhere")}),
    }
    for reason, config in refused.items():
        with pytest.raises(UserError, match=reason):
            jobs.run_job(config, tmp_path / "run")
        assert files(tmp_path / "run") == {}
