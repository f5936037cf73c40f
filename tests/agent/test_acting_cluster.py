"""Actors of a Ray cluster: what is said where there is none, and what is left of one when a run ends.

That they act as processes do, and are replaced as these are, is in `test_acting.py`.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import select
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from agent.acting.actor import acting_agent
from agent.acting.cluster import HandedWeights, connect, keep_handlers, reason
from agent.acting.weights import Layout, agent_state
from agent.build import build_agent
from agent.config import ActingConfig
from agent.trainer import Trainer
from envs import make_envs, make_task_space
from envs.errors import UserError
from tests.agent.tiny import LINE, play, tiny_config
from tests.test_run import TINY, start, wait_for_step

ray = pytest.importorskip("ray", reason="needs the extra `cluster`")


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """One of a single CPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))  # else Ray keeps one in the home folder
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")
        with keep_handlers():
            ray.init(
                address="local", num_cpus=1, include_dashboard=False, object_store_memory=100 << 20, logging_level=logging.ERROR
            )
        yield
        ray.shutdown()


def test_a_cluster_that_is_too_small_is_refused_and_left_as_it_was():
    said = r"acting.actors=3 ask for 6 CPUs \(acting.threads each\) and the Ray cluster has 1: join more machines"
    with pytest.raises(UserError, match=said):
        connect(ActingConfig("async", actors=3, threads=2, backend="ray"), 1)
    with pytest.raises(UserError, match=r"acting.actors=1 ask for 0.5 GPUs \(acting.gpus each\)"):
        connect(ActingConfig("async", backend="ray", device="cuda", gpus=0.5), 1)
    assert ray.is_initialized() and not connect(ActingConfig("async", backend="ray"), 1)


def test_an_environment_that_breaks_down_in_an_actor_ends_the_run_in_a_sentence(tmp_path: Path):
    config = tiny_config({"id": "tests.envs.bad:Bad-v0", "kwargs": {"fault": "raise", "odds": 1}, "holdout": False}, max_faults=3)
    config.acting = ActingConfig("async", backend="ray")
    trainer = Trainer(config, tmp_path)
    try:
        with pytest.raises(UserError, match=r"physics broke down.*env\.max_faults=3"):
            play(trainer, 96)
    finally:
        trainer.collector.close()


def test_handed_weights_are_taken_once():
    config = tiny_config(LINE)
    envs = make_envs(config.env, make_task_space(config.env), 1)
    learner, _ = build_agent(config, envs.spec, torch.device("cpu"))
    actor = acting_agent(config, envs.spec)
    layout = Layout(learner)
    buffer = torch.zeros(layout.size, dtype=torch.uint8)
    layout.write(learner, buffer)
    weights = HandedWeights(layout)
    assert not weights.take(actor), "none has come yet"
    weights.hand(7, buffer.numpy())
    assert weights.take(actor) and weights.version == 7 and not weights.take(actor)
    found, expected = agent_state(actor), agent_state(learner)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_ctrl_c_and_sigterm_stay_with_the_run():
    before = signal.getsignal(signal.SIGTERM)
    with keep_handlers():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    assert signal.getsignal(signal.SIGTERM) is before


def test_of_all_that_ray_says_of_a_dead_actor_the_reason_is_told():
    words = (
        "The actor died.\n\tpid: 1\nThe actor is dead because its node has died. Node Id: 5\n\tthe actor's node was terminated."
    )
    assert reason(words) == "its node has died"
    assert reason("The actor 1f is unavailable: The actor is temporarily unavailable: RPC error.") == "it cannot be reached"
    assert (
        reason("Traceback\n  File\nModuleNotFoundError: No module named 'agent'\n")
        == "ModuleNotFoundError: No module named 'agent'"
    )


class TestWithoutACluster:
    """After the one above has ended."""

    @pytest.fixture(scope="class", autouse=True)
    def ended(self, cluster: None) -> None:
        ray.shutdown()

    def test_an_address_where_nobody_answers_is_refused(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))  # and nobody listens
            address = f"127.0.0.1:{free.getsockname()[1]}"
            with pytest.raises(
                UserError, match=rf"no Ray cluster at acting\.address={address} \(.*refused\): .*ray start --head"
            ):
                connect(ActingConfig("async", backend="ray", address=address), 1)
        with pytest.raises(UserError, match=r"acting\.address=head \(it has to be HOST:PORT, or auto\)"):
            connect(ActingConfig("async", backend="ray", address="head"), 1)
        assert not ray.is_initialized()

    def test_a_run_that_is_stopped_is_saved_and_leaves_neither_actor_nor_cluster(self, tmp_path: Path):
        options = [option for option in TINY if "env_steps" not in option]
        run = start(*options, "acting=async", "acting.backend=ray", "train.env_steps=100000", f"hydra.run.dir={tmp_path / 'run'}")
        assert run.stderr is not None
        (pid,) = next(
            found.groups()
            for line in run.stderr
            if (found := re.search(r"actor 0 \(process (\d+) of .*\) plays environments", line))
        )
        actor = os.pidfd_open(int(pid))
        wait_for_step(run, 40)
        run.send_signal(signal.SIGTERM)
        out, error = run.communicate()
        assert run.returncode == 0 and re.search(r"Stopped at \d+ env steps; go on with: python run\.py resume=", out), error
        assert select.select([actor], [], [], 30)[0], "it has ended"
        os.close(actor)
