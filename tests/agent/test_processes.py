"""A run in two processes: its parts stay in step, and what two saved, two or one resume."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agent.agent import Agent
from agent.checkpoint import CheckpointStore, load_meta, load_training, resolve
from agent.checkpointing import restore, save
from agent.processes import Processes, tokenize_together
from agent.shards import ShardReader
from agent.shared_curriculum import mean_signals
from agent.trainer import Trainer
from envs.errors import UserError
from envs.spaces.specs import EnvSpec
from tests.agent.processes_run import EVERY, FEW, SAVED, UPDATES, config_of
from tests.agent.tiny import play, same_tensors
from world_model.config import ShardingConfig

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 900  # seconds: it takes twenty of its own, but may have to share the machine


def alone() -> Any:
    """The same run in one process."""
    return replace(config_of(3), sharding=ShardingConfig())


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """The folder of the runs of `tests.agent.processes_run`, and what each of two processes found."""
    folder = tmp_path_factory.mktemp("processes")
    one = Trainer(alone(), folder / "one")
    play(one, SAVED)
    save(one, CheckpointStore(folder / "one" / "checkpoints"))
    one.envs.close()
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    command = [*launcher, "-m", "tests.agent.processes_run", str(folder)]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=LIMIT
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder, [torch.load(folder / f"rank_{rank}.pt", weights_only=True) for rank in (0, 1)]


def test_world_model_tables_and_policy_are_the_same_in_both_while_each_plays_its_own_episodes(found: Any):
    first, second = found[1]
    for when in ("saved", "straight", "of_one"):
        left, right = (one[when] if when == "saved" else one[when]["state"] for one in (first, second))
        assert same_tensors(left, right), when
    assert first["saved"]["steps"] == [SAVED, 2 + (SAVED - 64) // EVERY + 1], "the steps of both count"
    seeds = [seed for one in (first, second) for _, seed in one["tasks"]]
    assert len(set(seeds)) == 8, "rank 0 decides all tasks, each with a seed of its own"
    assert not torch.equal(first["obs"]["image"], second["obs"]["image"])
    assert [u["model/total"] for u in first["straight"]["updates"]] != [u["model/total"] for u in second["straight"]["updates"]]


def test_saved_and_resumed_in_two_processes_is_the_run_that_never_stopped(found: Any):
    for one in found[1]:
        straight, resumed = one["straight"], one["resumed"]
        assert len(straight["updates"]) == UPDATES
        assert resumed["updates"] == straight["updates"], "losses and all else that is logged, to the last bit"
        assert resumed["tasks"] == straight["tasks"]
        assert same_tensors(resumed["state"], straight["state"])


def test_another_stage_goes_on_with_the_losses_of_the_one_that_saved(found: Any):
    for one in found[1]:
        for there, here in zip(one["other_stage"]["updates"], one["straight"]["updates"][:FEW], strict=True):
            assert there["model/total"] == pytest.approx(here["model/total"], rel=1e-5)  # sums in another order


def test_two_that_share_the_decoder_go_on_with_the_losses_of_two_that_do_not_and_resume_to_the_last_bit(found: Any):
    first, second = found[1]
    before = [one["straight"]["updates"][0]["model/total"] for one in (first, second)]
    for one in (first, second):
        assert one["first_shared"]["updates"][0]["model/total"] == pytest.approx(sum(before) / 2, rel=1e-5), "of both batches"
        assert one["shared_resumed"]["updates"] == one["shared"]["updates"]
        assert one["shared_resumed"]["tasks"] == one["shared"]["tasks"]
    assert same_tensors(first["shared"]["state"], second["shared"]["state"])
    assert same_tensors(first["shared_resumed"]["state"], first["shared"]["state"])


def test_two_processes_deal_out_the_episodes_of_one(found: Any):
    folder, ranks = found
    saved = load_training(folder / "one" / "checkpoints" / f"step_{SAVED:09d}")
    assert sum(one["dealt"][1] for one in ranks) == saved.state["episodes"]
    reader = ShardReader(folder / "one" / "replay", EnvSpec.from_dict(load_meta(resolve(folder / "one"))["spec"]))
    newest = max(episode.end_step for episode in reader.episodes(saved.state["shards"]))
    assert newest > SAVED // 2 and all(one["dealt"][2] >= newest for one in ranks), "what is played now ends after what is stored"
    assert sum(one["dealt_again"] for one in ranks) == sum(one["stored"] for one in ranks), "and all again at the next resume"


def test_one_process_loads_what_two_saved_to_go_on_with_it_or_to_act(found: Any, caplog: pytest.LogCaptureFixture):
    folder, (first, _) = found
    path = resolve(folder / "run")
    caplog.set_level("INFO")
    trainer = Trainer(alone(), folder / "run")
    restore(trainer, path)
    assert "the checkpoint is of 2 processes, this run has 1" in caplog.text
    assert same_tensors(dict(trainer.engine.weights()), first["saved"]["model"])
    assert trainer.env_steps == SAVED and trainer.left_shards.keys() == {"rank_1"}
    play(trainer, SAVED + EVERY)
    path_of_one = save(trainer, CheckpointStore(folder / "run" / "checkpoints"))
    trainer.envs.close()
    again = Trainer(alone(), folder / "run")
    restore(again, path_of_one)
    assert again.replay.episodes == trainer.replay.episodes and again.left_shards == trainer.left_shards, "none is forgotten"
    assert load_training(path_of_one).state["known_shards"].keys() == {".", "rank_1"}
    again.envs.close()
    assert same_tensors(dict(Agent.load(path, "cpu").model.state_dict()), first["saved"]["model"]), "weights for one process"
    assert not (load_meta(path)["score"] or 0.0)


def test_a_process_alone_waits_for_nobody():
    one = Processes()
    obs = {"x": np.arange(3)}
    assert one.leads and one.gather({"a": 1}) == [{"a": 1}] and one.broadcast([1]) == [1] and one.any(True) and not one.any(False)
    assert one.mean({"loss": 2.0}) == {"loss": 2.0} and one.concatenate(obs).keys() == obs.keys()
    assert callable(tokenize_together)


def test_signals_of_several_processes_are_averaged_over_those_that_know_them():
    given = [{"5x5": {"loss": 1.0}}, {"5x5": {"loss": 3.0, "reach": 0.5}, "6x6": {"loss": 4.0}}]
    assert mean_signals(given) == {"5x5": {"loss": 2.0, "reach": 0.5}, "6x6": {"loss": 4.0}}


def test_a_batch_that_cannot_be_shared_out_and_too_few_random_steps_are_refused(tmp_path: Path):
    three = Processes.__new__(Processes)
    three.rank, three.size = 0, 3
    with pytest.raises(UserError, match=r"train\.batch=4 is shared out over 3 processes: give a multiple of 3"):
        Trainer(replace(alone(), train=replace(alone().train, random_steps=84)), tmp_path, three)
    with pytest.raises(UserError, match=r"environments in each of 3 processes: give 84 or more"):
        Trainer(alone(), tmp_path, three)
