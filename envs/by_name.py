"""Classes of a user's own, named in the config as `package.module.Class`."""

from __future__ import annotations

from importlib import import_module
from typing import TypeVar

from envs.errors import UserError

Base = TypeVar("Base")


def class_by_name(name: str, base: type[Base], key: str, way_out: str) -> type[Base]:
    """The subclass of `base` that `name` names, as the config asks for it under `key`.

    Raises:
        UserError: there is none; `way_out` says what else to choose.
    """
    module, _, attribute = name.rpartition(".")
    if not module:
        raise UserError(f"{key} '{name}' is unknown; {way_out}")
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(f"{key} '{name}' cannot be imported ({error}); {way_out}") from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise UserError(f"{key} '{name}' is no subclass of {base.__module__}.{base.__qualname__}; {way_out}")
    return found
