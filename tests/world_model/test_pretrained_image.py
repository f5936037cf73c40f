"""Images read by a pretrained vision encoder, as codes beside those of their pixels."""

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
from world_model.engines.local import LocalEngine
from world_model.imagination import ImaginationEnv
from world_model.model import WorldModel
from world_model.pretrained.image import ImageFeatures
from world_model.starts import choose_starts

needs_peft = pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="needs the extra `lora`")
MODES = ["frozen", pytest.param("lora", marks=needs_peft), "full"]
KEY = "camera:features"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_vision_encoder(tmp_path_factory.mktemp("vit"))


def make(folder: str, mode: str = "frozen", spec: EnvSpec = SPEC, **changes: object) -> WorldModel:
    torch.manual_seed(0)
    entry = {"id": folder, "mode": mode, "groups": 3} | changes
    return WorldModel(spec, tiny_config(pretrained={"camera": entry})).eval()


def reader(model: WorldModel) -> ImageFeatures:
    found = model.modality(KEY)
    assert isinstance(found, ImageFeatures)
    return found


def weights(model: WorldModel) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in reader(model).pretrained.tower.state_dict().items()}


def frames(*shades: int) -> np.ndarray:
    return np.stack([np.full((6, 10, 1), shade, np.uint8) for shade in shades])


def test_the_features_are_the_mean_of_what_the_encoder_sees_in_the_picture_in_its_own_size_and_scale(folder: str):
    from transformers import AutoModel

    shown = frames(0, 255)
    vit = AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        expected = torch.stack([vit(torch.full((1, 3, 8, 8), x)).last_hidden_state[0].mean(0) for x in (-1.0, 1.0)])
    torch.testing.assert_close(reader(make(folder)).tokenize(shown), expected)


def test_how_a_picture_is_to_be_shown_is_read_from_beside_the_encoder(tmp_path: Path):
    folder = save_vision_encoder(tmp_path)
    told = '{"image_mean": [0.5, 0, 1], "image_std": [0.25, 1, 2], "size": {"height": 8, "width": 8}}'
    (tmp_path / "preprocessor_config.json").write_text(told)
    pictures = reader(make(folder)).pretrained._pictures(torch.from_numpy(frames(255)))
    assert pictures.shape == (1, 3, 8, 8) and torch.allclose(pictures[0, :, 0, 0], torch.tensor([2.0, 1.0, 0.0]), atol=1e-5)


def test_a_frozen_encoder_reads_every_frame_once_and_is_neither_trained_nor_saved(folder: str):
    model = make(folder)
    module, before = reader(model), weights(model)
    calls = count_calls(module.pretrained.tower)
    first = module.tokenize(frames(1, 2, 1))
    assert calls == [2] and torch.equal(first[0], first[2])
    assert torch.equal(module.tokenize(frames(2, 1))[0], first[1]) and calls == [2]
    engine = LocalEngine(model, torch.device("cpu"))
    output, _ = engine.train_step(random_sequences(model, 2, 5))
    assert output.losses[f"reconstruction/{KEY}"] > 0 and f"prior/{KEY}" in output.losses
    assert all(torch.equal(value, before[name]) for name, value in weights(model).items())
    assert [name for name in model.state_dict() if "pretrained" in name] == [f"modalities.on_{KEY}.pretrained.weights"]


def test_frames_that_do_not_fit_into_memory_are_forgotten(folder: str):
    module = reader(make(folder))
    module.cache.most = 2
    calls = count_calls(module.pretrained.tower)
    for shade in (1, 2, 1, 3, 1, 2):  # 3 takes the place of 2, which was not asked for the longest
        module.tokenize(frames(shade))
    assert len(calls) == 4 and len(module.cache) == 2


def test_the_codes_of_frozen_features_learn_to_tell_them_apart(folder: str):
    model = make(folder)
    module = reader(model)
    shown = module.tokenize(frames(0, 90, 180, 255).repeat(4, 0), grow=True)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        loss = module.encode(shown)[1].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 4
    assert module.encode(shown)[0].unique(dim=0).shape[0] == 4


@needs_peft
def test_only_adapters_are_trained_in_lora(folder: str):
    model = make(folder, "lora", lr=1e-2)
    before = weights(model)
    engine = LocalEngine(model, torch.device("cpu"))
    for _ in range(2):
        engine.train_step(random_sequences(model, 2, 4))
    changed = {name for name, value in weights(model).items() if not torch.equal(value, before[name])}
    assert {name.split(".")[-3] for name in changed} == {"lora_A", "lora_B"}


def test_all_of_it_is_trained_in_full_by_what_its_codes_have_to_tell(folder: str):
    model = make(folder, "full", lr=1e-2)
    before = weights(model)
    calls = count_calls(reader(model).pretrained.tower)
    batch = random_sequences(model, 2, 4)
    batch.obs[KEY] = batch.obs[KEY][:1].repeat(2, 1, 1, 1, 1)
    LocalEngine(model, torch.device("cpu")).train_step(batch)
    assert sum(calls) == len(batch.obs[KEY].flatten(0, 1).unique(dim=0)), "equal frames are read once"
    changed = {name for name, value in weights(model).items() if not torch.equal(value, before[name])}
    assert "embeddings.patch_embeddings.projection.weight" in changed


@pytest.mark.parametrize("mode", MODES)
def test_what_was_trained_comes_back_from_a_checkpoint_and_imagination_foretells_the_codes(folder: str, mode: str):
    model, loaded = make(folder, mode), make(folder, mode)
    batch = random_sequences(model, 3, 5)
    engine = LocalEngine(model, torch.device("cpu"))
    for _ in range(2):
        engine.train_step(batch)
    with torch.no_grad():
        loaded.load_state_dict(model.state_dict())
        output = model(batch)
        assert torch.equal(loaded(batch).h, output.h)
    assert {"camera", KEY} <= set(model.latents.slices)
    env = ImaginationEnv(model, 3, 6, "cpu")
    env.begin(choose_starts(output, batch, 2))
    codes = model.latents.split(env.rollout(3, break_when_any_done=False)["next", "z"])[KEY]
    assert codes.shape == (6, 3, 3) and codes.min() >= 0 and codes.max() < 4


def test_a_camera_that_may_be_missing_hides_what_was_seen_in_it_too(folder: str):
    leaves = [replace(leaf, optional=leaf.key == "camera") for leaf in SPEC.observations]
    there = ModalitySpec(presence_key("camera"), "categorical", (1,), "int64", classes=(2,))
    model = make(folder, spec=EnvSpec((*leaves, there), SPEC.action))
    obs = random_observations((2,)) | {there.key: np.array([[1], [0]])}
    tokens = model.tokenize(obs, grow=True)
    assert reader(model).count == 1, "nothing is learned of what stands in its place"
    tokens[KEY] += 3
    z = model.posterior(tokens)[0]
    parts = model.latents.split(z)
    assert parts["camera"][1].tolist() == [0] * 6 and parts[KEY][1].tolist() == [0] * 3
    hidden = model.latents.split(model.latents.hide(z, {"camera": torch.tensor([True, True])}))
    assert not hidden[KEY].any() and not hidden["camera"].any() and not hidden[there.key].any()


def test_an_encoder_of_texts_is_refused_for_an_image(tmp_path: Path):
    with pytest.raises(UserError, match="reads input_ids, but `camera` is of kind image; give an encoder of that kind"):
        make(save_text_encoder(tmp_path))
