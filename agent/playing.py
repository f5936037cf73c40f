"""Whole episodes of a trained agent in real environments, kept as the replay keeps them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from agent.agent import Agent
from agent.evaluation import seeded
from agent.rewards import LearnedReward
from agent.sequences import Episode
from envs import EnvConfig, StepResult, TaskSpace, TaskVectorEnv, make_envs
from envs.splits import next_seed

PATIENCE = 10_000  # env steps that an episode is followed for


@dataclass
class Recording:
    """An episode under way in one of several environments.

    Attributes:
        number: which of the episodes asked for it is; None: none, it only keeps the environment going.
        info: what its last step came with.
    """

    number: int | None = None
    seed: int = 0
    obs: list[dict[str, np.ndarray]] = field(default_factory=list)
    action: list[np.ndarray] = field(default_factory=list)
    log_prob: list[float] = field(default_factory=list)
    reward: list[float] = field(default_factory=list)
    info: dict[str, Any] = field(default_factory=dict)

    def episode(self, task: str, terminated: bool, truncated: bool) -> Episode:
        return Episode(
            obs={key: np.stack([obs[key] for obs in self.obs]) for key in self.obs[0]},
            action=np.array(self.action),
            log_prob=np.array(self.log_prob, np.float32),
            reward=np.array(self.reward, np.float32),
            terminated=terminated,
            truncated=truncated,
            task=task,
            seed=self.seed,
            env_index=0,
            end_step=0,
        )


def play_episode(
    agent: Agent,
    config: EnvConfig,
    tasks: TaskSpace,
    task_id: str,
    split: str,
    seed: int,
    gamma: float | None = None,
    stopped: Callable[[], bool] = lambda: False,
    mode: str = "sample",
    random: float = 0.0,
    longest: int | None = None,
) -> Episode:
    """One episode: see `play_episodes`."""
    return play_episodes(agent, config, tasks, task_id, split, seed, 1, gamma, stopped, mode, random, longest)[0][0]


def play_episodes(
    agent: Agent,
    config: EnvConfig,
    tasks: TaskSpace,
    task_id: str,
    split: str,
    seed: int,
    number: int,
    gamma: float | None = None,
    stopped: Callable[[], bool] = lambda: False,
    mode: str = "sample",
    random: float = 0.0,
    longest: int | None = None,
) -> list[tuple[Episode, dict[str, Any]]]:
    """`number` episodes of the agent on one task, on layouts of `split`, with the info of their last step.

    The policy decides, without a planner: these episodes are compared with what the model foretells of it.

    Their rewards are those that the agent learns from; with the learner's discount `gamma` they hold the terms of `env.rewards`,
    bonuses of counts apart: those are of the run. An episode that goes on for `longest` steps (if None, `PATIENCE`), or till
    `stopped` says so, is left there, neither terminated nor truncated.

    Args:
        seed: of the first episode, the others count on from it; and of all that is drawn.
        mode: of the policy, `sample`, `greedy` or `random`.
        random: share of the steps at which actions are drawn uniformly in its place.
    """
    envs = make_envs(config, tasks, min(config.num_envs, number), split, gamma)
    rng = np.random.default_rng((seed, 3))
    done: dict[int, tuple[Episode, dict[str, Any]]] = {}
    try:
        learned = LearnedReward(config, envs)
        tape = [Recording() for _ in range(envs.num_envs)]
        waiting = [(i, seed + i) for i in range(number)]
        first = np.ones(envs.num_envs, bool)
        obs: dict[str, np.ndarray] = {}
        state = agent.initial_state(envs.num_envs)
        with seeded(seed, agent.device):
            while True:
                if first.any():
                    obs = _begin(envs, tasks, task_id, first, tape, waiting)
                chosen = "random" if rng.random() < random else mode
                action, log_prob, state = agent.act(obs, first, state, chosen, plan=False)
                step = envs.step(action)
                obs, reward = step.obs, learned.replayed(step)
                stop = stopped()  # asked once a step: it may change its mind at any moment
                first = _record(tape, step, action, log_prob, reward, PATIENCE if longest is None else longest, stop)
                for i in np.flatnonzero(first).tolist():
                    tape_number = tape[i].number
                    if tape_number is None:
                        continue
                    if step.dropped is not None and step.dropped[i]:
                        waiting.append((tape_number, next_seed(tape[i].seed)))  # the same layout would break down again
                        continue
                    ended = tape[i].episode(task_id, bool(step.terminated[i]), bool(step.truncated[i]))
                    done[tape_number] = (ended, tape[i].info)
                if len(done) == number or stop:
                    return [done[i] for i in sorted(done)]
    finally:
        envs.close()


def _begin(
    envs: TaskVectorEnv,
    tasks: TaskSpace,
    task_id: str,
    first: np.ndarray,
    tape: list[Recording],
    waiting: list[tuple[int, int]],
) -> dict[str, np.ndarray]:
    """Reset the environments of `first` for the next episodes (number, seed) that wait; those that get none idle along."""
    chosen = []
    for i, begins in enumerate(first):
        if begins:
            tape[i] = Recording(*waiting.pop(0)) if waiting else Recording(None, next_seed(tape[i].seed))
        chosen.append(tasks[task_id].with_seed(tape[i].seed) if begins else None)
    obs = envs.reset(chosen, first)
    for i in np.flatnonzero(first).tolist():
        tape[i].obs.append({key: value[i].copy() for key, value in obs.items()})
    return obs


def _record(
    tape: list[Recording],
    step: StepResult,
    action: np.ndarray,
    log_prob: np.ndarray,
    reward: np.ndarray,
    longest: int,
    stopped: bool,
) -> np.ndarray:
    """Take in one step of every environment; answers whose episodes are over (E,)."""
    for i, recording in enumerate(tape):
        recording.obs.append({key: value[i].copy() for key, value in step.obs.items()})
        recording.action.append(action[i])
        recording.log_prob.append(float(log_prob[i]))
        recording.reward.append(float(reward[i]))
        recording.info = step.infos[i]
    lasting = np.array([len(recording.action) >= longest for recording in tape])
    over = step.terminated | step.truncated | lasting | stopped
    return np.asarray(over if step.dropped is None else over | step.dropped)
