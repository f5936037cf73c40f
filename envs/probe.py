"""A short look at real observations, to decide what a space alone does not tell."""

from __future__ import annotations

from typing import Any

import gymnasium as gym

from envs.spaces.leaves import leaves

PROBE_EPISODES = 2
PROBE_STEPS = 24  # a probe episode at most


def probe(env: gym.Env[Any, Any], seed: int = 0) -> dict[str, list[list[Any]]]:
    """Play a few random steps and keep what each leaf showed: leaf key -> episodes -> raw values. The same for the same seed."""
    found = leaves(env.observation_space)
    samples: dict[str, list[list[Any]]] = {leaf.key: [] for leaf in found}
    env.action_space.seed(seed)
    for episode in range(PROBE_EPISODES):
        observation, _ = env.reset(seed=seed + episode)
        for leaf in found:
            samples[leaf.key].append([leaf.value(observation)])
        for _ in range(PROBE_STEPS):
            observation, _, terminated, truncated, _ = env.step(env.action_space.sample())
            for leaf in found:
                samples[leaf.key][-1].append(leaf.value(observation))
            if terminated or truncated:
                break
    return samples
