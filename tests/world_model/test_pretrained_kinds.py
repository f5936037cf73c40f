"""Encoders of many architectures are read alike: towers of two, encoders with decoders, decoders, convolutions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

from tests.world_model.tiny_encoders import save_tokenizer
from world_model.pretrained.encoder import PretrainedEncoder
from world_model.pretrained.settings import PretrainedConfig

SIZES = dict(hidden_size=12, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
PICTURE = dict(image_size=8, patch_size=4)
WORDS = dict(vocab_size=10, pad_token_id=0, bos_token_id=1, eos_token_id=1)


def two_towers(config: type[Any], model: type[Any]) -> Callable[[], Any]:
    texts, pictures = SIZES | WORDS | dict(max_position_embeddings=16), SIZES | PICTURE
    return lambda: model(config(text_config=texts, vision_config=pictures, projection_dim=6))


TEXTS: dict[str, Callable[[], Any]] = {
    "an encoder of T5": lambda: hf.T5Model(hf.T5Config(**WORDS, d_model=12, d_kv=6, d_ff=16, num_layers=1, num_heads=2)),
    "a decoder": lambda: hf.GPT2Model(hf.GPT2Config(**WORDS, n_positions=16, n_embd=12, n_layer=1, n_head=2)),
    "DistilBERT": lambda: hf.DistilBertModel(
        hf.DistilBertConfig(vocab_size=10, dim=12, hidden_dim=16, n_layers=1, n_heads=2, max_position_embeddings=16)
    ),
    "a classifier": lambda: hf.BertForSequenceClassification(hf.BertConfig(**SIZES, vocab_size=10, max_position_embeddings=16)),
    "the texts of CLIP": two_towers(hf.CLIPConfig, hf.CLIPModel),
    "the texts of SigLIP": two_towers(hf.SiglipConfig, hf.SiglipModel),
}
PICTURES: dict[str, Callable[[], Any]] = {
    "the pictures of CLIP": two_towers(hf.CLIPConfig, hf.CLIPModel),
    "the pictures of SigLIP": two_towers(hf.SiglipConfig, hf.SiglipModel),
    "DINOv2": lambda: hf.Dinov2Model(hf.Dinov2Config(hidden_size=12, num_hidden_layers=1, num_attention_heads=2, **PICTURE)),
    "ResNet": lambda: hf.ResNetModel(hf.ResNetConfig(embedding_size=4, hidden_sizes=[4, 12], depths=[1, 1])),
    "ConvNeXt": lambda: hf.ConvNextModel(hf.ConvNextConfig(hidden_sizes=[4, 12], depths=[1, 1], num_stages=2)),
}


def encoder(folder: Path, model: Any, reads: str) -> PretrainedEncoder:
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return PretrainedEncoder("key", PretrainedConfig(str(folder)), reads)


@pytest.mark.parametrize("name", TEXTS)
def test_texts(name: str, tmp_path: Path):
    found = encoder(tmp_path, TEXTS[name](), "text")
    features = found(["go to the red ball", "blue key"])
    assert features.shape == (2, 12) and torch.isfinite(features).all()
    torch.testing.assert_close(found(["blue key"]), features[1:], rtol=1e-4, atol=1e-5)  # whatever it is padded to
    assert torch.equal(encoder(tmp_path / "again", hf.AutoModel.from_pretrained(tmp_path), "text").weights, found.weights)


@pytest.mark.parametrize("name", PICTURES)
def test_pictures(name: str, tmp_path: Path):
    found = encoder(tmp_path, PICTURES[name](), "image")
    for channels in (1, 3, 4):
        features = found(torch.randint(0, 256, (2, 40, 32, channels), dtype=torch.uint8))
        assert features.shape == (2, 12) and torch.isfinite(features).all()
    assert not torch.equal(features[0], features[1])
