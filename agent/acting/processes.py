"""Actors in processes of this machine: pipes carry their messages, shared memory the weights."""

from __future__ import annotations

import logging
import signal
import weakref
from contextlib import closing
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from torch import multiprocessing

from agent.acting.actor import Actor
from agent.acting.messages import Began, Grant, Orders, Played
from agent.acting.transport import unless_failed
from agent.acting.weights import SharedWeights
from agent.agent import Agent

log = logging.getLogger(__name__)

GRACE = 10.0  # seconds that an actor has to end by itself


def run_actor(orders: Orders, connection: Connection, weights: SharedWeights) -> None:
    """Play until the learner hangs up. It alone is told to stop by signals; without it there is nobody to play for."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    actor = Actor(orders, weights)
    with closing(actor.play()) as messages:
        try:
            for message in messages:
                if message is None:
                    actor.grant(connection.recv())
                else:
                    connection.send(message)
                while connection.poll():  # so that the learner never waits for room in the pipe
                    actor.grant(connection.recv())
        except (EOFError, ConnectionError):
            return


class Processes:
    """The transport of `acting.backend=processes`."""

    def __init__(self, agent: Agent) -> None:
        self._weights = SharedWeights(agent)

    def publish(self, agent: Agent, updates: int) -> None:
        self._weights.publish(agent, updates)

    def start(self, orders: Orders) -> ProcessLink:
        return ProcessLink(orders, self._weights)

    def close(self) -> None:
        """Nothing is left: shared memory goes with those that have it open."""


class ProcessLink:
    """One process and the connection to it."""

    def __init__(self, orders: Orders, weights: SharedWeights) -> None:
        # Forked from a server that has imported all there is to import, so that an actor starts at once. A fork of the learner
        # itself would copy its threads and its accelerator's state.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([run_actor.__module__])
        self._connection, theirs = context.Pipe()
        daemon = orders.config.env.vectorization == "sync"  # else it has processes of its own
        self._process: BaseProcess = context.Process(
            target=run_actor, args=(orders, theirs, weights), daemon=daemon, name="actor"
        )
        self._process.start()
        theirs.close()  # so that its end is noticed
        self._finalizer = weakref.finalize(self, _end, self._process, self._connection)

    @property
    def place(self) -> str:
        return f"process {self.pid}"

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def ending(self) -> str:
        return f"exit code {self._process.exitcode}"

    def hear(self) -> Played | Began | None:
        try:
            return unless_failed(self._connection.recv())
        except (EOFError, OSError):  # in the middle of a message, too
            self._process.join(GRACE)
            return None

    def say(self, grant: Grant) -> None:
        try:
            self._connection.send(grant)
        except ConnectionError:
            log.debug("an actor was gone before it could be granted a step")

    def hang_up(self) -> None:
        self._connection.close()

    def end(self) -> None:
        self._finalizer()


def _end(process: BaseProcess, connection: Connection) -> None:
    connection.close()
    process.join(GRACE)
    if process.is_alive():
        process.kill()
        process.join()
