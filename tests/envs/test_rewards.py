"""Reward terms: every kind against an environment known by heart, and what is wrong with one in one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from envs import EnvConfig, UserError, make_envs, make_task_space
from envs.building import build_environment
from envs.rewards import RewardTerms
from envs.shaping import NOTHING_FOLLOWS, TermRecorder, potential_difference

LINE = "tests.envs.odd:Line-v0"
GAMMA = 0.5


def recorder(env_id: str, terms: dict[str, Any], **kwargs: Any) -> TermRecorder:
    config = EnvConfig(id=env_id, kwargs=kwargs, rewards=terms)
    parsed = RewardTerms.parse(terms, GAMMA)
    assert parsed is not None
    return TermRecorder(build_environment(make_task_space(config).hardest, config), parsed)


def played(env: TermRecorder, actions: list[int], seed: int = 0) -> list[list[float]]:
    """Every term over an episode: lists [term][step]."""
    env.reset(seed=seed)
    values = []
    for action in actions:
        env.step(action)
        values.append(env.values.tolist())
    return np.array(values).T.tolist()


def middle(observation: np.ndarray, info: Mapping[str, Any]) -> float:
    """A potential for Line: highest after two moves."""
    return -abs(float(observation[0]) - 2)


def failing(observation: np.ndarray, info: Mapping[str, Any]) -> float:
    return float(info["not there"])


def test_what_an_environment_does_while_its_terms_are_tried_is_let_pass():
    terms = {"right": {"kind": "observation", "key": "x", "index": 0}}
    for fault in ("raise", "list"):
        envs_with(terms, "tests.envs.bad:Bad-v0", kwargs={"fault": fault, "at": 1, "odds": 1}).close()


FOUND = {"raise": "raised", "nan": "not_finite", "words": "outside_space", "shape": "outside_space", "no_reward": "not_finite"}
LOOKS_AT_X = {
    "an observation's element": {"kind": "observation", "key": "x", "index": 1},
    "its change": {"kind": "observation", "key": "x", "index": 1, "change": True},
    "a potential of it": {"kind": "potential", "observation": "x", "index": 1},
}


@pytest.mark.parametrize(
    ("term", "fault", "vectorization"),
    [*((term, fault, "sync") for term in LOOKS_AT_X for fault in FOUND), ("its change", "nan", "async")],
)
def test_what_a_term_looks_at_breaks_down_as_an_environment_does(term: str, fault: str, vectorization: str):
    terms = {"x": LOOKS_AT_X[term], "task": {"kind": "environment"}}
    envs = envs_with(terms, "tests.envs.bad:Bad-v0", kwargs={"fault": fault}, vectorization=vectorization, max_faults=1)
    good, bad = (envs.tasks.hardest.with_seed(seed) for seed in (0, 99))
    envs.reset([good, bad])
    for _ in range(3):
        result = envs.step(np.zeros(2, np.int64))
    assert result.dropped is not None and result.dropped.tolist() == [False, True]
    assert result.terms is not None and np.isfinite(result.terms).all()
    assert envs.faults.metrics() == {f"env/faults/{FOUND[fault]}": 1.0}
    envs.reset([None, bad], result.dropped)
    for _ in range(2):
        envs.step(np.zeros(2, np.int64))
    with pytest.raises(UserError, match=r"env\.max_faults=1 such fault has been let pass already"):
        envs.step(np.zeros(2, np.int64))
    envs.close()


@pytest.mark.parametrize(
    "term",
    [
        {"kind": "info", "key": "level"},
        {"kind": "potential", "info": "level"},
        {"kind": "potential", "function": f"{__name__}:logarithm"},
    ],
)
def test_a_number_of_an_info_or_a_function_that_is_not_finite_costs_the_episode_too(term: dict[str, Any]):
    envs = envs_with({"x": term}, f"{__name__}:Sinking-v0", max_faults=1)
    envs.reset([envs.tasks.hardest.with_seed(seed) for seed in (0, 3)])
    envs.step(np.zeros(2, np.int64))
    result = envs.step(np.zeros(2, np.int64))  # the first one is at level 0 now
    assert result.dropped is not None and result.dropped.tolist() == [True, False]
    assert envs.faults.metrics() == {"env/faults/not_finite": 1.0}


class Sinking(gym.Env[Any, Any]):
    """Its level is 2 + the seed, and falls by 1 a step: `level` is its inverse in infos, NaN at 0."""

    def __init__(self) -> None:
        self.observation_space, self.action_space = gym.spaces.Box(-9, 9, (1,), np.float32), gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self._level = 2.0 + (seed or 0)
        return self._observe()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._level -= 1
        observation, info = self._observe()
        return observation, 0.0, False, False, info

    def _observe(self) -> tuple[Any, dict[str, Any]]:
        return np.full(1, self._level, np.float32), {"level": 1 / self._level if self._level else np.nan}


def logarithm(observation: np.ndarray, info: Mapping[str, Any]) -> float:
    with np.errstate(divide="ignore"):
        return float(np.log(observation[0]))


gym.register("Sinking-v0", entry_point=f"{__name__}:Sinking")


def test_the_environments_reward_and_an_observations_element_are_told_apart():
    terms = {
        "task": {"kind": "environment"},
        "place": {"kind": "observation", "key": "observation", "index": 1},
        "progress": {"kind": "observation", "key": "observation", "index": [0], "change": True},
    }
    assert played(recorder(LINE, terms, goal=3, size=2), [1, 0, 1, 1]) == [[0, 0, 0, 1], [1, 1, 2, 3], [1, 0, 1, 1]]


def test_the_first_change_is_from_where_the_episode_began():
    terms = {"angle": {"kind": "observation", "key": "observation", "index": 2, "change": True}}
    env = recorder("CartPole-v1", terms)
    first, _ = env.reset(seed=3)
    second, *_ = env.step(1)
    assert env.values == pytest.approx([float(second[2] - first[2])])


def test_an_info_entry_may_be_missing_where_a_default_is_given():
    terms = {
        "steps": {"kind": "info", "key": "steps"},
        "change": {"kind": "info", "key": "steps", "change": True, "default": 0},
    }
    assert played(recorder(LINE, terms), [0, 0, 0]) == [[1, 2, 3], [1, 1, 1]]


def test_an_info_entry_of_a_real_environment_may_be_an_element_deep_inside():
    class Deep(gym.Wrapper[Any, Any, Any, Any]):
        def step(self, action: Any) -> Any:
            *rest, info = self.env.step(action)
            return *rest, {"deep": {"down": np.array([7])}, "a.b": True, **info}

    parsed = RewardTerms.parse({"x": {"kind": "info", "key": "deep.down"}, "y": {"kind": "info", "key": "a.b"}}, GAMMA)
    assert parsed is not None
    env = TermRecorder(Deep(gym.make("FrozenLake-v1")), parsed)
    assert played(env, [0]) == [[7], [1]]
    assert played(recorder("FrozenLake-v1", {"p": {"kind": "info", "key": "prob"}}, is_slippery=False), [0, 1]) == [[1, 1]]


def test_counts_are_left_to_the_run():
    assert played(recorder(LINE, {"new": {"kind": "count", "key": "observation"}}), [1, 1]) == [[0, 0]]


@pytest.mark.parametrize(
    "source",
    [{"observation": "observation", "index": 0}, {"function": f"{__name__}:middle"}, {"info": "steps", "default": 0}],
    ids=lambda source: next(iter(source)),
)
@pytest.mark.parametrize("actions", [[1, 1, 1], [0, 1, 0, 0, 1, 1], [1, 0, 1, 0, 0, 0, 1]], ids=["straight", "late", "slow"])
def test_a_potentials_discounted_sum_is_minus_the_first_potential_whatever_path_leads_to_the_end(source: Any, actions: list[int]):
    env = recorder(LINE, {"shaping": {"kind": "potential", **source}}, goal=3, size=1)
    (rewards,) = played(env, actions)
    first = -2.0 if "function" in source else 0.0
    assert sum(GAMMA**t * reward for t, reward in enumerate(rewards)) == pytest.approx(-first)


def test_a_potential_worked_by_hand():
    shaping = {"shaping": {"kind": "potential", "observation": "observation", "index": 0}}
    # Places 0 1 2 3, the last one terminal: 0.5*1 - 0, 0.5*2 - 1, 0 - 2.
    assert played(recorder(LINE, shaping, goal=3, size=1), [1, 1, 1]) == [[0.5, 0.0, -2.0]]


def test_an_episode_that_is_cut_off_keeps_its_last_potential():
    shaping = {"shaping": {"kind": "potential", "observation": "observation", "index": 0}}
    env = recorder(LINE, shaping, goal=9, size=1, cut=2)
    assert played(env, [1, 1]) == [[0.5, 0.0]]  # the discounted sum is 0.5 = 0.5**2 * 2 - 0
    assert played(env, [1, 1]) == [[0.5, 0.0]], "an episode knows nothing of the one before"


def test_potentials_leave_the_best_policy_of_frozen_lake_as_it_was():
    table = gym.make("FrozenLake-v1", is_slippery=True).unwrapped.P  # type: ignore[attr-defined]
    gamma, rng = 0.95, np.random.default_rng(0)
    potential = rng.normal(0, 3, len(table))

    def values(shaping: float) -> np.ndarray:
        q = np.zeros((len(table), 4))
        for _ in range(1000):
            best = q.max(1)
            for state, actions in table.items():
                for action, outcomes in actions.items():
                    q[state, action] = 0.0
                    for probability, after, reward, terminated in outcomes:
                        there = NOTHING_FOLLOWS if terminated else potential[after]
                        paid = reward + shaping * potential_difference(potential[state], there, gamma)
                        q[state, action] += probability * (paid + gamma * best[after] * (not terminated))
        return q

    plain, shaped = values(0.0), values(1.0)
    ends = [state for state, actions in table.items() if actions[0][0][3] and actions[0][0][1] == state]
    inner = [state for state in table if state not in ends]
    # Ng, Harada & Russell: Q' = Q - potential, so every action keeps its rank and the same ones are best.
    assert np.allclose(shaped[inner], plain[inner] - potential[inner, None], atol=1e-6)
    assert (shaped[inner].argmax(1) == (plain[inner] - potential[inner, None]).argmax(1)).all()
    assert plain[0].max() > 0.1, "there is something to win"


def envs_with(terms: dict[str, Any], env_id: str = LINE, **keys: Any) -> Any:
    config = EnvConfig(id=env_id, rewards=terms, holdout=False, **keys)
    return make_envs(config, make_task_space(config), 2, gamma=GAMMA)


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_vector_environments_hand_out_terms_beside_the_environments_own_reward(vectorization: str):
    terms = {"twice": {"kind": "observation", "key": "observation", "index": 0, "weight": 2}, "task": {"kind": "environment"}}
    envs = envs_with(terms, kwargs={"size": 1, "goal": 2}, vectorization=vectorization)
    tasks = [envs.tasks.hardest.with_seed(i) for i in range(2)]
    assert list(envs.reset(tasks)) == ["observation"]
    first, second = envs.step(np.array([1, 0])), envs.step(np.array([1, 1]))
    envs.close()
    assert first.terms.dtype == np.float32 and first.terms.tolist() == [[1, 0], [0, 0]], "before weighting"
    assert second.terms.tolist() == [[2, 1], [1, 0]] and second.reward.tolist() == [1, 0]
    assert list(second.obs) == ["observation"]


def test_without_a_discount_nothing_is_measured():
    config = EnvConfig(id=LINE, rewards={"place": {"kind": "observation", "key": "observation", "index": 0}}, holdout=False)
    envs = make_envs(config, make_task_space(config), 1)
    envs.reset([envs.tasks.hardest.with_seed(0)])
    assert envs.step(np.array([1])).terms is None


@pytest.mark.parametrize(
    ("term", "words"),
    [
        (3, r"env\.rewards\.x=3 is no reward term; write \{kind: environment or info"),
        ({"kind": "potentail"}, r"kind=potentail is unknown \(did you mean potential\?\)"),
        ({"kind": "environment", "key": "a"}, r"env\.rewards\.x\.key is no setting of a term of kind environment"),
        ({"kind": "environment", "weight": "heavy"}, r"env\.rewards\.x\.weight=heavy has to be a finite number"),
        ({"kind": "environment", "weight": float("nan")}, r"weight=nan has to be a finite number"),
        ({"kind": "info"}, "needs a key: the name of the info entry"),
        ({"kind": "info", "key": "prize"}, "an info has no prize, only steps; choose another .*default=0"),
        ({"kind": "info", "key": "steps", "change": "yes"}, r"change=yes has to be true or false"),
        ({"kind": "info", "key": "steps", "change": True}, "an info has no steps, only nothing"),
        ({"kind": "observation", "key": "place"}, "names `place`, which is not observed; observed are: observation"),
        (
            {"kind": "observation", "key": "observation"},
            r"is an array of shape \(100,\).*give env\.rewards\.x\.index",
        ),
        ({"kind": "observation", "key": "observation", "index": 100}, r"index=\[100\] is outside of `observation`.*\(100,\)"),
        ({"kind": "observation", "key": "observation", "index": "a"}, r"index=a has to be a whole number"),
        ({"kind": "potential"}, "needs one of info, observation, function"),
        ({"kind": "potential", "info": "a", "function": "b"}, "needs one of"),
        ({"kind": "potential", "function": "nowhere.to:find"}, r"function=nowhere\.to:find cannot be found"),
        ({"kind": "potential", "function": f"{__name__}:LINE"}, "is no function"),
        ({"kind": "potential", "function": f"{__name__}:failing"}, r"env\.rewards\.x: the function .*failing raises KeyError"),
        ({"kind": "potential", "function": "builtins:print"}, "is None, which is no number"),
        ({"kind": "count", "key": "observation", "resolution": 0}, r"resolution=0 has to be above 0"),
    ],
)
def test_a_term_that_does_not_fit_is_refused_at_the_start_in_one_sentence(term: Any, words: str):
    with pytest.raises(UserError, match=words):
        envs_with({"x": term})
