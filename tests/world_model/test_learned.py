"""Learned codes of grids and images: a few numbers that tell a whole view, and that can be foretold."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from envs.errors import UserError
from envs.spaces.specs import ModalitySpec
from tests.world_model.conftest import SPEC, random_observations, random_sequences, tiny_config
from world_model.heads import OrderedPrior
from world_model.latents import module_name
from world_model.modalities import make_modality
from world_model.model import WorldModel
from world_model.quantisation import quantise


def learned_model(*keys: str) -> WorldModel:
    torch.manual_seed(0)
    return WorldModel(SPEC, tiny_config(learned=list(keys), view_groups=6, view_classes=5, view_channels=4)).eval()


def pictures() -> np.ndarray:
    """Eight frames of 20 x 24: a bright square somewhere on a shade of grey."""
    frames = np.full((8, 20, 24, 3), 60, np.uint8)
    for i, frame in enumerate(frames):
        frame[2 * i : 2 * i + 6, 3 * (i % 4) : 3 * (i % 4) + 8] = (250, 20 * i, 0)
    return frames


def test_numbers_are_rounded_to_levels_and_gradients_pass():
    """Three levels: tanh(2) = 0.96 is 1, tanh(0.1) is 0, tanh(-0.6) = -0.54 is nearer to -1 than to 0."""
    x = torch.tensor([2.0, 0.1, -0.6], requires_grad=True)
    codes, levels = quantise(x, 3)
    assert codes.tolist() == [2, 1, 0] and levels.tolist() == [1.0, 0.0, -1.0]
    levels.sum().backward()
    torch.testing.assert_close(x.grad, 1 - x.detach().tanh() ** 2)


@pytest.mark.parametrize("kind", ["grid", "image"])
def test_a_batch_that_is_learned_by_heart_comes_back_from_its_codes(kind: str):
    torch.manual_seed(0)
    if kind == "grid":
        raw = np.random.default_rng(0).integers(0, 3, (8, 4, 5, 2)).astype(np.uint8)
    else:
        raw = pictures()
    config = tiny_config(learned=["view"], hidden=64, view_groups=8, view_classes=5, view_channels=8)
    modality = make_modality(ModalitySpec("view", kind, raw.shape[1:], "uint8"), config)
    tokens = modality.tokenize(raw, grow=True)
    before = modality.encode(tokens)[1].mean().item()
    optimizer = torch.optim.Adam(modality.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, total_iters=250)
    for _ in range(250):
        optimizer.zero_grad()
        modality.encode(tokens)[1].mean().backward()
        optimizer.step()
        schedule.step()
    codes, loss = modality.encode(tokens)
    assert codes.shape == (8, 8) and codes.dtype == torch.int64 and loss.shape == (8,)
    assert loss.mean() < 0.05 * before and len(codes.unique(dim=0)) == 8
    seen = modality.detokenize(codes)
    assert seen.shape == raw.shape and seen.dtype == raw.dtype
    off = np.abs(seen.astype(int) - raw)
    assert (off == 0).mean() > 0.99 if kind == "grid" else off.mean() < 12, off.mean()


@pytest.mark.parametrize("size", [(6, 10, 1), (7, 5, 3), (64, 64, 3), (33, 84, 4)])
def test_images_of_any_size_are_encoded_and_decoded(size: tuple[int, int, int]):
    modality = make_modality(ModalitySpec("view", "image", size, "uint8"), tiny_config(learned=["view"], view_channels=2))
    raw = np.random.default_rng(0).integers(0, 256, (2, 3, *size)).astype(np.uint8)
    codes, loss = modality.encode(modality.tokenize(raw))
    assert codes.shape == (2, 3, 32) and loss.shape == (2, 3)
    assert modality.detokenize(codes).shape == raw.shape


def test_the_loss_of_an_image_is_its_squared_error_summed_over_the_frame():
    """Half grey is 0 before the decoder, which answers 0: a white frame of 6 x 4 pixels is off by 0.5 everywhere, 6 in all."""
    modality = make_modality(ModalitySpec("view", "image", (6, 4, 1), "uint8"), tiny_config(learned=["view"], view_channels=2))
    for parameter in modality.decoder.parameters():  # type: ignore[union-attr]
        torch.nn.init.zeros_(parameter)
    white = modality.tokenize(np.full((1, 6, 4, 1), 255, np.uint8))
    assert modality.encode(white)[1].item() == pytest.approx(6.0)


def test_the_model_foretells_learned_codes_by_ordered_priors_and_trains_their_encoders():
    model = learned_model("image", "camera")
    batch = random_sequences(model, 4, 8, ends={0: 3})
    output = model(batch)
    parts = model.latents.split(output.z)
    for key in ("image", "camera"):
        assert isinstance(model.priors[module_name(key)], OrderedPrior)
        assert parts[key].shape == (4, 8, 6) and (parts[key] < 5).all()
        assert output.losses[f"reconstruction/{key}"] > 0 and output.losses[f"prior/{key}"] > 0
    assert "unknown/image" not in output.metrics, "its codes are no symbols"
    output.loss.backward()
    for key in ("image", "camera"):
        for name, parameter in model.modality(key).named_parameters():
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, (key, name)


def test_only_the_named_modalities_change():
    plain, model = learned_model(), learned_model("camera")
    same = [a == b for a, b in zip(plain.latents.blocks, model.latents.blocks, strict=True)]
    assert same == [block.key != "camera" for block in plain.latents.blocks]


def test_weights_loaded_into_a_new_model_read_the_same_codes_back():
    model, loaded = learned_model("image", "camera"), learned_model("image", "camera")
    obs = random_observations((3, 2))
    tokens = model.tokenize(obs, grow=True)
    for parameter in loaded.parameters():
        torch.nn.init.normal_(parameter)
    loaded.load_state_dict(model.state_dict())
    z, again = model.posterior(tokens)[0], loaded.posterior(loaded.tokenize(obs))[0]
    assert torch.equal(z, again)
    for key in ("image", "camera"):
        part = model.latents.slices[key]
        assert np.array_equal(model.modality(key).detokenize(z[..., part]), loaded.modality(key).detokenize(z[..., part]))


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("images", "model.learned names `images`, which is not observed; grids and images are: image, camera."),
        ("mission", "model.learned names `mission` of kind text, but is for grids and images; here: image, camera."),
    ],
)
def test_what_cannot_have_learned_codes_is_refused(key: str, said: str):
    with pytest.raises(UserError) as refused:
        learned_model(key)
    assert str(refused.value) == said
