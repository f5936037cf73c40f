"""The settings of other learners: a dataclass of defaults, and `key=value` words that change them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, Field, fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

from omegaconf import OmegaConf

from envs.errors import UserError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Settings = TypeVar("Settings", bound="DataclassInstance")


def with_overrides(settings: Settings, overrides: Sequence[str], name: str) -> Settings:
    """`settings` with `key=value` overrides; every field has a default, whose type a value has to have.

    Args:
        name: of the learner, for the sentence that refuses an override.

    Raises:
        UserError: an unknown key or a value of another type.
    """
    known: dict[str, Field[Any]] = {field.name: field for field in fields(settings)}
    changes: dict[str, Any] = {}
    for word in overrides:
        key, _, text = word.partition("=")
        if key not in known:
            raise UserError(f"the {name} has no key {key}; its keys are: {', '.join(known)}.")
        value = OmegaConf.to_container(OmegaConf.from_dotlist([f"{key}={text}"]))[key]  # type: ignore[index, call-overload]
        default = known[key].default
        assert default is not MISSING
        value = tuple(value) if isinstance(value, list) else float(value) if _is_float(value, default) else value
        if type(value) is not type(default):
            raise UserError(f"the {name}'s {key}={text} has to be a {type(default).__name__}, as in {key}={default}.")
        changes[key] = value
    return replace(settings, **changes)


def _is_float(value: Any, default: Any) -> bool:
    return isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool)
