"""Every modality: observations to codes and back."""

from __future__ import annotations

from zlib import crc32

import numpy as np
import pytest
import torch

from envs.errors import UserError
from envs.spaces.specs import ModalitySpec
from tests.world_model.conftest import SPEC, random_observations, tiny_config
from world_model.latents import code_levels
from world_model.math import symlog
from world_model.modalities import MODALITIES, make_modality
from world_model.modalities.base import Modality
from world_model.modalities.text import Text, split_words
from world_model.modalities.vector import Vector


def modality(key: str, **changes: object) -> Modality:
    (spec,) = (leaf for leaf in SPEC.observations if leaf.key == key)
    return make_modality(spec, tiny_config(**changes))


def text(*sentences: str, size: int = 24) -> np.ndarray:
    return np.stack([np.frombuffer(sentence.encode().ljust(size, b"\0"), np.uint8) for sentence in sentences])


def words(module: Modality, raw: np.ndarray, grow: bool = True) -> list[str]:
    return words_of(module, module.tokenize(raw, grow))


def words_of(module: Modality, codes: torch.Tensor) -> list[str]:
    return [bytes(row).rstrip(b"\0").decode() for row in module.detokenize(codes)]


@pytest.mark.parametrize("key", ["image", "pose.0", "mission"])
@pytest.mark.parametrize("shape", [(), (4,), (2, 5)])
def test_symbols_come_back_as_they_were_observed(key: str, shape: tuple[int, ...]):
    raw = random_observations(shape, seed=3)[key]
    module = modality(key)
    codes = module.tokenize(raw, grow=True)
    assert codes.shape == (*shape, module.block.groups) and codes.dtype == torch.int64
    assert (codes >= 0).all() and (codes < torch.tensor(module.block.classes)).all()
    back = module.detokenize(codes)
    assert back.dtype == raw.dtype and back.shape == raw.shape and np.array_equal(back, raw)


def test_every_modality_of_the_test_model_is_covered():
    assert {leaf.kind for leaf in SPEC.observations} == set(MODALITIES)


def test_equal_cells_have_equal_codes_wherever_they_are():
    raw = np.zeros((3, 3, 2), np.uint8)
    raw[0, 2] = raw[2, 1] = (1, 2)
    codes = modality("image").tokenize(raw, grow=True).view(3, 3)
    assert codes[0, 2] == codes[2, 1] != codes[0, 0] and codes.unique().numel() == 2


def test_a_grid_says_how_many_codes_are_in_use_so_that_no_other_is_predicted():
    module = modality("image", table_size=64)
    module.tokenize(random_observations((10,))["image"], grow=True)
    assert 10 <= module.classes_in_use < 64
    assert modality("pose.0").classes_in_use == 4


def test_without_growing_what_was_never_seen_is_unknown():
    module = modality("image")
    raw = random_observations((), seed=1)["image"]
    assert (module.tokenize(raw) == 0).all()
    module.tokenize(raw, grow=True)
    assert (module.tokenize(raw) > 0).all()


def test_text_is_one_code_a_word_whatever_the_case():
    module = modality("mission")
    red, blue = module.tokenize(text("the RED ball", "The blue ball"), grow=True).tolist()
    assert red[0] == blue[0] and red[2] == blue[2] and red[1] != blue[1]
    assert words(module, text("the RED ball")) == ["the red ball"]


def test_words_past_the_last_group_are_dropped_and_missing_ones_have_a_code_of_their_own():
    module = modality("mission")  # three groups
    assert words(module, text("one two three four five")) == ["one two three"]
    assert words(module, text("one", "", "  one   two ")) == ["one", "", "one two"]
    codes = module.tokenize(text("one two"))
    assert codes[0, 2] not in (codes[0, 0], codes[0, 1])


def test_text_of_any_alphabet_comes_back():
    assert words(modality("mission"), text("öffne die tür", "подойди")) == ["öffne die tür", "подойди"]


@pytest.mark.parametrize(
    ("sentence", "parts"),
    [
        ("Go to the red ball, then stop", ["go", "to", "the", "red", "ball", ",", "then", "stop"]),
        ("lives: 12 of -5.5", ["lives", ":", "1", "2", "of", "-", "5", ".", "5"]),  # numbers never met before can be read
        ("don't re-do key2 a_b", ["don't", "re-do", "key2", "a_b"]),
        ("取红球 ボ", ["取", "红", "球", "ボ"]),  # no spaces between words
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),  # with combining marks
        (" \t\n", []),
    ],
)
def test_a_text_is_split_into_words_whatever_its_script(sentence: str, parts: list[str]):
    assert split_words(sentence) == parts


def test_words_that_are_not_read_are_told_of_once(caplog: pytest.LogCaptureFixture):
    module = modality("mission")  # three groups
    module.tokenize(text("one two three four", "four three two one"), grow=True)
    assert [record.getMessage() for record in caplog.records] == [
        "texts of `mission` have 4 words and more: those past model.text_words=3 are not read"
    ]


def test_a_text_that_was_cut_within_a_character_does_not_fail():
    data = "tür".encode()[:2].ljust(24, b"\0")
    assert modality("mission").tokenize(np.frombuffer(data, np.uint8), grow=True).shape == (3,)


def test_unseen_words_are_left_out_where_the_table_may_not_grow():
    module = modality("mission")
    module.tokenize(text("red ball"), grow=True)
    assert words(module, text("red key"), grow=False) == ["red"]


def test_words_mean_the_same_and_are_spelled_as_before_once_loaded():
    module, loaded = modality("mission"), modality("mission")
    codes = module.tokenize(text("red tür 球"), grow=True)
    module.tokenize(text("unknown"))
    loaded.load_state_dict(module.state_dict())
    assert words_of(loaded, codes) == ["red tür 球"]
    assert torch.equal(loaded.tokenize(text("red tür 球")), codes)
    saved = bytes(module.state_dict()["spelling"].flatten().tolist())
    assert saved.replace(b"\0", b"").decode() == "redtür球", "of the words in the table, and no others"
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in module.state_dict().items())


def test_codes_of_a_checkpoint_without_spellings_mean_the_same_although_these_are_forgotten():
    module, loaded = modality("mission"), modality("mission")
    codes = module.tokenize(text("red ball"), grow=True)
    loaded.load_state_dict({name: value for name, value in module.state_dict().items() if name != "spelling"})
    assert words_of(loaded, codes) == ["? ?"]
    assert torch.equal(loaded.tokenize(text("red ball")), codes)
    assert words(loaded, text("red ball")) == ["red ball"], "and comes back when the word is met again"
    assert torch.equal(loaded.state_dict()["spelling"], module.state_dict()["spelling"])


def test_spellings_that_were_tampered_with_or_too_long_to_be_saved_are_not_taken_for_words():
    module, loaded = modality("mission"), modality("mission")
    codes = module.tokenize(text(f"{'long' * 40} ball box", "key", size=200), grow=True)
    state = module.state_dict()
    where = codes[0].tolist()
    assert not state["spelling"][where[0]].any()
    state["spelling"][where[1]] = 255  # no UTF-8
    forged = b"two words"
    state["table.values"][where[2]] = crc32(forged) + 1
    state["spelling"][where[2], : len(forged)] = torch.frombuffer(bytearray(forged), dtype=torch.uint8)
    loaded.load_state_dict(state)
    assert words_of(loaded, codes) == ["? ? ?", "key"]


def test_more_texts_than_are_remembered_make_no_difference(monkeypatch: pytest.MonkeyPatch):
    module = modality("mission", text_table_size=64)
    assert isinstance(module, Text)
    monkeypatch.setattr("world_model.modalities.text.CACHED_TEXTS", 3)
    many = text(*(f"word{n}" for n in range(10)))
    codes = module.tokenize(many, grow=True)
    assert torch.equal(module.tokenize(many), codes) and codes[:, 0].unique().numel() == 10


def vector(**changes: object) -> Vector:
    module = modality("speed", **changes)
    assert isinstance(module, Vector)
    return module


def test_a_vector_goes_in_as_it_is():
    raw = random_observations((4,))["speed"]
    assert torch.equal(vector().tokenize(raw, grow=True), torch.from_numpy(raw))


def test_a_vectors_elements_are_brought_to_one_scale_by_the_mean_and_deviation_of_all_their_symlogs_seen():
    module = vector()
    rng = np.random.default_rng(0)
    raw = (rng.normal(size=(500, 3)) * (0.01, 1.0, 900.0) + (5.0, 0.0, -300.0)).astype(np.float32)
    for part in np.array_split(raw, 7):
        module.tokenize(part, grow=True)
    values = symlog(torch.from_numpy(raw)).double()
    torch.testing.assert_close(module.mean.double(), values.mean(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close((module.square / module.count).sqrt().double(), values.std(0, correction=0), rtol=1e-3, atol=0)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    module.tokenize(raw * 2)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items()), "only growing takes notice"
    loaded = vector()
    loaded.load_state_dict(before)
    codes, loss = loaded.encode(torch.from_numpy(raw))
    assert torch.equal(codes, module.encode(torch.from_numpy(raw))[0]) and torch.isfinite(loss).all()


def test_a_vector_that_never_changed_or_was_never_seen_is_encoded_all_the_same():
    raw = torch.full((5, 3), 7.0)
    module = vector()
    assert torch.isfinite(module.encode(raw)[1]).all()
    module.tokenize(raw.numpy(), grow=True)
    assert torch.isfinite(module.encode(raw)[1]).all() and np.isfinite(module.detokenize(module.encode(raw)[0])).all()


def test_codes_of_a_vector_are_levels_within_their_number_and_use_both_ends():
    module = vector(learned_classes=5)
    codes, loss = module.encode(1000 * torch.randn(2, 300, 3))
    assert codes.shape == (2, 300, 4) and codes.dtype == torch.int64 and loss.shape == (2, 300)
    assert codes.min() >= 0 and codes.max() <= 4
    assert code_levels(torch.arange(5), 5).tolist() == [-1, -0.5, 0, 0.5, 1]


def test_the_encoder_learns_through_the_rounding_of_its_codes():
    module = vector()
    module.encode(torch.randn(8, 3))[1].mean().backward()
    for part in (module.encoder, module.decoder):
        assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in part.parameters())


def test_a_vector_comes_back_from_its_codes_once_these_have_been_learned():
    torch.manual_seed(0)
    module = vector(hidden=32, learned_classes=8)
    raw = np.array([[0.0, 1.0, -2.0], [30.0, -0.5, 4.0], [-1.0, 0.0, 0.3], [5.0, 5.0, -5.0]], np.float32)
    observation = module.tokenize(raw, grow=True)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        module.encode(observation)[1].mean().backward()
        optimizer.step()
    back = module.detokenize(module.encode(observation)[0])
    assert back.shape == raw.shape and back.dtype == np.float32
    np.testing.assert_allclose(back, raw, rtol=0.1, atol=0.1)


def test_a_kind_that_nothing_encodes_is_refused_by_its_key():
    with pytest.raises(UserError, match=r"env\.modalities\.camera 'smell' is unknown; .* env\.modalities\.camera=KIND"):
        make_modality(ModalitySpec("camera", "smell", (64, 64, 3), "uint8"), tiny_config())
