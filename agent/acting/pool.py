"""The actors of a run: started, listened to, replaced when they die, and ended."""

from __future__ import annotations

import logging
from collections.abc import Callable

from agent.acting.messages import Began, Grant, Orders, Played
from agent.acting.transport import Link, Transport
from envs.errors import UserError

log = logging.getLogger(__name__)

STILLBORN = 3  # times in a row that an actor may die before its first step


class Seat:
    """A share of the environments, and the actor that plays it now.

    Attributes:
        rows: its environments among all of the run.
        replaced: how often its actor was.
    """

    def __init__(self, number: int, rows: slice, transport: Transport) -> None:
        self.number, self.rows, self.transport = number, rows, transport
        self.replaced = 0
        self._link: Link | None = None

    @property
    def pid(self) -> int | None:
        """Of its actor, on the machine that this one is on."""
        return None if self._link is None else self._link.pid

    def start(self, orders: Orders) -> None:
        """Start an actor; what it begins with comes by `hear`."""
        self._link = self.transport.start(orders)

    def hear(self) -> Played | Began | None:
        """See `Link.hear`."""
        assert self._link is not None
        message = self._link.hear()
        if isinstance(message, Began):
            first, last = self.rows.start, self.rows.stop - 1
            log.info("actor %d (%s) plays environments %d to %d", self.number, self._link.place, first, last)
        return message

    def say(self, grant: Grant) -> None:
        """See `Link.say`."""
        assert self._link is not None
        self._link.say(grant)

    def replace(self, orders: Callable[[int], Orders]) -> Began:
        """Start another actor in the place of one that died; answers the episodes that it begins.

        Args:
            orders: given how often the actor was replaced, what the new one is told.

        Raises:
            UserError: it dies again and again before its first step.
        """
        assert self._link is not None
        for _ in range(STILLBORN):
            ending = self._link.ending
            self._link.end()
            self.replaced += 1
            log.warning(
                "actor %d died (%s): another one takes its place, and its %d episodes under way are given up",
                self.number, ending, self.rows.stop - self.rows.start,
            )  # fmt: skip
            self.start(orders(self.replaced))
            began = self.hear()
            if isinstance(began, Began):
                return began
            ending = self._link.ending
        raise UserError(
            f"actor {self.number} died {STILLBORN} times before its first step ({ending}): try acting=sync, in which "
            "what is wrong is seen"
        )

    def hang_up(self) -> None:
        """Let its actor know that it is to end."""
        if self._link is not None:
            self._link.hang_up()

    def end(self) -> None:
        """See that its actor has ended."""
        if self._link is not None:
            self._link.end()
