"""One file a modality; `MODALITIES` names them by kind. Your own is chosen by `env.modalities.KEY=package.module.Class`."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

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
    kind = MODALITIES.get(spec.kind) or _imported(spec)
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


def _imported(spec: ModalitySpec) -> type[Modality]:
    """The class that a kind such as `package.module.Class` names."""
    module, _, name = spec.kind.rpartition(".")
    way_out = (
        f"choose one of {', '.join(MODALITIES)} by env.modalities.{spec.key}=KIND, "
        f"or your own by env.modalities.{spec.key}=package.module.Class."
    )
    if not module:
        raise UserError(f"observation `{spec.key}` is of kind {spec.kind}, which is none that the world model reads: {way_out}")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"observation `{spec.key}` asks for the modality {spec.kind}, but {error}: {way_out}") from error
    if not (isinstance(found, type) and issubclass(found, Modality)):
        raise UserError(
            f"env.modalities.{spec.key}={spec.kind} is no subclass of world_model.modalities.base.Modality: {way_out}"
        )
    return found
