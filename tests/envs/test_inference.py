"""What leaf spaces are taken for, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from envs.errors import UserError
from envs.probe import probe
from envs.spaces.actions import action_spec, to_environment
from envs.spaces.inference import infer_modalities, inference_table, space_name
from envs.spaces.leaves import leaves
from envs.spaces.specs import ActionSpec, EnvSpec, ModalitySpec
from tests.envs.odd import Fixed, Odd


def infer(space: spaces.Space[Any], **overrides: str) -> ModalitySpec:
    (modality,) = infer_modalities(space, probe(Fixed(space)), overrides)
    return modality


def test_nested_spaces_become_leaves_under_dotted_keys() -> None:
    pair = spaces.Tuple((spaces.Discrete(2), spaces.Dict({"b": spaces.Discrete(3)})))
    space = spaces.Dict({"a": pair, "c": spaces.Discrete(4)})
    assert [leaf.key for leaf in leaves(space)] == ["a.0", "a.1.b", "c"]
    assert [leaf.value({"a": (0, {"b": 1}), "c": 2}) for leaf in leaves(space)] == [0, 1, 2]


def test_a_bare_space_is_called_observation() -> None:
    assert [leaf.key for leaf in leaves(spaces.Discrete(2))] == ["observation"]


def test_keys_that_collide_once_dotted_are_refused() -> None:
    with pytest.raises(UserError, match=r"both called `a\.b`"):
        leaves(spaces.Dict({"a.b": spaces.Discrete(2), "a": spaces.Dict({"b": spaces.Discrete(2)})}))


def test_an_empty_space_is_refused() -> None:
    with pytest.raises(UserError, match="empty"):
        leaves(spaces.Dict({}))


def test_every_kind_of_leaf_of_an_odd_space_is_told_apart() -> None:
    env = Odd()
    found = {m.key: m for m in infer_modalities(env.observation_space, probe(env), text_bytes=16)}
    kinds = {key: (m.kind, m.shape, m.dtype, m.classes, m.static) for key, m in found.items()}
    assert kinds == {
        "pair.0.choice": ("categorical", (1,), "int64", (3,), False),
        "pair.0.speed": ("vector", (4,), "float32", (), False),
        "pair.1": ("categorical", (3,), "int64", (2, 2, 2), False),
        "cells": ("grid", (2, 3, 1), "uint8", (), False),
        "dials": ("categorical", (2,), "int64", (2, 5), False),
        "height": ("categorical", (1,), "int64", (11,), False),
        "clock": ("vector", (1,), "float32", (), False),
        "order": ("text", (16,), "uint8", (), True),
        "chatter": ("text", (16,), "uint8", (), False),
    }


def test_a_small_uint8_box_with_few_distinct_values_is_a_grid_and_keeps_its_channels() -> None:
    space = spaces.Box(0, 255, (7, 7, 3), np.uint8)
    symbols = [[np.random.default_rng(0).integers(0, 11, (7, 7, 3), dtype=np.uint8) for _ in range(20)]]
    (modality,) = infer_modalities(space, {"observation": symbols})
    assert (modality.kind, modality.shape, modality.dtype) == ("grid", (7, 7, 3), "uint8")


def test_a_small_uint8_box_with_many_distinct_values_is_no_grid() -> None:
    with pytest.raises(UserError, match=r"`observation` .*looks like an image.*env\.modalities\.observation.*env\.wrappers"):
        infer(spaces.Box(0, 255, (8, 8, 3), np.uint8))


def test_a_large_uint8_box_is_an_image_even_when_it_shows_few_values() -> None:
    space = spaces.Box(0, 255, (84, 84, 3), np.uint8)
    with pytest.raises(UserError, match="looks like an image"):
        infer_modalities(space, {"observation": [[np.zeros((84, 84, 3), np.uint8)]]})


def test_boolean_planes_are_a_grid() -> None:
    assert infer(spaces.Box(0, 1, (10, 10, 4), np.bool_)).kind == "grid"


def test_the_user_knows_better_by_key() -> None:
    assert infer(spaces.Box(0, 255, (8, 8, 3), np.uint8), observation="grid").kind == "grid"
    assert infer(spaces.MultiDiscrete(np.full((2, 2), 3)), observation="categorical").classes == (3, 3, 3, 3)
    assert infer(spaces.Discrete(5), observation="vector").kind == "vector"


@pytest.mark.parametrize(
    ("space", "overrides", "words"),
    [
        (spaces.Discrete(2), {"nose": "grid"}, r"names `nose`, which is not observed; observed are: observation"),
        (spaces.Discrete(2), {"observation": "smell"}, r"observation=smell is no kind.*grid, categorical, text, vector, image"),
        (spaces.Discrete(2), {"observation": "text"}, r"`observation` \(Discrete\(2\)\) cannot be read as text"),
        (spaces.Box(-1.0, 1.0, (3,)), {"observation": "categorical"}, "cannot be read as categorical"),
        (spaces.Box(-1.0, 1.0, (100, 100)), {}, r"`observation` \(Box\(-1\.\.1, \(100, 100\), float32\)\) cannot be read"),
        (spaces.Sequence(spaces.Discrete(2)), {}, r"`observation` \(Sequence.*cannot be read.*env\.wrappers"),
    ],
)
def test_what_cannot_be_mapped_is_refused_with_its_key_its_space_and_a_way_out(
    space: spaces.Space[Any], overrides: dict[str, str], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        infer(space, **overrides)


def test_names_of_spaces_hold_no_memory_addresses() -> None:
    assert space_name(spaces.Box(0, 255, (7, 7, 3), np.uint8)) == "Box(0..255, (7, 7, 3), uint8)"
    assert space_name(spaces.MultiDiscrete([2, 5])) == "MultiDiscrete((2,), up to 5)"
    assert space_name(spaces.Text(5)) == "Text"


def test_the_table_shows_what_was_inferred() -> None:
    spec = EnvSpec((ModalitySpec("view", "grid", (7, 7, 3), "uint8", origin="Box"),), ActionSpec("discrete", 2))
    assert inference_table(spec) == [("view", "Box", "grid", "7x7x3", "no")]


def test_discrete_actions_start_where_the_environment_says() -> None:
    spec = action_spec(spaces.Discrete(3, start=-1))
    assert spec == ActionSpec("discrete", 3, -1)
    assert [to_environment(spec)(action) for action in np.arange(3)] == [-1, 0, 1]


def test_specs_tasks_and_errors_import_without_gymnasium() -> None:
    imports = "import sys, envs.spaces.specs, envs.tasks, envs.config, envs.errors"
    subprocess.run([sys.executable, "-c", f"{imports}; assert not {{'gymnasium', 'numpy'}} & set(sys.modules)"], check=True)


def test_a_spec_survives_json() -> None:
    env = Odd()
    spec = EnvSpec(infer_modalities(env.observation_space, probe(env)), action_spec(env.action_space))
    assert EnvSpec.from_dict(spec.to_dict()) == spec
