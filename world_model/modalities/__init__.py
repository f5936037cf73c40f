"""One file a modality; `MODALITIES` names them by kind. Your own is chosen by `env.modalities.KEY=package.module.Class`."""

from __future__ import annotations

from collections.abc import Sequence

from envs.by_name import class_by_name
from envs.errors import UserError
from envs.spaces.specs import ModalitySpec
from world_model.config import ModelConfig
from world_model.modalities.base import Modality
from world_model.modalities.categorical import Categorical
from world_model.modalities.grid import Grid
from world_model.modalities.image import Image
from world_model.modalities.learned_grid import LearnedGrid
from world_model.modalities.learned_image import LearnedImage
from world_model.modalities.text import Text
from world_model.modalities.vector import Vector

MODALITIES: dict[str, type[Modality]] = {
    "grid": Grid,
    "categorical": Categorical,
    "text": Text,
    "vector": Vector,
    "image": Image,
}
LEARNED: dict[str, type[Modality]] = {"grid": LearnedGrid, "image": LearnedImage}  # for the keys of `model.learned`


def make_modality(spec: ModalitySpec, config: ModelConfig) -> Modality:
    """The modality for one leaf of an observation.

    Raises:
        UserError: if no modality of that kind is known.
    """
    if spec.key in config.learned and spec.kind in LEARNED:
        return LEARNED[spec.kind](spec, config)
    key = f"env.modalities.{spec.key}"
    way_out = f"choose one of {', '.join(MODALITIES)} by {key}=KIND, or your own by {key}=package.module.Class"
    kind = MODALITIES.get(spec.kind) or class_by_name(spec.kind, Modality, key, way_out)
    return kind(spec, config)


def check_learned(specs: Sequence[ModalitySpec], config: ModelConfig) -> None:
    """See that all of `model.learned` can have learned codes.

    Raises:
        UserError: a key that is not observed, or that is neither a grid nor an image.
    """
    kinds = {spec.key: spec.kind for spec in specs}
    able = ", ".join(key for key, kind in kinds.items() if kind in LEARNED) or "none"
    for key in config.learned:
        if key not in kinds:
            raise UserError(f"model.learned names `{key}`, which is not observed; grids and images are: {able}.")
        if kinds[key] not in LEARNED:
            raise UserError(f"model.learned names `{key}` of kind {kinds[key]}, but is for grids and images; here: {able}.")
