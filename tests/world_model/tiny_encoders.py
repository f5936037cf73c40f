"""The smallest Hugging Face encoders there are, written to disk: nothing is downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

WORDS = ("go", "to", "the", "red", "blue", "green", "ball", "key")


def save_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast

    tokens = Tokenizer(WordLevel({word: index for index, word in enumerate(("[PAD]", "[UNK]", *WORDS))}, unk_token="[UNK]"))
    tokens.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokens, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)


def save_text_encoder(folder: Path, seed: int = 0) -> str:
    """A BERT of one layer that knows `WORDS`; answers its folder."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(seed)
    sizes = dict(hidden_size=12, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    config = BertConfig(vocab_size=10, max_position_embeddings=16, **sizes)
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    save_tokenizer(folder)
    return str(folder)


def save_vision_encoder(folder: Path, seed: int = 0) -> str:
    """A vision transformer of one layer, of pictures of 8 x 8 pixels; answers its folder."""
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(seed)
    config = ViTConfig(
        image_size=8, patch_size=4, hidden_size=12, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    ViTModel(config, add_pooling_layer=False).save_pretrained(folder)
    return str(folder)


def count_calls(module: torch.nn.Module) -> list[int]:
    """How many inputs each call of `module` is given, from now on."""
    calls: list[int] = []

    def note(_: torch.nn.Module, __: Any, given: dict[str, Any]) -> None:
        calls.append(len(next(iter(given.values()))))

    module.register_forward_pre_hook(note, with_kwargs=True)
    return calls
