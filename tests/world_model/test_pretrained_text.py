"""Missions read by a pretrained text encoder: frozen, with adapters, or trained as a whole."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from envs.errors import UserError
from envs.spaces.specs import EnvSpec, ModalitySpec, presence_key
from tests.world_model.conftest import SPEC, random_observations, random_sequences, tiny_config
from tests.world_model.tiny_encoders import count_calls, save_text_encoder, save_vision_encoder
from world_model.batch import Sequences
from world_model.engines.local import LocalEngine
from world_model.imagination import ImaginationEnv
from world_model.model import WorldModel
from world_model.pretrained.text import TextFeatures
from world_model.starts import choose_starts, starts_at

needs_peft = pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="needs the extra `lora`")
MODES = ["frozen", pytest.param("lora", marks=needs_peft), "full"]
RED, BLUE, GREEN = "go to the red ball", "go to the blue ball", "go to the green key"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_text_encoder(tmp_path_factory.mktemp("bert"))


def missions(*texts: str) -> np.ndarray:
    return np.stack([np.frombuffer(text.encode().ljust(24, b"\0"), np.uint8) for text in texts])


def make(folder: str, mode: str = "frozen", **changes: object) -> WorldModel:
    torch.manual_seed(0)
    return WorldModel(SPEC, tiny_config(pretrained={"mission": {"id": folder, "mode": mode}}, **changes)).eval()


def reader(model: WorldModel) -> TextFeatures:
    found = model.texts["mission"]
    assert isinstance(found, TextFeatures)
    return found


def sequences(model: WorldModel, *texts: str, length: int = 5) -> Sequences:
    """One row a text."""
    batch = random_sequences(model, len(texts), length)
    obs = random_observations((len(texts), length)) | {"mission": missions(*texts)[:, None].repeat(length, 1)}
    batch.obs = model.tokenize(obs, grow=True)
    return batch


def weights(model: WorldModel) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in reader(model).encoder.tower.state_dict().items()}


def features(model: WorldModel, *texts: str) -> torch.Tensor:
    """(texts, width), as a state is embedded with them."""
    module = reader(model)
    rows, index = module.rows(module.tokenize(missions(*texts)))
    return rows[index]


def test_the_features_are_the_mean_of_what_the_encoder_says_of_the_words(folder: str):
    from transformers import AutoModel, AutoTokenizer

    model = make(folder)
    bert, tokens = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        expected = torch.stack(
            [bert(**tokens(text, return_tensors="pt")).last_hidden_state[0].mean(0) for text in (RED, "blue key")]
        )
    torch.testing.assert_close(features(model, RED, "blue key"), expected)


def test_a_frozen_encoder_reads_every_text_once_and_is_neither_trained_nor_saved(folder: str):
    model = make(folder)
    random_sequences(model, 1, 2)  # they have a mission of their own
    before, calls = weights(model), count_calls(reader(model).encoder.tower)
    engine = LocalEngine(model, torch.device("cpu"))
    for _ in range(2):
        engine.train_step(sequences(model, RED, BLUE, RED))
    assert calls == [2], "two texts, in one call"
    assert all(torch.equal(value, before[name]) for name, value in weights(model).items())
    saved = [name for name in model.state_dict() if ":features" in name]
    assert saved == ["modalities.on_mission:features.encoder.weights"], "a hash of 16 bytes"
    assert model.state_dict()[saved[0]].shape == (16,)


@needs_peft
def test_only_adapters_are_trained_and_saved_in_lora(folder: str):
    model = make(folder, "lora")
    before = weights(model)
    engine = LocalEngine(model, torch.device("cpu"))
    for _ in range(2):  # half of an adapter starts at zero: the other half has no gradient in the first step
        engine.train_step(sequences(model, RED, BLUE))
    changed = {name for name, value in weights(model).items() if not torch.equal(value, before[name])}
    assert {name.split(".")[-3] for name in changed} == {"lora_A", "lora_B"}
    saved = [name for name in model.state_dict() if ":features" in name and "lora_" not in name]
    assert saved == ["modalities.on_mission:features.encoder.weights"]


def test_all_of_it_is_trained_in_full_at_a_learning_rate_of_its_own(folder: str):
    model = make(folder, "full")
    before = weights(model)
    engine = LocalEngine(model, torch.device("cpu"))
    own, encoders = engine.optimizer.param_groups
    assert (own["lr"], encoders["lr"]) == (model.config.lr, 1e-4)
    engine.train_step(sequences(model, RED, BLUE))
    changed = {name for name, value in weights(model).items() if not torch.equal(value, before[name])}
    assert {"encoder.layer.0.attention.self.query.weight", "embeddings.LayerNorm.weight"} <= changed
    assert (weights(model)["embeddings.LayerNorm.weight"] - before["embeddings.LayerNorm.weight"]).abs().max() < 1.1e-4


@pytest.mark.parametrize("ensemble", [0, 2])
@pytest.mark.parametrize("mode", MODES[1:])
def test_a_trained_encoder_reads_every_text_of_a_batch_once_and_again_when_its_weights_have_changed(
    folder: str, mode: str, ensemble: int
):
    model = make(folder, mode, ensemble=ensemble)
    calls = count_calls(reader(model).encoder.tower)
    batch = sequences(model, RED, BLUE, RED)
    engine = LocalEngine(model, torch.device("cpu"))
    output, _ = engine.train_step(batch)
    assert calls == [2]
    with torch.no_grad():
        after = features(model, RED, BLUE)
        for _ in range(3):
            model.embed(output.z, batch.action)
    assert calls == [2, 2], "weights have changed once since"
    engine.train_step(batch)
    engine.train_step(batch)
    with torch.no_grad():
        assert not torch.equal(features(model, RED, BLUE), after)


@pytest.mark.parametrize("mode", MODES[1:])
def test_a_pass_over_what_came_before_leaves_no_features_of_earlier_weights(folder: str, mode: str):
    model = make(folder, mode)
    batch = replace(sequences(model, RED, BLUE), before=sequences(model, RED, BLUE, length=7))
    LocalEngine(model, torch.device("cpu")).train_step(batch)
    with torch.no_grad():
        known = features(model, RED, BLUE)
        reader(model).cache.clear()
        assert torch.equal(features(model, RED, BLUE), known)


@pytest.mark.parametrize("mode", MODES)
def test_what_was_trained_comes_back_from_a_checkpoint(folder: str, mode: str):
    model, loaded = make(folder, mode), make(folder, mode)
    batch = sequences(model, RED, BLUE)
    engine = LocalEngine(model, torch.device("cpu"))
    for _ in range(2):
        engine.train_step(batch)
    with torch.no_grad():
        features(loaded, RED)  # what was cached of other weights is forgotten
        loaded.load_state_dict(model.state_dict())
        assert torch.equal(features(loaded, RED, GREEN), features(model, RED, GREEN))
        assert torch.equal(loaded(sequences(loaded, RED, BLUE)).h, model(batch).h)


def test_a_checkpoint_is_not_read_beside_an_encoder_of_other_weights(folder: str, tmp_path: Path):
    other = make(save_text_encoder(tmp_path, seed=1))
    with pytest.raises(UserError, match=r"model\.pretrained\.mission\.id=.* is not the encoder that this agent was trained with"):
        other.load_state_dict(make(folder).state_dict())


@pytest.mark.parametrize("mode", MODES)
def test_a_text_without_any_token_says_nothing(folder: str, mode: str):
    model = make(folder, mode)
    encoder = reader(model).encoder
    both = encoder(["", RED])
    assert not both[0].any() and not encoder(["", ""]).any(), "this tokenizer adds nothing of its own"
    torch.testing.assert_close(both[1:], encoder([RED]))
    both.sum().backward() if encoder.trained else None
    assert torch.isfinite(model(sequences(model, "", "")).loss)


@pytest.mark.parametrize("mode", MODES)
def test_imagination_carries_what_names_the_text_and_sees_the_same_features(folder: str, mode: str):
    model = make(folder, mode, text_heads=2)
    batch = sequences(model, RED, BLUE, GREEN)
    with torch.no_grad():
        output = model(batch)
    env = ImaginationEnv(model, 3, 6, "cpu")
    env.begin(choose_starts(output, batch, 2))
    z = env.rollout(3, break_when_any_done=False)["z"]
    named = model.latents.split(z)["mission:features"]
    assert torch.equal(named[:, 0], named[:, -1])
    with torch.no_grad():
        rows, index = reader(model).rows(named[:, -1])
        torch.testing.assert_close(rows[index], features(model, RED, RED, BLUE, BLUE, GREEN, GREEN))


def test_a_text_that_may_be_missing_is_read_again_where_it_comes_back_in_imagination(folder: str):
    """It is shown at the first step; imagination starts there and two steps later."""
    companion = ModalitySpec(presence_key("mission"), "categorical", (1,), "int64", classes=(2,))
    leaves = [replace(leaf, optional=leaf.key == "mission") for leaf in SPEC.observations]
    torch.manual_seed(0)
    model = WorldModel(EnvSpec((*leaves, companion), SPEC.action), tiny_config(pretrained={"mission": folder})).eval()
    obs = random_observations((1, 3)) | {"mission": missions(RED)[:, None].repeat(3, 1), companion.key: np.zeros((1, 3, 1), int)}
    obs[companion.key][:, 0] = 1
    first = torch.tensor([[True, False, False]])
    z, h, context = model.prefill(model.tokenize(obs, grow=True), torch.zeros(1, 3, dtype=torch.int64), first)
    starts = starts_at(torch.tensor([[0, 2]]), z, h, first, context)
    env = ImaginationEnv(model, 12, 2)
    env.set_seed(0)
    z = env.imagine(lambda z, h: (torch.zeros(2, dtype=torch.int64), torch.zeros(2)), starts).z
    rows, index = model._features(z)["mission"]
    there = model.latents.present(z)["mission"]
    assert (~there[:, :-1] & there[:, 1:]).any(1).all(), "it comes back in both"
    with torch.no_grad():
        torch.testing.assert_close(rows[index], features(model, RED) * there.unsqueeze(-1))


def test_texts_whose_words_the_models_table_does_not_know_are_told_apart(folder: str):
    model = make(folder, text_heads=2)
    red, green = (model.tokenize(random_observations((1,)) | {"mission": missions(text)}) for text in (RED, GREEN))
    assert torch.equal(red["mission"], green["mission"]), "nothing was learned yet"
    z = [model.posterior(tokens)[0] for tokens in (red, green)]
    h = torch.zeros(1, model.config.width)
    action = torch.zeros(1, dtype=torch.int64)
    assert not torch.equal(*(model.embed(x, action) for x in z))
    assert not torch.equal(*(model.view(x, h, {}) for x in z)), "nor do they point at the same cells"


def test_a_text_that_nobody_has_shown_yet_says_nothing(folder: str):
    module = reader(make(folder))
    rows, index = module.rows(torch.tensor([[1, 2, 3, 4], [0, 0, 0, 0]]))
    assert rows[index].tolist() == [[0.0] * 12] * 2


def test_without_an_encoder_a_model_is_as_it_was(folder: str):
    torch.manual_seed(0)
    plain = WorldModel(SPEC, tiny_config())
    assert not plain.texts and not any("features" in name for name in plain.state_dict())
    (group,) = LocalEngine(plain, torch.device("cpu")).optimizer.param_groups
    assert all(ours is theirs for ours, theirs in zip(group["params"], plain.parameters(), strict=True))


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ({"mission": "/no/such/folder"}, r"model\.pretrained\.mission\.id=/no/such/folder is not there"),
        ({"mission": "no such id!"}, r"model\.pretrained\.mission\.id=no such id!: cannot be loaded"),
        ({"mission": {"mode": "lora"}}, r"model\.pretrained\.mission names no encoder"),
        (
            {"mission": {"id": "x", "mode": "warm"}},
            r"model\.pretrained\.mission\.mode=warm is unknown; choose frozen, lora",
        ),
        ({"mission": {"id": "x", "size": 3}}, r"model\.pretrained\.mission\.size=3 is unknown"),
        ({"mission": {"id": "x", "rank": "big"}}, r"model\.pretrained\.mission\.rank=big is not understood"),
        ({"mission": {"id": "x", "rank": 0}}, r"model\.pretrained\.mission\.rank=0 is too small"),
        ({"words": "x"}, r"model\.pretrained names `words`, which is not observed; observed are: image, pose\.0"),
        ({"image": "x"}, r"model\.pretrained\.image is given, but `image` is of kind grid"),
        ({"pose": {"0": {"id": "x"}}}, r"model\.pretrained\.pose\.0 is given, but `pose\.0` is of kind categorical"),
        ({"mission": 3}, r"model\.pretrained\.mission=3 names no encoder"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_sentence_by_its_key(entry: dict[str, object], sentence: str):
    with pytest.raises(UserError, match=sentence) as caught:
        WorldModel(SPEC, tiny_config(pretrained=entry))
    assert "\n" not in str(caught.value)


def test_an_encoder_of_pictures_or_without_a_tokenizer_is_refused_for_a_text(tmp_path: Path):
    vision = save_vision_encoder(tmp_path / "vit")
    with pytest.raises(UserError, match="reads pixel_values, but `mission` is of kind text; give an encoder of that kind"):
        make(vision)
    from transformers import AutoModel

    AutoModel.from_pretrained(save_text_encoder(tmp_path / "bert")).save_pretrained(tmp_path / "bare")
    with pytest.raises(UserError, match="its tokenizer cannot be loaded"):
        make(str(tmp_path / "bare"))
