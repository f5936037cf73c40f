"""`env.modalities`: what the user knows better than the inference, leaf by leaf."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from envs.errors import UserError
from envs.spaces.specs import KINDS

IGNORE = "ignore"
CHANGE = {"static": True, "changing": False}
OPTIONAL = "optional"


@dataclass(frozen=True)
class Override:
    """What is asked of one leaf; None where the inference decides.

    Attributes:
        kind: the kind of modality to read it as.
        static: whether it is constant over an episode, so that it is carried along and never predicted.
        optional: it may be missing at some steps or in some tasks.
        ignored: it is not observed at all.
    """

    kind: str | None = None
    static: bool | None = None
    optional: bool = False
    ignored: bool = False


def read_overrides(entries: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Override]:
    """`{leaf key: Override}` of entries such as `{"image": "grid", "pose": {"0": "vector"}, "mission": "text:changing"}`.

    An entry is `ignore`, or some of these with colons between them: a kind, the import path of a modality of one's own
    (`package.module.Class`), `static` or `changing`, `optional`. Nested entries are joined by dots.

    Raises:
        UserError: an entry that names no leaf, or says nothing that is understood.
    """
    read: dict[str, Override] = {}
    for given, text in _flat(entries):
        key = given if given in keys else unquote(given)  # `run.py` percent-encodes keys that Hydra does not take
        if key not in keys:
            raise UserError(f"env.modalities names `{key}`, which is not observed; observed are: {', '.join(keys)}.")
        read[key] = _read(key, text)
    return read


def optional_leaves(entries: Mapping[str, Any], keys: Sequence[str]) -> frozenset[str]:
    """Which of the leaves `keys` may be missing. What other entries name is not looked at: another task may have it."""
    read = {given if given in keys else unquote(given): text for given, text in _flat(entries)}
    return frozenset(key for key, text in read.items() if key in keys and _read(key, text).optional)


def _flat(entries: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in entries.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)


def _read(key: str, text: str) -> Override:
    if text == IGNORE:
        return Override(ignored=True)
    words = [word.strip() for word in text.split(":")]
    change = [CHANGE[word] for word in words if word in CHANGE]
    kinds = [word for word in words if word not in CHANGE and word != OPTIONAL]
    if len(change) > 1 or len(kinds) > 1 or not all(name.isidentifier() for kind in kinds for name in kind.split(".")):
        raise UserError(
            f"env.modalities.{key}={text} is not understood; write a kind ({', '.join(KINDS)}), static or changing, {OPTIONAL}, "
            f"several as in text:changing, or {IGNORE}."
        )
    return Override(kinds[0] if kinds else None, change[0] if change else None, OPTIONAL in words)
