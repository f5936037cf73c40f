"""What carries messages and weights between the learner and its actors: all that acting here and on other machines differ in."""

from __future__ import annotations

from typing import Protocol

from agent.acting.messages import Began, Failed, Grant, Message, Orders, Played
from agent.agent import Agent
from envs.errors import UserError


class Weights(Protocol):
    """The learner's weights, as an actor sees them.

    Attributes:
        version: updates that those had seen which it has taken last.
    """

    version: int

    def take(self, agent: Agent) -> bool:
        """Give the agent the newest weights that have come; False where it has them."""


class Link(Protocol):
    """The learner's line to one actor."""

    @property
    def place(self) -> str:
        """Where the actor is; asked once it has been heard."""

    @property
    def pid(self) -> int:
        """Its process there."""

    @property
    def ending(self) -> str:
        """How it died; asked once that is known."""

    def hear(self) -> Played | Began | None:
        """Wait for the next message; None where the actor has died.

        Raises:
            UserError: of its environments. RuntimeError: of its program.
        """

    def say(self, grant: Grant) -> None:
        """Tell it, without waiting; what it does not hear any more is found out when it is listened to."""

    def hang_up(self) -> None:
        """Let it know that it is to end."""

    def end(self) -> None:
        """See that it has ended."""


class Transport(Protocol):
    """Starts actors somewhere, and hands them the weights."""

    def publish(self, agent: Agent, updates: int) -> None:
        """Give out the agent's weights, after so many updates."""

    def start(self, orders: Orders) -> Link:
        """Start an actor, without waiting; it takes the weights published last."""

    def close(self) -> None:
        """Give back what it holds; actors have ended before."""


def unless_failed(message: Message) -> Played | Began:
    """What an actor has said.

    Raises:
        UserError: of its environments. RuntimeError: of its program.
    """
    if isinstance(message, Failed):
        raise UserError(message.words) if message.user else RuntimeError(f"an actor broke down:\n{message.words}")
    return message
