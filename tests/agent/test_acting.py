"""Asynchronous acting: the same replay, outcomes and number of updates, from actors that may die."""

from __future__ import annotations

import importlib.util
import logging
import os
import secrets
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from agent.acting.actor import Relay, acting_agent
from agent.acting.cluster import RemoteActor
from agent.acting.collector import AsyncCollector
from agent.acting.messages import Began, Grant, Orders, Played
from agent.acting.weights import SHARED, Layout, SharedWeights, agent_state, check_room
from agent.build import build_agent
from agent.checkpoint import CheckpointStore
from agent.checkpointing import restore, save
from agent.config import ActingConfig, RunConfig
from agent.settings import check_acting
from agent.trainer import Trainer
from envs import make_envs, make_task_space
from envs.errors import UserError
from envs.faults import FaultError
from tests.agent.tiny import DOORKEY, LINE, play, tiny_config
from world_model.config import ShardingConfig

HAS_RAY = importlib.util.find_spec("ray") is not None
needs_ray = pytest.mark.skipif(not HAS_RAY, reason="needs the extra `cluster`")
BACKENDS = ["processes", pytest.param("ray", marks=needs_ray)]
KILLED = {"processes": "exit code -9", "ray": "its worker process has died"}


def async_config(**acting: object) -> RunConfig:
    config = tiny_config(LINE)
    config.acting = ActingConfig("async", **({"ahead": 3, "publish_every": 2} | acting))  # type: ignore[arg-type]
    return config


def actors(trainer: Trainer) -> list[int]:
    assert isinstance(trainer.collector, AsyncCollector)
    return [seat.pid for seat in trainer.collector.seats if seat.pid is not None]


@pytest.fixture(scope="module", autouse=True)
def token() -> Iterator[None]:
    """The secret of the Ray clusters that are started here, which Ray would else keep in the home folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        yield


@pytest.fixture(scope="module", params=BACKENDS)
def trainer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainer]:
    """A run with two actors, of four environments, that has learned for a while."""
    trainer = Trainer(async_config(actors=2, backend=request.param), tmp_path_factory.mktemp("run"))
    try:
        play(trainer, 160)
        yield trainer
    finally:
        trainer.collector.close()


def test_steps_updates_and_episodes_are_those_of_a_run_that_acts_by_itself(trainer: Trainer):
    assert trainer.env_steps == trainer.replay.steps == 160
    assert trainer.learner.updates == 2 + (160 - 32) // 8 + 0, "of the warm-up, and one every eight steps"
    assert trainer.tracker.tasks["Line-v0"].episodes == trainer.replay.episodes > 10
    lengths = {len(episode) for episode in trainer.replay.open_episodes()}
    assert all(length <= 5 for length in lengths), "episodes are cut after five steps"


def test_actions_are_some_updates_old_and_no_more_than_the_actors_may_be_ahead(trainer: Trainer):
    found = trainer.collector.metrics()
    # Three steps ahead and one under way, an update every second one; weights are given out after every second update.
    assert 0 <= found["acting/updates_behind"] <= found["acting/updates_behind_most"]
    assert found["acting/updates_behind_most"] <= 2 + 4 // 2 + 2, "2: those of the warm-up, made at once"
    assert found["acting/actors_replaced"] == 0


def test_an_actor_that_is_killed_is_replaced_and_its_episodes_are_given_up(trainer: Trainer, caplog: pytest.LogCaptureFixture):
    before, steps, episodes = actors(trainer), trainer.env_steps, trainer.replay.episodes
    os.kill(before[1], signal.SIGKILL)
    with caplog.at_level(logging.WARNING):
        play(trainer, steps + 48)
    after = actors(trainer)
    assert after[0] == before[0] and after[1] != before[1]
    how = KILLED[trainer.config.acting.backend]
    assert f"actor 1 died ({how}): another one takes its place, and its 2 episodes under way are given up" in caplog.text
    assert trainer.env_steps == steps + 48 and trainer.replay.episodes > episodes
    assert trainer.collector.metrics()["acting/actors_replaced"] == 1


def test_a_checkpoint_is_gone_on_with_in_new_episodes_in_either_way(trainer: Trainer, tmp_path: Path):
    path = save(trainer, CheckpointStore(tmp_path / "checkpoints"))
    for mode in ("async", "sync"):
        config = async_config()
        config.acting.mode = mode
        again = Trainer(config, trainer.folder)
        restore(again, path)
        assert again.env_steps == trainer.env_steps and again.learner.updates == trainer.learner.updates
        assert len(again.collector.playing) == 4


def test_when_the_run_ends_so_do_its_actors(tmp_path: Path):
    trainer = Trainer(async_config(), tmp_path)
    play(trainer, 8)
    (pid,) = actors(trainer)
    os.kill(pid, signal.SIGINT)  # Ctrl-C reaches the whole group of the terminal: only the learner minds
    play(trainer, 24)
    assert trainer.collector.metrics()["acting/actors_replaced"] == 0
    trainer.collector.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_an_environment_that_breaks_down_in_an_actor_ends_the_run_in_a_sentence(tmp_path: Path):
    config = tiny_config({"id": "tests.envs.bad:Bad-v0", "kwargs": {"fault": "raise", "odds": 1}, "holdout": False}, max_faults=3)
    config.acting = ActingConfig("async")
    trainer = Trainer(config, tmp_path)
    try:
        with pytest.raises(UserError, match=r"physics broke down.*env\.max_faults=3"):
            play(trainer, 96)
    finally:
        trainer.collector.close()


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"mode": "later"}, "acting.mode=later"),
        ({"actors": 0}, "acting.actors=0"),
        ({"actors": 5}, "give from 1 to 4"),
        ({"ahead": 0}, "acting.ahead=0"),
        ({"publish_every": 0}, "acting.publish_every=0"),
        ({"mode": "async", "backend": "threads"}, "acting.backend=threads is unknown; choose processes or ray"),
        ({"mode": "async", "address": "auto"}, "acting.address=auto is for actors of a Ray cluster: give acting.backend=ray"),
        ({"mode": "async", "gpus": 1.0}, r"acting.gpus=1.0 is for actors of a Ray cluster"),
        ({"mode": "async", "backend": "ray", "address": "ray://a:10001"}, "give acting.address=auto"),
        ({"mode": "async", "backend": "ray", "device": "cuda"}, "acting.gpus=0 has to be above 0 with acting.device=cuda"),
    ],
)
def test_ways_of_acting_that_make_no_sense_are_refused(keys: dict[str, object], said: str):
    config = tiny_config(LINE)
    config.acting = ActingConfig(**keys)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=said):
        check_acting(config)


@pytest.mark.skipif(HAS_RAY, reason="Ray is installed")
def test_actors_of_a_cluster_are_refused_without_ray():
    with pytest.raises(UserError, match=r'acting.backend=ray needs the package ray: pip install -e "\.\[cluster\]"'):
        check_acting(async_config(backend="ray"))


def test_actors_are_refused_weights_that_no_process_holds_whole():
    config = tiny_config(LINE)
    config.acting, config.sharding = ActingConfig("async"), ShardingConfig("deepspeed", 3, gather="step")
    with pytest.raises(UserError, match="gather=rollout"):
        check_acting(config)
    check_acting(replace(config, sharding=ShardingConfig("deepspeed", 3)))


def test_published_weights_are_the_agents_and_are_read_once():
    config = tiny_config(DOORKEY)
    envs = make_envs(config.env, make_task_space(config.env), 1)
    learner, _ = build_agent(config, envs.spec, torch.device("cpu"))
    actor = acting_agent(config, envs.spec)
    obs = envs.reset([make_task_space(config.env).hardest.with_seed(3)])
    learner.model.tokenize(obs, grow=True)
    weights = SharedWeights(learner)
    assert not weights.take(actor), "nothing was written yet"
    weights.publish(learner, 7)
    assert weights.take(actor) and weights.version == 7 and not weights.take(actor)
    found, expected = agent_state(actor), agent_state(learner)
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)
    known, unknown = (a.model.tokenize(obs)["image"] for a in (actor, acting_agent(config, envs.spec)))
    assert (known > 0).all() and (unknown == 0).all(), "tables travel with the weights"
    weights._clock[0] += 1  # a writer that died in the middle
    assert not weights.take(actor)


def test_a_remote_actor_takes_a_step_for_each_call_with_the_weights_that_came_with_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("hierarchy.flat.FlatPolicy.practice", lambda self, state: torch.tensor([True, False]))
    config = async_config(ahead=3)
    tasks = make_task_space(config.env)
    envs = make_envs(config.env, tasks)
    assert envs.again is not None
    learner, _ = build_agent(config, envs.spec, torch.device("cpu"))
    layout = Layout(learner)
    buffer = torch.zeros(layout.size, dtype=torch.uint8)
    layout.write(learner, buffer)
    two = [tasks.hardest.with_seed(seed) for seed in (1, 2)]
    remote = RemoteActor(Orders(config, envs.again, (2, 4), two, 0, 4, seed=1, ahead=3), layout)
    (began,) = remote.hear(None, 5, buffer.numpy())
    assert isinstance(began, Began) and began.tasks == two
    for version, handed in ((5, ()), (9, (9, buffer.numpy())), (9, ())):
        (played,) = remote.hear(Grant([]), *handed)
        assert isinstance(played, Played) and played.version == version and played.result.reward.shape == (2,)
        assert played.practice.tolist() == [True, False]
    said = [remote.hear(Grant([])) for _ in range(3)]
    assert said[-1] == [], "an episode has ended after five steps at most, and there is no task to go on with"
    remote.close()


@pytest.mark.skipif(not SHARED.is_dir(), reason="shared memory has a folder on Linux alone")
def test_weights_that_shared_memory_has_no_room_for_are_refused():
    check_room(1)
    with pytest.raises(UserError, match=r"acting=async shares 1,099,511,627,776 MiB of weights.*--shm-size"):
        check_room(1 << 60)


def test_faults_go_to_the_learners_ledger_by_the_runs_own_numbers():
    relay = Relay(first_env=8)
    relay.note("odd_info", 1, "A", "a list")
    relay.drop(FaultError("raised", "no"), 0, "B")
    assert relay.pop() == [("odd_info", 9, "A", "a list", False), ("raised", 8, "B", "no", True)]
    assert relay.pop() == []
