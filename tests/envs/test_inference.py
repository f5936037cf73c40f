"""What leaf spaces are taken for, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from minigrid.wrappers import RGBImgPartialObsWrapper

from envs.errors import UserError
from envs.probe import probe
from envs.spaces.actions import action_spec, to_environment
from envs.spaces.inference import infer_modalities, inference_table, space_name
from envs.spaces.leaves import leaves
from envs.spaces.ranges import integer_ranges
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


def test_a_small_uint8_box_with_many_distinct_values_is_an_image() -> None:
    modality = infer(spaces.Box(0, 255, (8, 8, 3), np.uint8))
    assert (modality.kind, modality.shape, modality.dtype) == ("image", (8, 8, 3), "uint8")


def test_a_large_uint8_box_is_an_image_even_when_it_shows_few_values() -> None:
    space = spaces.Box(0, 255, (84, 84, 3), np.uint8)
    (modality,) = infer_modalities(space, {"observation": [[np.zeros((84, 84, 3), np.uint8)]]})
    assert (modality.kind, modality.shape) == ("image", (84, 84, 3))


def test_what_a_minigrid_agent_sees_is_a_grid_as_symbols_and_an_image_as_a_picture() -> None:
    env = gym.make("MiniGrid-DoorKey-5x5-v0")
    kinds = {leaf.key: leaf.kind for leaf in infer_modalities(env.observation_space, probe(env))}
    drawn = RGBImgPartialObsWrapper(env, tile_size=8)
    pictures = {leaf.key: leaf.kind for leaf in infer_modalities(drawn.observation_space, probe(drawn))}
    assert (kinds["image"], pictures["image"]) == ("grid", "image")


@pytest.mark.parametrize(
    ("space", "shape"),
    [
        (spaces.Box(0, 255, (24, 40), np.uint8), (24, 40, 1)),
        (spaces.Box(0, 255, (24, 40, 1), np.uint8), (24, 40, 1)),
        (spaces.Box(0, 255, (3, 84, 96), np.uint8), (84, 96, 3)),  # channels first
        (spaces.Box(0, 255, (4, 84, 84), np.uint8), (84, 84, 4)),  # four grey frames
        (spaces.Box(0, 255, (84, 84, 12), np.uint8), (84, 84, 12)),  # four coloured ones
        (spaces.Box(0, 255, (4, 84, 80, 3), np.uint8), (84, 80, 12)),
        (spaces.Box(0, 255, (4, 3, 84, 80), np.uint8), (84, 80, 12)),
        (spaces.Box(0.0, 1.0, (64, 48, 3), np.float32), (64, 48, 3)),
        (spaces.Box(0.0, 255.0, (1, 64, 48), np.float64), (64, 48, 1)),
        (spaces.Box(0, 255, (48, 64, 3), np.int64), (48, 64, 3)),
    ],
    ids=lambda value: str(getattr(value, "shape", "")),
)
def test_images_are_told_by_shape_and_brightness_and_become_height_width_channels(
    space: spaces.Space[Any], shape: tuple[int, ...]
) -> None:
    modality = infer(space)
    assert (modality.kind, modality.shape, modality.dtype) == ("image", shape, "uint8")


def test_numbers_that_are_no_brightnesses_or_too_few_for_a_picture_are_a_vector() -> None:
    assert infer(spaces.Box(-1.0, 1.0, (60, 60))).kind == "vector"
    assert infer(spaces.Box(0.0, 1.0, (8, 8))).kind == "vector"
    assert infer(spaces.Box(0.0, 1.0, (8, 8)), observation="image").shape == (8, 8, 1)
    assert infer(spaces.Box(-1.0, 1.0, (60, 60)), observation="image").shape == (60, 60, 1)


@pytest.mark.parametrize(
    "space", [spaces.Box(-np.inf, np.inf, (32, 32)), spaces.Box(0, 255, (20, 84, 84), np.uint8), spaces.Box(0.0, 1.0, (9,))]
)
def test_what_cannot_be_an_image_is_refused_in_one_sentence(space: spaces.Space[Any]) -> None:
    with pytest.raises(UserError, match=r"^`observation` .*cannot be read as an image, .*env\.modalities\.observation=.*\.$"):
        infer(space, observation="image")


@pytest.mark.parametrize(
    ("shape", "longest", "shrunk"),
    [
        ((210, 160, 3), 64, (64, 49, 3)),
        ((64, 64, 3), 64, (64, 64, 3)),
        ((24, 40, 1), 64, (24, 40, 1)),
        ((210, 160), 0, (210, 160, 1)),
    ],
)
def test_images_larger_than_asked_for_are_shrunk_in_proportion(
    shape: tuple[int, ...], longest: int, shrunk: tuple[int, ...]
) -> None:
    space = spaces.Box(0, 255, shape, np.uint8)
    assert infer_modalities(space, probe(Fixed(space)), image_size=longest)[0].shape == shrunk


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
        (
            spaces.Discrete(2),
            {"observation": "grid:text"},
            r"observation=grid:text is not understood; write a kind \(grid, categorical, .*ignore",
        ),
        (spaces.Discrete(2), {"observation": "text"}, r"`observation` \(Discrete\(2\)\) cannot be read as text"),
        (spaces.Box(-1.0, 1.0, (3,)), {"observation": "categorical"}, "cannot be read as categorical"),
        (spaces.Box(-1.0, 1.0, (100, 100)), {}, r"`observation` \(Box\(-1\.\.1, \(100, 100\), float32\)\) cannot be read"),
        (spaces.Box(-1.0, 1.0, (0,)), {}, r"`observation` .* cannot be read, because it is empty"),
        (spaces.Discrete(2**40), {"observation": "categorical"}, r"as categorical, because it has too many values.*=vector"),
        (spaces.Sequence(spaces.Discrete(2)), {}, r"`observation` \(Sequence.*cannot be read.*=ignore.*env\.wrappers"),
        (spaces.Sequence(spaces.Text(2)), {}, r"differ in size or kind from step to step.*observation=ignore"),
        (spaces.Graph(spaces.Discrete(2), None), {}, r"differ in size or kind from step to step.*observation=ignore"),
        (spaces.OneOf((spaces.Discrete(2), spaces.Text(2))), {}, r"differ in size or kind from step to step"),
    ],
)
def test_what_cannot_be_mapped_is_refused_with_its_key_its_space_and_a_way_out(
    space: spaces.Space[Any], overrides: dict[str, str], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        infer(space, **overrides)


BIG = 2**40


@pytest.mark.parametrize(
    ("space", "kind", "shape", "dtype"),
    [
        (spaces.Box(0, 5, (), np.int64), "categorical", (1,), "int64"),
        (spaces.Box(-BIG, BIG, (), np.int64), "vector", (1,), "float32"),
        (spaces.Box(-np.inf, np.inf, (), np.float64), "vector", (1,), "float32"),
        (spaces.Box(-1, 1, (3,), np.float16), "vector", (3,), "float32"),
        (spaces.Box(-1.0, 1.0, (2, 3), np.float64), "vector", (6,), "float32"),
        (spaces.Box(-1.0, 1.0, (2, 3, 4), np.float32), "vector", (24,), "float32"),
        (spaces.Box(-np.inf, 0.0, (2, 1, 2, 2), np.float32), "vector", (8,), "float32"),
        (spaces.Box(-30000, 30000, (4,), np.int16), "vector", (4,), "float32"),
        (spaces.Box(0, 2**64 - 1, (2,), np.uint64), "vector", (2,), "float32"),
        (spaces.Box(0, 1, (5,), np.bool_), "categorical", (5,), "int64"),  # type: ignore[arg-type]
        (spaces.Box(0, 1, (2, 2, 2, 2), np.bool_), "vector", (16,), "float32"),  # type: ignore[arg-type]
        (spaces.Discrete(500), "categorical", (1,), "int64"),
        (spaces.Discrete(BIG), "vector", (1,), "float32"),
        (spaces.MultiDiscrete(np.array([[2, 3], [4, 5]]), start=np.array([[-1, 0], [7, 0]])), "grid", (2, 2, 1), "int64"),
        (spaces.MultiDiscrete([BIG, 2]), "vector", (2,), "float32"),
        (spaces.MultiBinary((2, 3)), "grid", (2, 3, 1), "uint8"),
        (spaces.MultiBinary(3000), "vector", (3000,), "float32"),
        (spaces.Text(20, charset="äöü"), "text", (96,), "uint8"),
    ],
    ids=str,
)
def test_spaces_of_any_rank_size_and_type_are_read(
    space: spaces.Space[Any], kind: str, shape: tuple[int, ...], dtype: str
) -> None:
    modality = infer(space)
    assert (modality.kind, modality.shape, modality.dtype) == (kind, shape, dtype)


def test_classes_are_counted_exactly_beyond_what_a_float_holds() -> None:
    assert infer(spaces.Discrete(5, start=2**60 + 1)).classes == (5,)
    ranges = integer_ranges(spaces.Box(-(2**63), 2**63 - 1, (), np.int64))
    assert ranges is not None and ranges.count == 2.0**64


def test_what_is_ignored_is_not_observed() -> None:
    space = spaces.Dict({"a": spaces.Discrete(2), "b": spaces.Sequence(spaces.Discrete(2))})
    samples = probe(Fixed(space))
    assert [m.key for m in infer_modalities(space, samples, {"b": "ignore"})] == ["a"]
    with pytest.raises(UserError, match="ignores all there is to observe"):
        infer_modalities(space, samples, {"a": "ignore", "b": "ignore"})


def test_whether_a_leaf_is_static_can_be_said_beside_its_kind_or_alone() -> None:
    space = spaces.Dict({"mission": spaces.Text(9), "pose": spaces.Tuple((spaces.Discrete(4),))})
    samples: dict[str, list[list[Any]]] = {"mission": [["go"] * 3], "pose.0": [[1, 2, 3]]}

    def static(overrides: dict[str, Any]) -> dict[str, tuple[str, bool]]:
        return {m.key: (m.kind, m.static) for m in infer_modalities(space, samples, overrides)}

    assert static({}) == {"mission": ("text", True), "pose.0": ("categorical", False)}
    assert static({"mission": "changing"})["mission"] == ("text", False)
    assert static({"pose": {"0": "vector:static"}})["pose.0"] == ("vector", True)


def test_keys_of_any_spelling_can_be_named() -> None:
    space = spaces.Dict({"Größe 1/2": spaces.Discrete(2), 7: spaces.Discrete(2)})  # type: ignore[dict-item]
    given = {"Gr%C3%B6%C3%9Fe%201%2F2": "vector", "7": "vector"}
    assert [m.kind for m in infer_modalities(space, {}, given)] == ["vector", "vector"]


def test_a_kind_that_was_added_gets_the_numbers_in_the_shape_of_the_space() -> None:
    assert infer(spaces.Box(-1.0, 1.0, (2, 3), np.float64), observation="angle").shape == (2, 3)
    whole = infer(spaces.Discrete(3), observation="angle")
    assert (whole.kind, whole.shape, whole.dtype) == ("angle", (1,), "int64")


def test_a_text_that_is_cut_is_told_of_with_the_key_that_keeps_more(caplog: pytest.LogCaptureFixture) -> None:
    infer_modalities(spaces.Text(99), {"observation": [["ä" * 30]]}, text_bytes=33)
    assert "texts of `observation` have up to 60 bytes or more and are cut to 33: raise env.text_bytes" in caplog.text


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
