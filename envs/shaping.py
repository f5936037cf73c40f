"""The wrapper that measures reward terms where raw observations and infos are at hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np

from envs.errors import UserError
from envs.faults import FaultError
from envs.guards import plain_reward
from envs.infos import entries, lookup, number
from envs.rewards import RewardTerm, RewardTerms
from envs.spaces.leaves import leaves

NOTHING_FOLLOWS = 0.0  # the potential of a terminated state; one that was only cut off keeps its own

Measure = Callable[[Any, Mapping[str, Any]], float]  # raw observation, info -> a number of the state


class TermRecorder(gym.Wrapper[Any, Any, Any, Any]):
    """Measures every term at every step. The environment's reward passes through as it is.

    Terms of kind `count` stay 0 here: visits are counted over all environments of a run, where they come together.

    Attributes:
        values: float32 (terms,), of the last step, before weighting.
    """

    def __init__(self, env: gym.Env[Any, Any], terms: RewardTerms) -> None:
        super().__init__(env)
        self.values = np.zeros(len(terms.terms), np.float32)
        self._terms = terms
        self._measures = [measure_of(term, env) for term in terms.terms]
        self._before = [0.0] * len(terms.terms)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        self.values = np.zeros(len(self._measures), np.float32)
        for i, (term, measure) in enumerate(zip(self._terms.terms, self._measures, strict=True)):
            if measure is not None and (term.change or term.kind == "potential"):
                self._before[i] = measure(observation, info)
        return observation, info

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        values = np.zeros(len(self._measures), np.float32)
        for i, (term, measure) in enumerate(zip(self._terms.terms, self._measures, strict=True)):
            if term.kind == "environment":
                values[i] = plain_reward(reward)
            elif term.kind == "potential":
                assert measure is not None
                potential = NOTHING_FOLLOWS if terminated else measure(observation, info)
                values[i] = potential_difference(self._before[i], potential, self._terms.gamma)
                self._before[i] = potential
            elif measure is not None:
                value = measure(observation, info)
                values[i] = value - self._before[i] if term.change else value
                self._before[i] = value
        self.values = values
        return observation, reward, terminated, truncated, info


def potential_difference(before: float, after: float, gamma: float) -> float:
    """What a step from a state of potential `before` to one of `after` is paid (Ng, Harada & Russell 1999).

    Discounted by `gamma` over an episode it adds up to minus the first potential, whatever is done, so no policy gains by it.
    """
    return gamma * after - before


def measure_of(term: RewardTerm, env: gym.Env[Any, Any]) -> Measure | None:
    """A function from a raw observation and its info to the number that a term looks at; None where it looks at neither.

    Raises:
        UserError: what it names is not there. The function itself raises it for a value that is no number; for NaN and infinity,
            and for an observation that is not what its space says, it raises a `FaultError`.
    """
    if term.source == "info":
        return _InfoEntry(term)
    if term.source == "observation":
        return _Element(term, env)
    return _Function(term) if term.source == "function" else None


class _InfoEntry:
    def __init__(self, term: RewardTerm) -> None:
        self._term = term

    def __call__(self, observation: Any, info: Mapping[str, Any]) -> float:
        term = self._term
        if not isinstance(info, Mapping):  # the environment's fault
            raise TypeError(f"an info of type {type(info).__name__}")
        try:
            value = lookup(info, term.key)
        except KeyError:
            if term.default is None:
                raise UserError(
                    f"env.rewards.{term.name}: an info has no {term.key}, only {entries(info)}; "
                    f"choose another entry, or give env.rewards.{term.name}.default=0 where it is missing at times."
                ) from None
            value = term.default
        return _finite(term, value)


class _Element:
    def __init__(self, term: RewardTerm, env: gym.Env[Any, Any]) -> None:
        found = {leaf.key: leaf for leaf in leaves(env.observation_space)}
        if term.key not in found:
            raise UserError(
                f"env.rewards.{term.name} names `{term.key}`, which is not observed; observed are: {', '.join(found)}."
            )
        self._term, self._leaf = term, found[term.key]
        shape = self._leaf.space.shape
        if shape is None:
            raise UserError(f"env.rewards.{term.name}: `{term.key}` holds no numbers; look at something else.")
        try:
            _number(term, np.zeros(shape)[term.index])
        except IndexError:
            raise UserError(
                f"env.rewards.{term.name}.index={list(term.index)} is outside of `{term.key}`, whose shape is {shape}."
            ) from None
        self._shape = shape

    def __call__(self, observation: Any, info: Mapping[str, Any]) -> float:
        term, value = self._term, self._leaf.value_if_there(observation)
        if value is None and term.default is not None:
            return term.default
        if value is None:
            raise FaultError("outside_space", f"`{term.key}` is missing; env.rewards.{term.name}.default=0 lets it be")
        try:
            element = float(np.asarray(value).reshape(self._shape)[term.index])
        except (TypeError, ValueError) as error:
            raise FaultError("outside_space", f"`{term.key}`: {error}") from error
        return _finite(term, element)


class _Function:
    def __init__(self, term: RewardTerm) -> None:
        module, _, name = term.key.partition(":")
        try:
            function = getattr(import_module(module), name)
        except Exception as error:  # a module may raise anything on import
            reason = f"{type(error).__name__}: {error}"
            raise UserError(
                f"env.rewards.{term.name}.function={term.key} cannot be found ({reason}); write module:function."
            ) from error
        if not callable(function):
            raise UserError(f"env.rewards.{term.name}.function={term.key} is no function.")
        self._term, self._function = term, function

    def __call__(self, observation: Any, info: Mapping[str, Any]) -> float:
        term = self._term
        try:
            value = self._function(observation, info)
        except Exception as error:  # the user's own code may raise anything
            if not isinstance(info, Mapping):  # the environment's fault
                raise
            reason = f"{type(error).__name__}: {error}"
            raise UserError(f"env.rewards.{term.name}: the function {term.key} raises {reason}; mend it.") from error
        return _finite(term, value)


def _finite(term: RewardTerm, value: Any) -> float:
    """The value as a float.

    Raises:
        FaultError: it is NaN or infinite.
        UserError: it is no number.
    """
    found = _number(term, value)
    if not np.isfinite(found):
        raise FaultError("not_finite", f"{term.key} is {found}, which env.rewards.{term.name} looks at")
    return found


def _number(term: RewardTerm, value: Any) -> float:
    found = number(value)
    if found is None:
        shape = np.shape(value)
        way_out = f"give env.rewards.{term.name}.index" if shape else "look at something else"
        what = f"an array of shape {shape}" if shape else f"{value!r}"
        raise UserError(f"env.rewards.{term.name}: {term.key} is {what}, which is no number; {way_out}.")
    return found
