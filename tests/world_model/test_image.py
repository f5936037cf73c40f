"""Images: pixels to cells' codes and back, for any size."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from envs.spaces.specs import ActionSpec, EnvSpec, ModalitySpec
from tests.world_model.conftest import nothing_seen, random_observations, random_sequences, tiny_config
from world_model.dynamics import RollingState, rolling_step, segment_mask
from world_model.heads import GridPrior
from world_model.latents import module_name
from world_model.modalities import make_modality
from world_model.modalities.image import Image
from world_model.model import WorldModel


def image(shape: tuple[int, ...], **changes: object) -> Image:
    module = make_modality(ModalitySpec("camera", "image", shape, "uint8"), tiny_config(**changes))
    assert isinstance(module, Image)
    return module


@pytest.mark.parametrize("shape", [(24, 40, 1), (56, 56, 3), (7, 9, 4), (3, 5, 1), (64, 48, 12)])
@pytest.mark.parametrize("batch", [(), (3,), (2, 5)])
def test_images_of_any_size_become_one_code_a_cell_and_come_back(shape: tuple[int, ...], batch: tuple[int, ...]):
    module = image(shape, image_patch=8, image_codes=600)
    raw = np.random.default_rng(0).integers(0, 256, (*batch, *shape), dtype=np.uint8)
    codes = module.tokenize(raw, grow=True)
    rows, columns = -(-shape[0] // 8), -(-shape[1] // 8)
    assert codes.shape == (*batch, rows * columns) and codes.dtype == torch.int64
    assert module.block.layout == (rows, columns) and module.block.groups == rows * columns
    back = module.detokenize(codes)
    assert back.shape == raw.shape and back.dtype == np.uint8 and np.array_equal(back, raw)


def test_cells_that_look_alike_have_one_code_wherever_they_are():
    module = image((8, 12, 1))  # cells of 4 x 4 pixels: 2 rows of 3
    raw = np.zeros((8, 12, 1), np.uint8)
    raw[1, 1] = raw[5, 9] = 200  # the same spot in the first and the last cell
    codes = module.tokenize(raw, grow=True)
    assert codes[0] == codes[5] != codes[1] and codes[1:5].eq(0).all()


def test_a_few_pixels_are_not_dropped():
    """A ball of two pixels on a still background: its cell differs by sqrt(2 / 64) = 0.18 from the empty one."""
    module = image((64, 64, 1), image_patch=8, image_codes=256)
    frames = np.zeros((20, 64, 64, 1), np.uint8)
    frames[13, 30, 30:32] = 255
    codes = module.tokenize(frames, grow=True)
    assert np.array_equal(module.detokenize(codes), frames) and (codes != 0).sum() == 1


def test_without_growing_what_was_never_seen_is_taken_for_what_is_most_like_it():
    module = image((4, 4, 1))
    module.tokenize(np.full((1, 4, 4, 1), 200, np.uint8), grow=True)
    codes = module.tokenize(np.stack([np.full((4, 4, 1), shade, np.uint8) for shade in (90, 110)]))
    assert codes.flatten().tolist() == [0, 1] and module.detokenize(codes).reshape(2, -1)[:, 0].tolist() == [0, 200]


def test_a_batch_of_many_frames_has_the_codes_of_each_alone():
    module = image((8, 12, 1))
    frames = np.random.default_rng(0).integers(0, 3, (150, 8, 12, 1)).astype(np.uint8) * 100
    codes = module.tokenize(frames, grow=True)
    assert torch.equal(module.tokenize(frames), torch.stack([module.tokenize(frame) for frame in frames]))
    assert codes.max() == 15, "the book is full: what is farthest from all has a place"


def test_codes_mean_the_same_after_saving_and_loading():
    module, loaded = image((8, 12, 1)), image((8, 12, 1))
    raw = random_observations((4,), seed=2)["camera"]
    frames = np.zeros((4, 8, 12, 1), np.uint8)
    frames[:, :6, :10] = raw
    codes = module.tokenize(frames, grow=True)
    loaded.load_state_dict(module.state_dict())
    assert torch.equal(loaded.tokenize(frames), codes) and loaded.classes_in_use == module.classes_in_use
    assert module.given_out == module.book.entries == loaded.given_out == len(codes.unique()) < module.classes_in_use


def test_the_next_image_is_predicted_by_attention_to_the_present_one_among_codes_in_use(model: WorldModel):
    batch = random_sequences(model, 2, 6)
    assert isinstance(model.priors[module_name("camera")], GridPrior)
    z = model(batch).z
    assert model.prior_logits(torch.randn(2, 6, 32), z, nothing_seen(model, 2, 6))["camera"].shape == (2, 6, 6, 16)


def test_a_step_at_a_time_with_a_cache_equals_the_pass_over_all_steps_with_images():
    spec = EnvSpec((ModalitySpec("camera", "image", (6, 10, 1), "uint8"),), ActionSpec("discrete", 5))
    torch.manual_seed(0)
    model = WorldModel(spec, tiny_config()).eval()
    frames = random_observations((2, 9))["camera"]
    action = torch.randint(5, (2, 9))
    first = torch.zeros(2, 9, dtype=torch.bool)
    first[:, 0] = first[1, 4] = True
    with torch.no_grad():
        z, _ = model.posterior(model.tokenize({"camera": frames}, grow=True))
        tokens = model.embed(z, action)
        whole = model.dynamics(tokens, segment_mask(first, model.config.window), torch.arange(9).unsqueeze(0))
        state = RollingState.zeros(model.dynamics, 2, torch.device("cpu"))
        for t in range(9):
            z, _ = model.posterior(model.tokenize({"camera": frames[:, t]}))
            h, state = rolling_step(model.dynamics, model.embed(z, action[:, t]), state.restart(first[:, t]))
            torch.testing.assert_close(h, whole[:, t], rtol=1e-4, atol=1e-5)


def test_it_tells_how_far_off_its_codes_are_in_grey_levels_and_how_many_are_given_out():
    module = image((4, 8, 1), image_codes=3)  # two cells
    assert module.pop_metrics() == {"codes": 1.0}
    shades = np.zeros((1, 4, 8, 1), np.uint8)
    shades[0, :, 4:] = 255
    module.tokenize(shades, grow=True)
    assert module.pop_metrics() == {"codes": 2.0, "quantisation": 0.0}, "every cell has a code of its own"
    shades[0, :, 4:] = 251  # 4 / 255 is within the radius: the code of 255 stands for it; the other cell is still black
    module.tokenize(shades, grow=True)
    assert module.pop_metrics() == {"codes": 2.0, "quantisation": pytest.approx(4 / 2**0.5, abs=0.01)}
    module.tokenize(shades)
    assert module.pop_metrics() == {"codes": 2.0}, "of what is not taken in nothing is known"


def test_that_all_codes_are_given_out_is_told_once(caplog: pytest.LogCaptureFixture):
    module = image((4, 4, 1), image_codes=3)
    for shade in (0, 60, 120, 180, 240):
        before = len(caplog.records)
        module.tokenize(np.full((1, 4, 4, 1), shade, np.uint8), grow=True)
        assert (len(caplog.records) > before) == (shade == 120)
    assert "all model.image_codes=3 codes of `camera` are given out" in caplog.text and "model.image_patch" in caplog.text
    again = image((4, 4, 1), image_codes=3)
    again.load_state_dict(module.state_dict())
    again.tokenize(np.full((1, 4, 4, 1), 30, np.uint8), grow=True)
    assert len(caplog.records) == 1, "a run that goes on has said so already"
