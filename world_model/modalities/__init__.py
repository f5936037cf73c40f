"""One file a modality; `MODALITIES` names them by kind. Your own is chosen by `env.modalities.KEY=package.module.Class`."""

from __future__ import annotations

from importlib import import_module

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
    kind = MODALITIES.get(spec.kind) or _imported(spec)
    return kind(spec, config)


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
