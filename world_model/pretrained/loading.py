"""From a folder or a hub id to an encoder, its tokenizer, or how it wants its pictures."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from envs.errors import UserError
from world_model.pretrained.settings import PretrainedConfig

INPUTS = {"text": "input_ids", "image": "pixel_values"}
TOWERS = {"text": "text_model", "image": "vision_model"}  # of models that read both
FAILURES = (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError, RuntimeError)


@dataclass(frozen=True)
class PictureFormat:
    """What a vision encoder wants to be given: `size` (height, width), None for as it is, and mean and deviation by channel."""

    size: tuple[int, int] | None
    mean: tuple[float, ...]
    std: tuple[float, ...]


def where(key: str, settings: PretrainedConfig) -> str:
    """The config key and value, for messages."""
    return f"model.pretrained.{key}.id={settings.id}"


def load_tower(key: str, settings: PretrainedConfig, reads: str) -> nn.Module:
    """The encoder in float32, without dropout; of one that reads texts and images, the part that `reads` (text or image) names.

    Code of a repository's own is never run.

    Raises:
        UserError: it is not there, cannot be read, lacks weights, or reads something else.
    """
    from transformers import AutoModel
    from transformers.utils import logging

    source = _source(key, settings)
    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()  # missing weights are reported below
    try:
        model, report = AutoModel.from_pretrained(source, **_options(settings), dtype=torch.float32, output_loading_info=True)
    except FAILURES as error:
        raise _unreadable(key, settings, error) from error
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()
    missing = [name for name in report["missing_keys"] if not _is_pooler(name)]
    if missing:
        raise UserError(f"{where(key, settings)} lacks weights ({missing[0]}, {len(missing)} in all); give a whole model.")
    tower = getattr(model, TOWERS[reads], None) or (model.get_encoder() if model.config.is_encoder_decoder else model)
    if (found := getattr(tower, "main_input_name", "")) != INPUTS[reads]:
        raise UserError(
            f"{where(key, settings)} reads {found or 'something else'}, but `{key}` is of kind {reads}; "
            "give an encoder of that kind."
        )
    return tower.eval()


def _is_pooler(name: str) -> bool:
    """Whether a weight is of a head that sums up: these are often not there, and are not used here."""
    return "pooler" in name


def load_tokenizer(key: str, settings: PretrainedConfig) -> Any:
    """Texts to tokens.

    Raises:
        UserError: there is none beside the encoder.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(_source(key, settings), **_options(settings))
    except FAILURES as error:
        raise _unreadable(key, settings, error, "its tokenizer ") from error
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise _unreadable(key, settings, LookupError("it knows no words"), "its tokenizer ")
    if tokenizer.pad_token is None:  # decoders have none: what stands there is masked
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return tokenizer


def picture_format(key: str, settings: PretrainedConfig, tower: nn.Module) -> PictureFormat:
    """As `preprocessor_config.json` says, where there is one; the size by the model's own config else."""
    from transformers import ImageProcessingMixin

    try:
        given, _ = ImageProcessingMixin.get_image_processor_dict(_source(key, settings), **_options(settings))
    except FAILURES:
        given = {}
    size = given.get("crop_size") or given.get("size") or getattr(tower.config, "image_size", None)
    if isinstance(size, dict):
        edge = size.get("shortest_edge")
        size = (size.get("height", edge), size.get("width", edge))
    if isinstance(size, int):
        size = (size, size)
    mean, std = (tuple(given.get(name) or (0.5, 0.5, 0.5)) for name in ("image_mean", "image_std"))
    return PictureFormat(tuple(size) if size and all(size) else None, mean, std)


def digest(tower: nn.Module) -> Tensor:
    """(16,) bytes that tell weights apart: the BLAKE2b hash of all of them."""
    found = hashlib.blake2b(digest_size=16)
    for name, value in sorted(tower.state_dict().items()):
        if _is_pooler(name):
            continue
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return torch.tensor(list(found.digest()), dtype=torch.uint8)


def _source(key: str, settings: PretrainedConfig) -> str:
    """A folder's full path, or the id as it is."""
    path = Path(settings.id).expanduser()
    if path.is_dir():
        return str(path)
    if settings.id.startswith((".", "~", os.sep)) or path.is_absolute() or settings.id.count("/") > 1:
        raise UserError(
            f"{where(key, settings)} is not there: put the folder back, or give another by model.pretrained.{key}.id=FOLDER."
        )
    return settings.id


def _options(settings: PretrainedConfig) -> dict[str, Any]:
    return {"trust_remote_code": False} | ({"revision": settings.revision} if settings.revision else {})


def _unreadable(key: str, settings: PretrainedConfig, error: BaseException, part: str = "") -> UserError:
    reason = " ".join(str(error).split()).removesuffix(".")
    return UserError(
        f"{where(key, settings)}: {part}cannot be loaded ({reason[:200]}); give the folder of an encoder, or its id on the "
        "Hugging Face hub."
    )
