"""A short look at real observations, to decide what a space alone does not tell."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import gymnasium as gym

from envs.deadline import Deadline, TimeUp
from envs.errors import UserError
from envs.spaces.leaves import leaves

PROBE_EPISODES = 2
PROBE_STEPS = 24  # a probe episode at most
STEPS_A_PROBE = PROBE_EPISODES * (PROBE_STEPS + 10)  # resets counted as ten steps


def probe(
    env: gym.Env[Any, Any], name: str = "", step_timeout: float = 0.0, optional: Collection[str] = (), seed: int = 0
) -> dict[str, list[list[Any]]]:
    """Play a few random steps and keep what each leaf showed: leaf key -> episodes -> raw values. The same for the same seed.

    Of the leaves `optional` what was missing is left out. Where the environment breaks down in the middle, what it showed until
    then has to do.

    Raises:
        UserError: it shows nothing at all.
    """
    samples: dict[str, list[list[Any]]] = {leaf.key: [] for leaf in leaves(env.observation_space)}
    try:
        deadline = Deadline(STEPS_A_PROBE * step_timeout)
        with deadline:
            deadline.start()
            _play(env, seed, samples, optional)
    except (Exception, TimeUp) as error:  # an environment may raise anything
        if not all(any(episodes) for key, episodes in samples.items() if key not in optional):
            what = "takes too long" if isinstance(error, TimeUp) else f"raises {type(error).__name__}: {error}"
            raise UserError(
                f"environment {name} {what} before it shows an observation: mend it, or put a wrapper round it (env.wrappers)."
            ) from error
    return samples


def _play(env: gym.Env[Any, Any], seed: int, samples: dict[str, list[list[Any]]], optional: Collection[str]) -> None:
    found = leaves(env.observation_space)

    def keep(observation: Any) -> None:
        for leaf in found:
            if leaf.key not in optional:
                samples[leaf.key][-1].append(leaf.value(observation))
            elif (value := leaf.value_if_there(observation)) is not None:
                samples[leaf.key][-1].append(value)

    env.action_space.seed(seed)
    for episode in range(PROBE_EPISODES):
        observation, _ = env.reset(seed=seed + episode)
        for leaf in found:
            samples[leaf.key].append([])
        keep(observation)
        for _ in range(PROBE_STEPS):
            observation, _, terminated, truncated, _ = env.step(env.action_space.sample())
            keep(observation)
            if terminated or truncated:
                break
