"""What `model.pretrained` adds to a world model: beside the codes of an observation, a block of what an encoder makes of it."""

from __future__ import annotations

from collections.abc import Sequence

from envs.spaces.specs import ModalitySpec
from world_model.config import ModelConfig
from world_model.modalities.base import Modality
from world_model.pretrained.image import ImageFeatures
from world_model.pretrained.settings import PretrainedConfig, read_settings
from world_model.pretrained.text import TextFeatures


def features_key(key: str) -> str:
    """The key of the block that a pretrained encoder makes of the observation `key`."""
    return f"{key}:features"


def make_readers(observations: Sequence[ModalitySpec], config: ModelConfig) -> list[tuple[ModalitySpec, Modality]]:
    """Observations that an encoder reads, and the modality of its features.

    Raises:
        UserError: see `read_settings` and `world_model.pretrained.loading`.
    """
    settings = read_settings(config.pretrained, observations)
    return [(leaf, _reader(leaf, config, settings[leaf.key])) for leaf in observations if leaf.key in settings]


def _reader(leaf: ModalitySpec, config: ModelConfig, settings: PretrainedConfig) -> Modality:
    features = TextFeatures if leaf.kind == "text" else ImageFeatures
    return features(leaf, config, features_key(leaf.key), settings)
