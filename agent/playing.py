"""Whole episodes of a trained agent in real environments, kept as the replay keeps them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from agent.agent import Agent
from agent.evaluation import seeded
from agent.rewards import LearnedReward
from agent.sequences import Episode
from envs import EnvConfig, TaskSpace, make_envs

PATIENCE = 10_000  # env steps that an episode is followed for


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
) -> Episode:
    """One episode of the agent on one task, on a layout of `split`; its rewards are those that the agent learns from.

    One that goes on for `PATIENCE` steps, or till `stopped` says so, is left there, neither terminated nor truncated.

    With the learner's discount `gamma` they hold the terms of `env.rewards`, bonuses of counts apart: those are of the run.

    Args:
        mode: of the policy, `sample`, `greedy` or `random`.
        random: share of the steps whose action is drawn uniformly in its place.
    """
    envs = make_envs(config, tasks, 1, split, gamma)
    learned = LearnedReward(config, envs)
    rng = np.random.default_rng((seed, 3))
    try:
        obs = envs.reset([tasks[task_id].with_seed(seed)])
        state, first = agent.initial_state(1), np.ones(1, bool)
        observed, actions, log_probs, rewards = [obs], [], [], []
        with seeded(seed, agent.device):
            while True:
                action, log_prob, state = agent.act(obs, first, state, "random" if rng.random() < random else mode)
                step = envs.step(action)
                obs, first = step.obs, np.zeros(1, bool)
                observed.append(obs)
                actions.append(action[0])
                log_probs.append(float(log_prob[0]))
                rewards.append(float(learned.replayed(step)[0]))
                if step.terminated[0] or step.truncated[0] or len(actions) >= PATIENCE or stopped():
                    break
    finally:
        envs.close()
    return Episode(
        obs={key: np.stack([o[key][0] for o in observed]) for key in obs},
        action=np.array(actions),
        log_prob=np.array(log_probs, np.float32),
        reward=np.array(rewards, np.float32),
        terminated=bool(step.terminated[0]),
        truncated=bool(step.truncated[0]),
        task=task_id,
        seed=seed,
        env_index=0,
        end_step=0,
    )
