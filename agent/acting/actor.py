"""An actor: a process that steps its share of the environments with the newest weights there are."""

from __future__ import annotations

import signal
import traceback
from collections import deque
from dataclasses import replace
from multiprocessing.connection import Connection

import numpy as np
import torch

from agent.acting.messages import Began, Failed, Fault, Grant, Observations, Orders, Played
from agent.acting.weights import SharedWeights
from agent.agent import Agent
from agent.build import choose_device
from agent.config import RunConfig
from envs.errors import UserError
from envs.faults import FaultError, FaultLedger
from envs.spaces.specs import EnvSpec
from envs.tasks import Task
from hierarchy import make_hierarchy
from hierarchy.planner import make_planner
from world_model.model import WorldModel


def run_actor(orders: Orders, connection: Connection, weights: SharedWeights) -> None:
    """Play until the learner hangs up. It alone is told to stop by signals; without it there is nobody to play for."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    try:
        Actor(orders, connection, weights).play()
    except (EOFError, ConnectionError):
        return
    except UserError as error:
        _tell(connection, Failed(str(error), user=True))
    except Exception:
        _tell(connection, Failed(traceback.format_exc(), user=False))


def _tell(connection: Connection, failed: Failed) -> None:
    try:
        connection.send(failed)
    except ConnectionError:
        return


def acting_agent(config: RunConfig, spec: EnvSpec) -> Agent:
    """An agent that only acts; its weights are yet to come."""
    device = choose_device(config.acting.device)
    model = WorldModel(spec, replace(config.model, compile=None)).to(device)
    hierarchy = make_hierarchy(config.hierarchy, model.latents, model.view_width, spec.action).to(device)
    return Agent(model, hierarchy, device, make_planner(hierarchy, model, config.hierarchy))


class Relay(FaultLedger):
    """Keeps faults for the learner, whose ledger counts those of all actors."""

    def __init__(self, first_env: int) -> None:
        super().__init__(0)
        self.first_env = first_env
        self.events: list[Fault] = []

    def note(self, kind: str, env: int, task: str, detail: str) -> None:
        self.events.append(Fault(kind, env + self.first_env, task, detail, drops=False))

    def drop(self, fault: FaultError, env: int, task: str) -> None:
        self.events.append(Fault(fault.kind, env + self.first_env, task, fault.detail, drops=True))

    def pop(self) -> list[Fault]:
        events, self.events = self.events, []
        return events


class Actor:
    """Steps its environments as far ahead of the learner as it has been granted steps, and on the tasks that it was given."""

    def __init__(self, orders: Orders, connection: Connection, weights: SharedWeights) -> None:
        config = orders.config
        torch.set_num_threads(config.acting.threads)
        torch.manual_seed(orders.seed)
        self.orders, self.connection, self.weights = orders, connection, weights
        self.number = orders.rows[1] - orders.rows[0]
        self.envs = orders.envs(self.number, config.env.vectorization)
        self.envs.faults = self.faults = Relay(orders.rows[0])
        self.agent = acting_agent(config, self.envs.spec)
        self.state = self.agent.initial_state(self.number)
        self.first = np.ones(self.number, bool)
        self.obs: Observations = {}
        self.tasks: deque[Task] = deque(orders.tasks)
        self.granted = config.acting.ahead
        self.steps = orders.steps

    def play(self) -> None:
        """Until the connection is closed."""
        try:
            began = self._begin()
            self.connection.send(began)
            while True:
                self.connection.send(self._step())
        finally:
            self.envs.close()

    def _step(self) -> Played:
        self._listen(steps=1)
        self.granted -= 1
        config = self.orders.config
        self.weights.take(self.agent)
        mode = "random" if self.steps < config.train.random_steps else "sample"
        plan = config.hierarchy.plan_training
        action, log_prob, self.state = self.agent.act(self.obs, self.first, self.state, mode, plan=plan)
        result = self.envs.step(action)
        self.steps += self.orders.per_step
        self.obs, self.first = result.obs, result.terminated | result.truncated
        return Played(self.weights.version, action, log_prob, result, self._begin(), self.faults.pop())

    def _begin(self) -> Began:
        """Begin episodes where the last ones ended."""
        which = np.flatnonzero(self.first).tolist()
        if not which:
            return Began([], [], {})
        self._listen(tasks=len(which))
        tasks: list[Task | None] = [None] * self.number
        begun = [self.tasks.popleft() for _ in which]
        for i, task in zip(which, begun, strict=True):
            tasks[i] = task
        self.obs = self.envs.reset(tasks, self.first)
        return Began(which, begun, {key: value[which] for key, value in self.obs.items()})

    def _listen(self, steps: int = 0, tasks: int = 0) -> None:
        """Hear what the learner has said; wait while there are fewer steps granted, or tasks given, than are needed."""
        while self.granted < steps or len(self.tasks) < tasks or self.connection.poll():
            grant = self.connection.recv()
            assert isinstance(grant, Grant)
            self.granted += 1
            self.tasks.extend(grant.tasks)
