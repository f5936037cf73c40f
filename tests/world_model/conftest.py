"""A tiny model over every modality there is, and random sequences for it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from envs.spaces.specs import ActionSpec, EnvSpec, ModalitySpec
from world_model.batch import Sequences
from world_model.config import ModelConfig
from world_model.model import WorldModel

SPEC = EnvSpec(
    (
        ModalitySpec("image", "grid", (3, 3, 2), "uint8"),
        ModalitySpec("pose.0", "categorical", (2,), "int64", classes=(4, 2)),
        ModalitySpec("mission", "text", (24,), "uint8", static=True),
        ModalitySpec("speed", "vector", (3,), "float32"),
        ModalitySpec("camera", "image", (6, 10, 1), "uint8"),
    ),
    ActionSpec("discrete", 5),
)


def tiny_config(**changes: object) -> ModelConfig:
    sizes = dict(width=32, layers=2, heads=2, hidden=32, symbol_width=8, cell_width=8, window=6, table_size=16)
    sizes |= dict(text_words=3, text_table_size=8, learned_groups=4, learned_classes=4)
    sizes |= dict(image_patch=4, image_codes=16)
    return ModelConfig(**(sizes | changes))  # type: ignore[arg-type]


def random_observations(shape: tuple[int, ...], seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shades = rng.integers(0, 3, (*shape, 2, 3)) * 100  # of 2 x 3 cells, of which 6 x 10 pixels are seen
    mission = np.zeros((*shape, 24), np.uint8)
    mission[..., :8] = np.frombuffer(b"red ball", np.uint8)
    return {
        "image": rng.integers(0, 3, (*shape, 3, 3, 2)).astype(np.uint8),
        "pose.0": rng.integers(0, (4, 2), (*shape, 2)),
        "mission": mission,
        "speed": rng.normal(size=(*shape, 3)).astype(np.float32),
        "camera": shades.repeat(4, -2).repeat(4, -1)[..., :6, :10, None].astype(np.uint8),
    }


def random_sequences(model: WorldModel, batch: int, length: int, ends: dict[int, int] | None = None, seed: int = 0) -> Sequences:
    """`ends` maps a row to the step at which its episode terminates and after which a new one starts."""
    rng = np.random.default_rng(seed)
    first = torch.zeros(batch, length, dtype=torch.bool)
    first[:, 0] = True
    terminated = torch.zeros_like(first)
    for row, step in (ends or {}).items():
        terminated[row, step] = True
        first[row, step + 1] = True
    return Sequences(
        obs=model.tokenize(random_observations((batch, length), seed), grow=True),
        action=torch.from_numpy(rng.integers(0, model.spec.action.size, (batch, length))),
        reward=torch.from_numpy(rng.normal(size=(batch, length)).astype(np.float32)),
        first=first,
        terminated=terminated,
        truncated=torch.zeros_like(first),
    )


def nothing_seen(model: WorldModel, *shape: int) -> dict[str, torch.Tensor]:
    """What empty maps hold for the next views of states of this shape."""
    return {key: torch.zeros(*shape, model.maps[key].cells, 2, dtype=torch.int64) for key in model.maps.names}


@pytest.fixture
def model() -> WorldModel:
    torch.manual_seed(0)
    model = WorldModel(SPEC, tiny_config()).eval()
    attention = model.embed_latent.attention
    assert attention is not None
    torch.nn.init.normal_(attention.up.weight, std=0.1)  # it starts by changing nothing
    return model
