"""Asynchronous acting, seen from the learner: steps that actors have taken ahead, in the order in which they are learned from."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from agent.acting.messages import Began, Grant, Observations, Orders, Played
from agent.acting.pool import Seat
from agent.acting.processes import Processes
from agent.acting.transport import Transport
from agent.agent import Agent, AgentState
from agent.collector import Collector
from agent.config import RunConfig
from agent.metrics import Averager
from agent.sequences import OpenEpisode
from envs import StepResult
from envs.faults import FaultError
from envs.spaces.actions import no_actions
from envs.tasks import Outcome, Task


class AsyncCollector(Collector):
    """As `Collector`, but the steps it takes were taken by actors, up to `acting.ahead` steps before.

    The environments are shared out to the actors. A step is one of all environments, so that replay, outcomes, curriculum and the
    number of updates a step are those of `acting=sync`. What differs: the weights that choose an action are some updates old
    (`metrics` says how many), and so is the curriculum's choice of a task, made one episode of each environment ahead.

    Args:
        updates: says how many updates there have been.
    """

    def __init__(self, config: RunConfig, updates: Callable[[], int], *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.config, self.updates = config, updates
        self.transport: Transport | None = None
        self.seats: list[Seat] = []
        self._given: list[deque[Task]] = []  # by seat: tasks that are yet to begin, as its actor knows them
        self._figures = Averager()
        self._furthest = 0  # updates that an action was behind at most since the last log line

    def start(self) -> None:
        """Have the curriculum choose the first tasks: one for each environment, and one to follow."""
        number = self.envs.num_envs
        self.playing = [Task("")] * number
        chosen = self.curriculum.sample(2 * number, self.rng)
        rows = np.array_split(np.arange(number), self.config.acting.actors)
        transport = self.transport = make_transport(self.config, self.agent)
        self.seats = [Seat(i, slice(int(own[0]), int(own[-1]) + 1), transport) for i, own in enumerate(rows)]
        self._given = [deque([*chosen[seat.rows], *chosen[number:][seat.rows]]) for seat in self.seats]

    def resume(
        self, open_episodes: list[OpenEpisode], steps: int, state: AgentState, numbers: Sequence[Mapping[str, float] | None] = ()
    ) -> list[str]:
        """Go on at so many steps; the actors start new episodes."""
        self.steps = steps
        self.start()
        return [f"acting=async: {self.envs.num_envs} episodes that were under way start anew, on tasks chosen now"]

    def open_episodes(self) -> list[OpenEpisode]:
        """None: how the actors' caches stood is not known here."""
        return []

    def step(self, mode: str = "sample") -> list[Outcome]:
        """As of `Collector`; the actors know `mode` by the number of steps."""
        if not self.obs:
            self._launch()
        self.agent.model.tokenize(self.obs, grow=True)  # the actors get the tables with the weights
        played = [self._next(seat) for seat in self.seats]
        for part in played:
            for kind, env, task, detail, drops in part.faults:
                if drops:
                    self.envs.faults.drop(FaultError(kind, detail), env, task)
                else:
                    self.envs.faults.note(kind, env, task, detail)
            behind = self.updates() - part.version
            self._figures.add({"acting/updates_behind": float(behind)})
            self._furthest = max(self._furthest, behind)
        self._began = [part.began for part in played]
        self._fresh: list[Task] = []
        self.replay.act(np.concatenate([part.action for part in played]), np.concatenate([part.log_prob for part in played]))
        practice = np.concatenate([part.practice for part in played])
        outcomes = self._arrived(_together([part.result for part in played]), practice)
        fresh = iter(self._fresh)
        for seat, given, began in zip(self.seats, self._given, self._began, strict=True):
            tasks = [next(fresh) for _ in began.tasks]
            given.extend(tasks)
            seat.say(Grant(tasks))
        return outcomes

    def _begin(self, mask: np.ndarray) -> None:
        """The episodes have begun; choose as many tasks for later."""
        self.obs = {key: value.copy() for key, value in self.obs.items()}
        for seat, given, began in zip(self.seats, self._given, self._began, strict=True):
            self._take_down(seat, given, began)
        self._fresh = list(self.curriculum.sample(int(mask.sum()), self.rng))
        self._begun(mask)

    def _take_down(self, seat: Seat, given: deque[Task], began: Began) -> None:
        for k, (env, task) in enumerate(zip(began.envs, began.tasks, strict=True)):
            assert given.popleft() == task, "actors begin tasks in the order in which they were given"
            row = seat.rows.start + env
            self.playing[row] = task
            for key, value in began.obs.items():
                self.obs[key][row] = value[k]

    def _launch(self) -> None:
        """Start the actors, all at once, and wait for their first observations."""
        assert self.transport is not None
        self.transport.publish(self.agent, self.updates())
        for seat in self.seats:
            seat.start(self._orders(seat))
        number = self.envs.num_envs
        self.obs = {leaf.key: np.zeros((number, *leaf.shape), leaf.dtype) for leaf in self.envs.spec.observations}
        for seat, given in zip(self.seats, self._given, strict=True):
            began = seat.hear()
            if not isinstance(began, Began):
                began = seat.replace(lambda again, seat=seat: self._orders(seat, again))  # type: ignore[misc]
            self._take_down(seat, given, began)
        self._begun(np.ones(number, bool))

    def _next(self, seat: Seat) -> Played:
        """The next step of a seat's environments. Where its actor has died, none was taken: all of its episodes are dropped."""
        message = seat.hear()
        if isinstance(message, Played):
            return message
        began = seat.replace(lambda again: self._orders(seat, again))
        number = seat.rows.stop - seat.rows.start
        obs: Observations = {key: value[seat.rows] for key, value in self.obs.items()}
        yes = np.ones(number, bool)
        terms = None if self.envs.terms is None else np.zeros((number, len(self.envs.terms.terms)), np.float32)
        result = StepResult(obs, np.zeros(number, np.float32), ~yes, yes, [{}] * number, terms, yes)
        action, log_prob = no_actions(self.envs.spec.action, number), np.zeros(number, np.float32)
        return Played(self.updates(), action, log_prob, ~yes, result, began)

    def _orders(self, seat: Seat, again: int = 0) -> Orders:
        seed = np.random.SeedSequence((self.config.seed, self.steps, seat.number, again)).generate_state(1)
        assert self.envs.again is not None
        return Orders(
            self.config,
            self.envs.again,
            (seat.rows.start, seat.rows.stop),
            list(self._given[seat.number]),
            self.steps,
            self.envs.num_envs,
            int(seed[0]),
            self.config.acting.ahead,
        )

    def learned(self) -> None:
        """Publish the weights after every `acting.publish_every` updates."""
        if self.transport is not None and self.updates() % self.config.acting.publish_every == 0:
            self.transport.publish(self.agent, self.updates())

    def metrics(self) -> dict[str, float]:
        """How many updates old the weights were by the time that their actions came to be learned from: mean and most."""
        found = self._figures.pop() | {
            "acting/updates_behind_most": float(self._furthest),
            "acting/actors_replaced": float(sum(seat.replaced for seat in self.seats)),
        }
        self._furthest = 0
        return found

    def close(self) -> None:
        """End the actors."""
        for seat in self.seats:
            seat.hang_up()
        for seat in self.seats:
            seat.end()
        if self.transport is not None:
            self.transport.close()


def make_transport(config: RunConfig, agent: Agent) -> Transport:
    """What `acting.backend` names; its packages are imported only then.

    Raises:
        UserError: it has no room for the weights, or the Ray cluster does not answer or is too small.
    """
    if config.acting.backend == "ray":
        from agent.acting.cluster import RayTransport

        return RayTransport(config.acting, agent)
    return Processes(agent)


def _together(parts: Sequence[StepResult]) -> StepResult:
    """One step of all environments from those of each actor's."""
    dropped = None
    if any(part.dropped is not None for part in parts):
        dropped = np.concatenate([np.zeros(len(part.reward), bool) if part.dropped is None else part.dropped for part in parts])
    terms = [part.terms for part in parts if part.terms is not None]
    return StepResult(
        obs={key: np.concatenate([part.obs[key] for part in parts]) for key in parts[0].obs},
        reward=np.concatenate([part.reward for part in parts]),
        terminated=np.concatenate([part.terminated for part in parts]),
        truncated=np.concatenate([part.truncated for part in parts]),
        infos=[info for part in parts for info in part.infos],
        terms=np.concatenate(terms) if terms else None,
        dropped=dropped,
    )
