"""Parts of an observation that may be missing: read, told apart from zeros, and refused where nobody said so."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from envs import EnvConfig, make_envs, make_task_space
from envs.errors import UserError
from envs.make import infer_spec
from envs.spaces.inference import infer_modalities
from envs.spaces.leaves import leaves, merged
from envs.spaces.overrides import optional_leaves, read_overrides
from envs.spaces.specs import EnvSpec
from envs.tasks import Task, TaskSpace


class Radar(gym.Env[Any, Any]):
    """Counts its steps; its radar is missing, or None, at odd steps. Without `fitted` it has none at all."""

    def __init__(self, absent: str = "missing", fitted: bool = True) -> None:
        parts: dict[str, spaces.Space[Any]] = {"step": spaces.Discrete(9)}
        if fitted:
            parts["radar"] = spaces.Box(1.0, 2.0, (2,))
            parts["words"] = spaces.Text(8)
        self.observation_space = spaces.Dict(parts)
        self.action_space = spaces.Discrete(2)
        self._absent, self._fitted = absent, fitted

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._step = 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._step += 1
        return self._observe(), 0.0, self._step == 6, False, {}

    def _observe(self) -> dict[str, Any]:
        shown: dict[str, Any] = {"step": self._step}
        if self._fitted:
            shown |= {"radar": np.array([1.5, 2.0], np.float32), "words": "clear"}
            if self._step % 2:
                if self._absent == "missing":
                    del shown["radar"], shown["words"]
                else:
                    shown["radar"] = shown["words"] = None
        return shown


gym.register("Radar-v0", entry_point=f"{__name__}:Radar")
ID = "tests.envs.test_missing:Radar-v0"
OPTIONAL = {"radar": "optional", "words": "text:optional"}


def config(**changes: Any) -> EnvConfig:
    settings: dict[str, Any] = dict(id=ID, num_envs=1, holdout=False, modalities=OPTIONAL, text_bytes=8)
    return EnvConfig(**(settings | changes))


@pytest.mark.parametrize("absent", ["missing", "None"])
def test_what_is_missing_is_zeros_and_its_presence_says_so(absent: str):
    given = config(kwargs={"absent": absent})
    tasks = make_task_space(given)
    envs = make_envs(given, tasks)
    leaf = {leaf.key: leaf for leaf in envs.spec.observations}
    assert list(leaf) == ["radar", "radar?", "step", "words", "words?"]
    assert leaf["radar"].optional and leaf["radar"].kind == "vector" and leaf["radar?"].classes == (2,)
    assert not leaf["words"].static, "a constant text that comes and goes is no constant"
    obs = envs.reset([tasks.hardest.with_seed(0)])
    for step in range(4):
        there = step % 2 == 0
        assert obs["step"].item() == step and obs["radar?"].item() == obs["words?"].item() == there
        assert obs["radar"].tolist() == [[1.5, 2.0] if there else [0.0, 0.0]]
        assert bytes(obs["words"][0]).rstrip(b"\0") == (b"clear" if there else b"")
        result = envs.step(np.array([0]))
        assert result.dropped is None, "it is no fault"
        obs = result.obs
    envs.close()


def test_a_part_that_nobody_called_optional_is_a_fault():
    given = config(modalities={})
    tasks = make_task_space(given)
    envs = make_envs(given, tasks)
    envs.reset([tasks.hardest.with_seed(0)])
    dropped = envs.step(np.array([0])).dropped
    assert dropped is not None and dropped.tolist() == [True]
    envs.close()


def test_a_task_may_lack_it_altogether():
    bare, fitted = Task("bare", {"env": ID, "kwargs": {"fitted": False}}), Task("fitted", {"env": ID})
    tasks = TaskSpace((bare, fitted))
    envs = make_envs(config(num_envs=2), tasks)
    obs = envs.reset([bare.with_seed(0), fitted.with_seed(0)])
    assert obs["radar?"].tolist() == [[0], [1]] and obs["radar"].tolist() == [[0, 0], [1.5, 2]]
    envs.close()
    with pytest.raises(UserError, match=r"missing in task bare but is Box.*, say env\.modalities\.radar=opt"):
        infer_spec(config(modalities={}), tasks)


def test_a_spec_remembers_what_is_optional():
    spec = infer_spec(config(), make_task_space(config()))
    assert EnvSpec.from_dict(spec.to_dict()) == spec and sum(leaf.optional for leaf in spec.observations) == 2


def test_optional_is_one_of_the_words_of_an_override():
    read = read_overrides({"a": "optional", "b": "text:changing:optional", "c": "my.own.Modality:optional"}, ["a", "b", "c"])
    assert [(o.kind, o.static, o.optional) for o in read.values()] == [
        (None, None, True), ("text", False, True), ("my.own.Modality", None, True)
    ]  # fmt: skip
    assert optional_leaves({"a": "optional", "elsewhere": "optional", "b": "grid"}, ["a", "b"]) == {"a"}
    with pytest.raises(UserError, match="is not understood; write a kind"):
        read_overrides({"a": "my..Modality"}, ["a"])


def test_spaces_are_merged_down_to_their_leaves():
    left = spaces.Dict({"a": spaces.Discrete(2), "in": spaces.Dict({"b": spaces.Discrete(3)})})
    right = spaces.Dict({"in": spaces.Dict({"b": spaces.Discrete(9), "c": spaces.Discrete(4)}), "d": spaces.Discrete(5)})
    assert {leaf.key: int(leaf.space.n) for leaf in leaves(merged(left, right))} == {"a": 2, "in.b": 3, "in.c": 4, "d": 5}  # type: ignore[attr-defined]


def test_wrappers_and_reward_terms_pass_over_what_is_missing():
    """Two frames stacked, of steps at which the radar works; its first number is the reward, or 9 in its absence."""
    near = {"kind": "observation", "key": "radar", "index": 0, "default": 9.0}
    given = config(frame_stack=2, rewards={"near": near})
    tasks = make_task_space(given)
    envs = make_envs(given, tasks, gamma=0.9)
    obs = envs.reset([tasks.hardest.with_seed(0)])
    assert obs["radar"].tolist() == [[1.5, 2.0, 1.5, 2.0]]
    terms = []
    for step in (1, 2, 3):
        result = envs.step(np.array([0]))
        assert result.dropped is None and result.obs["radar?"].item() == (step == 2)
        assert result.terms is not None
        terms.append(result.terms.ravel().tolist()[-1])
    assert terms == [9.0, 1.5, 9.0]
    envs.close()


def test_a_part_that_is_called_as_the_presence_of_another_is_refused():
    space = spaces.Dict({"radar": spaces.Box(-1.0, 1.0, (2,)), "radar?": spaces.Discrete(3)})
    with pytest.raises(UserError, match=r"`radar` cannot be optional, because `radar\?`.* is observed already"):
        infer_modalities(space, {}, {"radar": "optional"})
