"""`model.pretrained`: which observation is read by which encoder, and how."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from envs.errors import UserError
from envs.spaces.specs import ModalitySpec

MODES = ("frozen", "lora", "full")
READABLE = ("text", "image")
WAY_OUT = "write model.pretrained.KEY={id: FOLDER_OR_HUB_ID, mode: frozen}"


@dataclass(frozen=True)
class PretrainedConfig:
    """One entry of `model.pretrained`.

    Attributes:
        id: a folder, or a repository of the Hugging Face hub.
        mode: `frozen`; `lora`, where adapters beside its layers are trained; `full`, where all of it is.
        revision: of the repository; the newest if empty.
        rank: of the adapters.
        lr: learning rate of what is trained of it.
        groups: numbers that the features of an image are encoded into.
        cache_mb: memory for features of inputs that come again.
    """

    id: str
    mode: str = "frozen"
    revision: str = ""
    rank: int = 8
    lr: float = 1e-4
    groups: int = 16
    cache_mb: int = 256


def read_settings(entries: Mapping[str, Any], observations: Sequence[ModalitySpec]) -> dict[str, PretrainedConfig]:
    """`{observation key: settings}` of entries that may be nested as observations are, or a mere id.

    Raises:
        UserError: an entry for what is not observed or no encoder reads, or one that says nothing that is understood.
    """
    leaves = {leaf.key: leaf for leaf in observations}
    read = {}
    for key, entry in _entries(entries):
        if key not in leaves:
            raise UserError(f"model.pretrained names `{key}`, which is not observed; observed are: {', '.join(leaves)}.")
        kind = leaves[key].kind
        if kind not in READABLE:
            raise UserError(
                f"model.pretrained.{key} is given, but `{key}` is of kind {kind}: encoders read {' and '.join(READABLE)}; "
                f"leave it out, or choose another kind by env.modalities.{key}=KIND."
            )
        if kind == "text" and not leaves[key].static:
            raise UserError(
                f"model.pretrained.{key} is given, but the text `{key}` changes within an episode, and no encoder reads words "
                f"that are only imagined; leave it out, or say env.modalities.{key}=static if it does not change."
            )
        read[key] = _settings(key, entry)
    return read


def _entries(entries: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, entry in entries.items():
        key = f"{prefix}{name}"
        if isinstance(entry, str):
            yield key, {"id": entry}
        elif isinstance(entry, Mapping) and set(entry) & {field.name for field in fields(PretrainedConfig)}:
            yield key, entry
        elif isinstance(entry, Mapping) and entry:
            yield from _entries(entry, f"{key}.")
        else:
            raise UserError(f"model.pretrained.{key}={entry} names no encoder; {WAY_OUT}.")


def _settings(key: str, entry: Mapping[str, Any]) -> PretrainedConfig:
    types = {field.name: type(field.default) if field.name != "id" else str for field in fields(PretrainedConfig)}
    for name, value in entry.items():
        where = f"model.pretrained.{key}.{name}={value}"
        if name not in types:
            raise UserError(f"{where} is unknown; choose one of {', '.join(types)}.")
        number = isinstance(value, int) and not isinstance(value, bool)
        if not (isinstance(value, types[name]) or (types[name] is float and number)) or isinstance(value, bool):
            raise UserError(f"{where} is not understood; it takes a value of type {types[name].__name__}.")
        if not isinstance(value, str) and value <= 0:
            raise UserError(f"{where} is too small; give a number above 0.")
    if not entry.get("id"):
        raise UserError(f"model.pretrained.{key} names no encoder; {WAY_OUT}.")
    settings = PretrainedConfig(**entry)
    if settings.mode not in MODES:
        raise UserError(f"model.pretrained.{key}.mode={settings.mode} is unknown; choose {', '.join(MODES[:-1])} or {MODES[-1]}.")
    return settings
