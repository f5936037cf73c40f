"""Playing: the agent acts in real environments, the curriculum picks the tasks, the replay takes it all in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from agent.agent import Agent, AgentState
from agent.metrics import Averager
from agent.replay import OpenEpisode, Replay
from agent.rewards import LearnedReward
from agent.sequences import Episode
from curriculum import Curriculum
from envs import StepResult, SuccessRule, TaskVectorEnv
from envs.infos import reported
from envs.spaces.actions import no_actions
from envs.tasks import Outcome, Task


class Collector:
    """Steps B environments with the agent. `score` is always the environment's own reward, whatever the agent learns from.

    Attributes:
        steps: environment steps taken in the whole run, by all of its processes.
        processes: that step as many environments each.
        idle: called at a step with which no episode ended.
        playing: the task each environment is on.
        plan: let the agent's planner decide.
        assess: what the curriculum is told of every episode that ends, but for those that are kept out of training.
        infos: means of the info entries `report` over episodes ended, `train/info/<key>/<task>`.
    """

    def __init__(
        self,
        envs: TaskVectorEnv,
        agent: Agent,
        replay: Replay,
        curriculum: Curriculum,
        rule: SuccessRule,
        reward: LearnedReward,
        rng: np.random.Generator,
        report: Sequence[str] = (),
        plan: bool = False,
    ) -> None:
        self.envs, self.agent, self.replay, self.curriculum = envs, agent, replay, curriculum
        self.rule, self.reward, self.rng, self.report, self.plan = rule, reward, rng, report, plan
        self._known: set[str] = set()  # of `report`, what some episode has had
        self.infos = Averager()
        self.assess: Callable[[Episode], dict[str, float]] | None = None
        self.index = {task: i for i, task in enumerate(envs.tasks.ids)}
        self.steps, self.processes = 0, 1
        self.idle: Callable[[], None] = lambda: None
        self.playing: list[Task] = []
        self.first = np.ones(envs.num_envs, bool)
        self.score = np.zeros(envs.num_envs)
        self.length = np.zeros(envs.num_envs, np.int64)
        self.state: AgentState = agent.initial_state(envs.num_envs, exploring=True)
        self.obs: dict[str, np.ndarray] = {}

    def start(self) -> None:
        """Begin an episode in every environment."""
        self.playing = [Task("")] * self.envs.num_envs
        self._begin(np.ones(self.envs.num_envs, bool))

    def step(self, mode: str = "sample") -> list[Outcome]:
        """One step of every environment; answers the episodes that ended with it, and begins the next ones."""
        action, log_prob, self.state = self.agent.act(self.obs, self.first, self.state, mode, grow=True, plan=self.plan)
        self.replay.act(action, log_prob)
        return self._arrived(self.envs.step(action), self.agent.practice(self.state))

    def _arrived(self, result: StepResult, practice: np.ndarray) -> list[Outcome]:
        """Take in what a step brought in episodes some of which are `practice`; answers those that ended with it, and begins the
        next ones."""
        self.replay.arrive(result.obs, self.reward(result), result.terminated, result.truncated, result.dropped)
        self.obs = result.obs
        self.steps += self.envs.num_envs * self.processes
        self.score += result.reward
        self.length += 1
        self.first = result.terminated | result.truncated
        if not self.first.any():
            self.idle()
            return []
        outcomes = []
        whole = self.first if result.dropped is None else self.first & ~result.dropped  # of what broke down nothing is known
        for i in np.flatnonzero(whole).tolist():
            success = self.rule.judge(self.score[i], float(result.reward[i]), bool(result.terminated[i]), result.infos[i])
            numbers = reported(result.infos[i], self.report, self._known)
            self.infos.add({f"train/info/{key}/{self.playing[i].id}": value for key, value in numbers.items()})
            task, seed = self.playing[i], int(self.playing[i].seed or 0)
            told: dict[str, float] = {}
            if self.assess is not None and not self.replay.holdout.takes(task.id, seed, self.replay.steps):
                told = self.assess(self.replay.finished[i])
            figures = float(self.score[i]), success, int(self.length[i]), self.steps, seed
            outcomes.append(Outcome(task.id, *figures, task.params.get("numbers"), told, bool(practice[i])))
        self.reward.finish(whole)
        self.reward.restart(self.first)
        self.curriculum.update(outcomes)
        self._begin(self.first)
        return outcomes

    def resume(
        self, open_episodes: list[OpenEpisode], steps: int, state: AgentState, numbers: Sequence[Mapping[str, float] | None] = ()
    ) -> list[str]:
        """Take up episodes that were under way by replaying their seeds and actions; what does not come out the same starts anew.

        `numbers` are those of the task box that every environment was playing with, if any.

        Returns:
            What was done about each environment that could not be taken up.
        """
        self.steps, self.state = steps, state
        self.playing = [Task("")] * self.envs.num_envs
        episodes = {episode.env_index: episode for episode in open_episodes}
        tasks: list[Task | None] = [None] * self.envs.num_envs
        for i, episode in episodes.items():
            task = self.envs.tasks.tasks[episode.task].with_seed(episode.seed)
            if i < len(numbers) and numbers[i] is not None:
                task = replace(task, params={**task.params, "numbers": dict(numbers[i] or {})})
            self.playing[i] = tasks[i] = task
        spare = [i for i in range(self.envs.num_envs) if i not in episodes]
        for i, task in zip(spare, self.curriculum.sample(len(spare), self.rng), strict=True):
            tasks[i] = task
        obs, failed = self._replay_actions(tasks, episodes)
        notes = [f"environment {i} did not come out the same when replayed: its episode starts anew" for i in sorted(failed)]
        self.obs = obs
        taken = [episode for i, episode in episodes.items() if i not in failed]
        self.replay.load_open(taken)
        for episode in taken:
            i = episode.env_index
            self.first[i] = len(episode) == 0
            self.length[i] = len(episode)
        fresh = np.ones(self.envs.num_envs, bool)
        fresh[[episode.env_index for episode in taken]] = False
        if fresh.any():
            self.reward.restart(fresh)
            self._begin(fresh)
        else:
            self.idle()
        return notes

    def _replay_actions(
        self, tasks: list[Task | None], episodes: dict[int, OpenEpisode]
    ) -> tuple[dict[str, np.ndarray], set[int]]:
        """Play every episode's actions. All environments step together, so each begins when as many steps are left as its
        episode has, and all end together."""
        total = max((len(episode) for episode in episodes.values()), default=0)
        waits = {i: total - len(episode) for i, episode in episodes.items()}  # steps before each begins
        obs = self.envs.reset(tasks)
        failed: set[int] = set()
        self.score[:] = 0.0
        ended = np.zeros(self.envs.num_envs, bool)
        for step in range(total + 1):
            failed |= {i for i, wait in waits.items() if step > wait and ended[i]}
            begins = np.array([waits.get(i) == step for i in range(self.envs.num_envs)])
            if step and (begins | ended).any():
                obs = self.envs.reset(tasks, begins | ended)
            under_way = {i: step - wait for i, wait in waits.items() if step >= wait and i not in failed}
            for i, t in under_way.items():
                if any(not np.array_equal(obs[key][i], value[t]) for key, value in episodes[i].obs.items()):
                    failed.add(i)
            if step == total:
                break
            action = no_actions(self.envs.spec.action, self.envs.num_envs)
            for i, t in under_way.items():
                action[i] = episodes[i].action[t]
            result = self.envs.step(action)
            reward = self.reward.replayed(result)
            for i, t in under_way.items():
                self.score[i] += result.reward[i]
                if self.reward.repeatable and reward[i] != episodes[i].reward[t]:
                    failed.add(i)
            obs, ended = result.obs, result.terminated | result.truncated
        return obs, failed

    def _begin(self, mask: np.ndarray) -> None:
        which = np.flatnonzero(mask)
        tasks: list[Task | None] = [None] * self.envs.num_envs
        for i, task in zip(which.tolist(), self.curriculum.sample(len(which), self.rng), strict=True):
            tasks[i] = self.playing[i] = task
        self.obs = self.envs.reset(tasks, mask)
        self._begun(mask)

    def _begun(self, mask: np.ndarray) -> None:
        """Take down the episodes that have just begun: `playing` and `obs` are theirs."""
        which = np.flatnonzero(mask)
        self.score[mask] = 0.0
        self.length[mask] = 0
        self.first = self.first & ~mask | mask
        self.replay.start(
            which,
            {key: value[which] for key, value in self.obs.items()},
            np.array([self.index[self.playing[i].id] for i in which]),
            np.array([self.playing[i].seed for i in which]),
            np.array([self.playing[i].learn for i in which]),
        )

    def open_episodes(self) -> list[OpenEpisode]:
        """The episodes under way that `resume` can take up."""
        return self.replay.open_episodes()

    def learned(self) -> None:
        """To be called after every update."""

    def metrics(self) -> dict[str, float]:
        """Figures of acting since the last call."""
        return {}

    def close(self) -> None:
        """End what acting has started, environments apart."""

    def current_task(self) -> str:
        """The task that most environments are playing."""
        ids = [task.id for task in self.playing]
        return max(set(ids), key=ids.count)
