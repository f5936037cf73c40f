"""An actor: it steps its share of the environments with the newest weights there are."""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Generator
from dataclasses import replace

import numpy as np
import torch

from agent.acting.messages import Began, Failed, Fault, Grant, Message, Observations, Orders, Played
from agent.acting.transport import Weights
from agent.agent import Agent
from agent.build import choose_device, make_policy
from agent.config import RunConfig
from envs.errors import UserError
from envs.faults import FaultError, FaultLedger
from envs.spaces.specs import EnvSpec
from envs.tasks import Task
from hierarchy.planner import make_planner
from world_model.model import WorldModel


def acting_agent(config: RunConfig, spec: EnvSpec) -> Agent:
    """An agent that only acts; its weights are yet to come."""
    device = choose_device(config.acting.device)
    model = WorldModel(spec, replace(config.model, compile=None)).to(device)
    hierarchy = make_policy(config, model).to(device)
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
    """Steps its environments as far ahead of the learner as it has been granted steps, and on the tasks that it was given.

    It knows nothing of what carries its messages: whoever runs it passes on what `play` yields, and gives it what the learner
    says by `grant`. It wants the main thread of its process, in which alone environments can be held to `env.step_seconds`.
    """

    def __init__(self, orders: Orders, weights: Weights) -> None:
        self.orders, self.weights = orders, weights
        self.number = orders.rows[1] - orders.rows[0]
        self.first = np.ones(self.number, bool)
        self.obs: Observations = {}
        self.tasks: deque[Task] = deque(orders.tasks)
        self.granted = orders.ahead
        self.steps = orders.steps

    def grant(self, grant: Grant) -> None:
        """Hear what the learner has said."""
        self.granted += 1
        self.tasks.extend(grant.tasks)

    def play(self) -> Generator[Message | None, None, None]:
        """What it says: the episodes it begins with, then each step; None where it can only go on once it is granted more.

        It ends with `Failed`, else never: close it.
        """
        try:
            self._build()
            try:
                yield (yield from self._begin())
                while True:
                    yield (yield from self._step())
            finally:
                self.envs.close()
        except UserError as error:
            yield Failed(str(error), user=True)
        except Exception:
            yield Failed(traceback.format_exc(), user=False)

    def _build(self) -> None:
        config = self.orders.config
        torch.set_num_threads(config.acting.threads)
        torch.manual_seed(self.orders.seed)
        self.envs = self.orders.envs(self.number, config.env.vectorization)
        self.envs.faults = self.faults = Relay(self.orders.rows[0])
        self.agent = acting_agent(config, self.envs.spec)
        self.state = self.agent.initial_state(self.number, exploring=True)

    def _step(self) -> Generator[None, None, Played]:
        while self.granted < 1:
            yield None
        self.granted -= 1
        config = self.orders.config
        self.weights.take(self.agent)
        mode = "random" if self.steps < config.train.random_steps else "sample"
        plan = config.hierarchy.plan_training
        action, log_prob, self.state = self.agent.act(self.obs, self.first, self.state, mode, plan=plan)
        practice, result = self.agent.practice(self.state), self.envs.step(action)
        self.steps += self.orders.per_step
        self.obs, self.first = result.obs, result.terminated | result.truncated
        began = yield from self._begin()
        return Played(self.weights.version, action, log_prob, practice, result, began, self.faults.pop())

    def _begin(self) -> Generator[None, None, Began]:
        """Begin episodes where the last ones ended."""
        which = np.flatnonzero(self.first).tolist()
        if not which:
            return Began([], [], {})
        while len(self.tasks) < len(which):
            yield None
        tasks: list[Task | None] = [None] * self.number
        begun = [self.tasks.popleft() for _ in which]
        for i, task in zip(which, begun, strict=True):
            tasks[i] = task
        self.obs = self.envs.reset(tasks, self.first)
        return Began(which, begun, {key: value[which] for key, value in self.obs.items()})
