"""How wrong the critic was about an episode: what prioritised level replay scores levels by."""

from __future__ import annotations

import numpy as np

from agent.agent import Agent
from agent.foresight import Foresight, discounted, foresee
from agent.sequences import Episode


def value_errors(foresight: Foresight, gamma: float, lmbda: float) -> dict[str, float]:
    """`value_error`, mean size of the generalised advantages of an episode, and `regret`, the mean of their positive parts (Jiang
    et al. 2021, 2021b). Rewards are those that the critic learns from: news and disagreement may be part of them."""
    reward, value, returns = foresight.paid, foresight.value, foresight.returns
    delta = np.append(reward[:-1] + gamma * value[1:] - value[:-1], returns[-1] - value[-1])  # the last return is bootstrapped
    advantage = discounted(delta, 0.0, gamma * lmbda)
    return {"value_error": float(np.abs(advantage).mean()), "regret": float(advantage.clip(min=0).mean())}


def episode_signals(agent: Agent, episode: Episode, gamma: float, lmbda: float, discovery: float = 0.0) -> dict[str, float]:
    """`value_errors` of an episode that has just ended, under the present model and critic."""
    return value_errors(foresee(agent, episode, gamma, discovery), gamma, lmbda)
