"""The actors of a run: started, listened to, replaced when they die, and ended."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from torch import multiprocessing

from agent.acting.actor import run_actor
from agent.acting.messages import Began, Failed, Grant, Orders, Played
from agent.acting.weights import SharedWeights
from envs.errors import UserError

log = logging.getLogger(__name__)

STILLBORN = 3  # times in a row that an actor may die before its first step
GRACE = 10.0  # seconds that actors have to end by themselves


class ActorProcess:
    """One process and the connection to it."""

    def __init__(self, orders: Orders, weights: SharedWeights) -> None:
        # Forked from a server that has imported all there is to import, so that an actor starts at once. A fork of the learner
        # itself would copy its threads and its accelerator's state.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([run_actor.__module__])
        self.connection, theirs = context.Pipe()
        daemon = orders.config.env.vectorization == "sync"  # else it has processes of its own
        self.process: BaseProcess = context.Process(target=run_actor, args=(orders, theirs, weights), daemon=daemon, name="actor")
        self.process.start()
        theirs.close()  # so that its end is noticed
        self._finalizer = weakref.finalize(self, _end, self.process, self.connection)

    def hear(self) -> Played | Began | None:
        """The next message; None where the process has died.

        Raises:
            UserError: of its environments. RuntimeError: of its program.
        """
        try:
            message = self.connection.recv()
        except (EOFError, OSError):  # in the middle of a message, too
            self.process.join(GRACE)
            return None
        if isinstance(message, Failed):
            raise UserError(message.words) if message.user else RuntimeError(f"an actor broke down:\n{message.words}")
        assert isinstance(message, Played | Began)
        return message

    def say(self, grant: Grant) -> None:
        """Tell it; what it does not hear any more is found out when it is listened to."""
        try:
            self.connection.send(grant)
        except ConnectionError:
            log.debug("an actor was gone before it could be granted a step")

    def end(self) -> None:
        """Hang up, and see that it ends."""
        self._finalizer()


def _end(process: BaseProcess, connection: Connection) -> None:
    connection.close()
    process.join(GRACE)
    if process.is_alive():
        process.kill()
        process.join()


class Seat:
    """A share of the environments, and the actor that plays it now.

    Attributes:
        rows: its environments among all of the run.
        replaced: how often its actor was.
    """

    def __init__(self, number: int, rows: slice, weights: SharedWeights) -> None:
        self.number, self.rows, self.weights = number, rows, weights
        self.replaced = 0
        self._actor: ActorProcess | None = None

    @property
    def pid(self) -> int | None:
        return None if self._actor is None else self._actor.process.pid

    def start(self, orders: Orders) -> None:
        """Start an actor; what it begins with comes by `hear`."""
        self._actor = ActorProcess(orders, self.weights)
        log.info(
            "actor %d (process %d) plays environments %d to %d", self.number, self.pid, self.rows.start, self.rows.stop - 1
        )  # fmt: skip

    def hear(self) -> Played | Began | None:
        """See `ActorProcess.hear`."""
        assert self._actor is not None
        return self._actor.hear()

    def say(self, grant: Grant) -> None:
        """See `ActorProcess.say`."""
        assert self._actor is not None
        self._actor.say(grant)

    def replace(self, orders: Callable[[int], Orders]) -> Began:
        """Start another actor in the place of one that died; answers the episodes that it begins.

        Args:
            orders: given how often the actor was replaced, what the new one is told.

        Raises:
            UserError: it dies again and again before its first step.
        """
        for _ in range(STILLBORN):
            assert self._actor is not None
            code = self._actor.process.exitcode
            self._actor.end()
            self.replaced += 1
            log.warning(
                "actor %d died (exit code %s): another one takes its place, and its %d episodes under way are given up",
                self.number, code, self.rows.stop - self.rows.start,
            )  # fmt: skip
            self.start(orders(self.replaced))
            began = self.hear()
            if isinstance(began, Began):
                return began
        raise UserError(
            f"actor {self.number} died {STILLBORN} times before its first step: try acting=sync, in which what is wrong is seen"
        )

    def hang_up(self) -> None:
        """Let its actor know that it is to end."""
        if self._actor is not None:
            self._actor.connection.close()

    def end(self) -> None:
        """See that its actor has ended."""
        if self._actor is not None:
            self._actor.end()
