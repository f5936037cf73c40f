"""One file a modality; `MODALITIES` names them by kind. A new one is a file and a line, chosen by `env.modalities.KEY=KIND`."""

from __future__ import annotations

from envs.errors import UserError
from envs.spaces.specs import ModalitySpec
from world_model.config import ModelConfig
from world_model.modalities.base import Modality
from world_model.modalities.categorical import Categorical
from world_model.modalities.grid import Grid
from world_model.modalities.image import Image
from world_model.modalities.text import Text
from world_model.modalities.vector import Vector

MODALITIES: dict[str, type[Modality]] = {
    "grid": Grid,
    "categorical": Categorical,
    "text": Text,
    "vector": Vector,
    "image": Image,
}


def make_modality(spec: ModalitySpec, config: ModelConfig) -> Modality:
    """The modality for one leaf of an observation.

    Raises:
        UserError: if no modality of that kind is known.
    """
    if spec.kind not in MODALITIES:
        raise UserError(
            f"observation `{spec.key}` is of kind {spec.kind}, which is none that the world model reads: "
            f"choose one of {', '.join(MODALITIES)} by env.modalities.{spec.key}=KIND, or add it to world_model.modalities."
        )
    return MODALITIES[spec.kind](spec, config)
