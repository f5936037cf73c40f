"""Actors on the machines of a Ray cluster: calls of their methods carry messages and weights, so that nothing else is shared.

What passes between the learner and its actors is pickled by Ray, as all that Ray carries: between processes that this run has
started itself. Whoever may talk to a Ray cluster may run programs on it, so keep it to a network of one's own, with Ray's token.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import takewhile
from typing import Any

import numpy as np
import torch

from agent.acting.actor import Actor
from agent.acting.messages import Began, Grant, Message, Orders, Played
from agent.acting.transport import unless_failed
from agent.acting.weights import MIB, Layout
from agent.agent import Agent
from agent.config import ActingConfig
from envs.errors import UserError

log = logging.getLogger(__name__)

GRACE = 10.0  # seconds that an actor has to end by itself
PATIENCE = 60.0  # seconds without a word after which a new actor is said to be waited for
REACH = 10.0  # seconds within which the address of a cluster has to answer: Ray itself tries for many minutes
STORE = 256 * MIB  # of a cluster started here: room for observations under way, beside the weights
COPIES = 4  # of the weights that there is room for; Ray puts on disk what goes beyond it


class HandedWeights:
    """Weights that are handed over with a call."""

    def __init__(self, layout: Layout) -> None:
        self.version = 0
        self._layout = layout
        self._handed: tuple[int, np.ndarray] | None = None

    def hand(self, version: int, buffer: np.ndarray) -> None:
        self._handed = version, buffer

    def take(self, agent: Agent) -> bool:
        if self._handed is None:
            return False
        (self.version, buffer), self._handed = self._handed, None  # Ray's store may have its room back
        self._layout.read(torch.from_numpy(buffer.copy()), agent)
        return True


class RemoteActor:
    """An actor in a process of Ray's. Calls are worked off in their order, in its main thread."""

    def __init__(self, orders: Orders, layout: Layout) -> None:
        self._weights = HandedWeights(layout)
        self._actor = Actor(replace(orders, ahead=0), self._weights)  # it is called once for each of these steps
        self._messages = self._actor.play()

    def hear(self, grant: Grant | None, version: int = 0, weights: np.ndarray | None = None) -> list[Message]:
        """Play until another grant is needed; answers what there is to say."""
        if weights is not None:
            self._weights.hand(version, weights)
        if grant is not None:
            self._actor.grant(grant)
        return [message for message in takewhile(lambda message: message is not None, self._messages) if message is not None]

    def whereabouts(self) -> tuple[int, str]:
        """Its process, and the address of its machine."""
        import ray

        return os.getpid(), ray.util.get_node_ip_address()

    def close(self) -> None:
        """End its environments."""
        self._messages.close()


class RayTransport:
    """The transport of `acting.backend=ray`.

    Raises:
        UserError: the cluster does not answer, or has not the CPUs and GPUs that the actors ask for.
    """

    def __init__(self, config: ActingConfig, agent: Agent) -> None:
        self.config, self._layout = config, Layout(agent)
        self._ours = connect(config, self._layout.size)
        self._buffer = torch.zeros(self._layout.size, dtype=torch.uint8)
        self._newest: tuple[int, Any] = (0, None)

    def publish(self, agent: Agent, updates: int) -> None:
        """Put the weights into Ray's store; they leave it once no actor is to have them any more.

        Raises:
            UserError: the store does not take them.
        """
        import ray

        self._layout.write(agent, self._buffer)
        with working():
            self._newest = updates, ray.put(self._buffer.numpy())

    def start(self, orders: Orders) -> RayLink:
        """Start an actor, without waiting; it takes the weights published last.

        Raises:
            UserError: the store does not take what it is to be told.
        """
        import ray

        # Neither actors nor calls are tried again by Ray: what was lost is said, and episodes under way are given up.
        kind = ray.remote(RemoteActor).options(
            num_cpus=self.config.threads, num_gpus=self.config.gpus, max_restarts=0, max_task_retries=0,
            scheduling_strategy="SPREAD",
        )  # fmt: skip
        with working():
            return RayLink(kind.remote(orders, ray.put(self._layout)), orders.ahead, lambda: self._newest)

    def close(self) -> None:
        """Leave the cluster, or end it where it was started here."""
        if self._ours:
            import ray

            with keep_handlers():
                ray.shutdown()
            self._ours = False


class RayLink:
    """One actor of Ray's, and the calls that it has not answered yet.

    Each grant is a call, and each call is answered by what the actor said until it needed the next one. Weights go along with a
    call where there are newer ones: an action is as old as it would be here, where actors keep up with their learner, and never
    older by more than the steps that they may be ahead.
    """

    def __init__(self, actor: Any, ahead: int, newest: Callable[[], tuple[int, Any]]) -> None:
        self._actor, self._newest = actor, newest
        self._whereabouts: Any = actor.whereabouts.remote()
        self._calls: deque[Any] = deque()
        self._said: deque[Message] = deque()
        self._sent: Any = None  # the weights that the last call knew
        self._closing: Any = None
        self._known: tuple[int, str] | None = None
        self.ending = "not known why"
        self._call(None)
        for _ in range(ahead):
            self._call(Grant([]))

    @property
    def place(self) -> str:
        pid, address = self._find()
        return f"process {pid} of {address}"

    @property
    def pid(self) -> int:
        return self._find()[0]

    def _find(self) -> tuple[int, str]:
        import ray

        if self._known is None:
            self._known = ray.get(self._whereabouts)
        return self._known

    def _call(self, grant: Grant | None) -> None:
        version, weights = self._newest()
        handed = () if weights is self._sent else (version, weights)
        self._calls.append(self._actor.hear.remote(grant, *handed))
        self._sent = weights

    def hear(self) -> Played | Began | None:
        import ray

        try:
            while not self._said:
                if self._known is None:
                    self._wait()
                self._said.extend(ray.get(self._calls[0]))
                self._calls.popleft()
        except ray.exceptions.RayError as error:
            self.ending = reason(str(error))
            return None
        return unless_failed(self._said.popleft())

    def _wait(self) -> None:
        """Wait for a new actor, whose machine may have no room for it yet."""
        import ray

        while not ray.wait([self._whereabouts], timeout=PATIENCE)[0]:
            log.warning("still waiting for the Ray cluster to start an actor: `ray status` says what it is short of")
        self._find()

    def say(self, grant: Grant) -> None:
        self._call(grant)

    def hang_up(self) -> None:
        self._closing = self._actor.close.remote()

    def end(self) -> None:
        import ray

        if self._closing is not None:
            ray.wait([self._closing], timeout=GRACE)
        ray.kill(self._actor)


@contextmanager
def working() -> Iterator[None]:
    """Say in one sentence that the cluster no longer does what it is asked.

    Raises:
        UserError: what Ray says of it, and how to go on.
    """
    import ray

    try:
        yield
    except ray.exceptions.RayError as error:
        raise UserError(
            f"the Ray cluster does not work any more ({reason(str(error))}): see `ray status` and the memory and disk of the "
            "learner's machine, then go on by resume=RUN_FOLDER"
        ) from error


def reason(words: str) -> str:
    """Why an actor is gone, from all that Ray says of it."""
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    for line in lines:
        if line.startswith("The actor is dead because "):
            return line.removeprefix("The actor is dead because ").split(".")[0]
        if "is temporarily unavailable" in line:  # it may come back, but its steps are wanted now
            return "it cannot be reached"
    return lines[-1] if lines else "no reason given"


def check_installed() -> None:
    """Refuse `acting.backend=ray` without Ray.

    Raises:
        UserError: how to install it.
    """
    if importlib.util.find_spec("ray") is None:
        raise UserError('acting.backend=ray needs the package ray: pip install -e ".[cluster]", or give acting.backend=processes')


def connect(config: ActingConfig, weights: int) -> bool:
    """Join the cluster of `acting.address`, or start one on this machine; whether this call did.

    Args:
        weights: bytes of the weights.

    Raises:
        UserError: no cluster answers there, none can be started, or it is too small.
    """
    check_installed()
    import ray

    ours = not ray.is_initialized()
    if ours:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would report to its makers
        os.environ.setdefault("RAY_worker_niceness", "0")  # ... and let everything else on this machine go before actors
        here: dict[str, Any] = dict(
            address="local", num_cpus=config.actors * config.threads, include_dashboard=False,
            object_store_memory=STORE + COPIES * weights,
            _node_ip_address="127.0.0.1",  # whoever reaches a cluster may run programs in it: nobody from outside
        )  # fmt: skip
        try:
            reach(config.address)
            with keep_handlers():
                ray.init(**(here if config.address is None else {"address": config.address}), logging_level=logging.ERROR)
        except (ray.exceptions.RayError, ConnectionError, RuntimeError, ValueError, OSError) as error:
            place = "on this machine" if config.address is None else f"at acting.address={config.address}"
            raise UserError(
                f"there is no Ray cluster {place} ({reason(str(error))}): start one with ray start --head, or give "
                "acting.address=null to have one started here, or acting.backend=processes"
            ) from error
    has = ray.cluster_resources()
    for kind, asked in {"CPU": config.actors * config.threads, "GPU": config.actors * config.gpus}.items():
        if asked > has.get(kind, 0):
            if ours:
                with keep_handlers():
                    ray.shutdown()
            raise UserError(
                f"acting.actors={config.actors} ask for {asked:g} {kind}s (acting.{'threads' if kind == 'CPU' else 'gpus'} each) "
                f"and the Ray cluster has {has.get(kind, 0):g}: join more machines with ray start --address, or give fewer"
            )
    return ours


def reach(address: str | None) -> None:
    """Knock at HOST:PORT.

    Raises:
        OSError: nobody answers. ValueError: it is no such address.
    """
    if address in (None, "auto"):
        return
    host, _, port = str(address).rpartition(":")
    if not host or not port.isdigit():
        raise ValueError("it has to be HOST:PORT, or auto")
    socket.create_connection((host, int(port)), timeout=REACH).close()


@contextmanager
def keep_handlers() -> Iterator[None]:
    """Ctrl-C and SIGTERM stay with the run: Ray sets handlers of its own, which end the program at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
