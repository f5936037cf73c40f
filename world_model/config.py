"""The `model` config group."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

PRECISIONS = ("fp32", "bf16")


@dataclass
class LossScales:
    """Weight of every named loss in the total."""

    prior: float = 1.0
    motion: float = 1.0
    reconstruction: float = 1.0
    reward: float = 1.0
    cont: float = 1.0
    ensemble: float = 1.0


@dataclass
class AugmentConfig:
    """What is changed of the sequences that the model trains on."""

    shift: int = 0  # pixels that the images of a sequence are moved by at most
    cell_dropout: float = 0.0  # share of the cells of grids that are hidden from the inputs


@dataclass
class ModelConfig:
    """Sizes and training settings of the world model."""

    name: str = "xs"
    width: int = 128  # D, width of the decoder
    layers: int = 2
    heads: int = 4
    mlp_ratio: float = 2.0
    window: int = 32  # W, steps that attention reaches back, in training, acting and imagination alike
    hidden: int = 256  # width of encoders and heads
    symbol_width: int = 16  # width of one symbol's embedding
    cell_width: int = 32  # width of a grid cell's features in the prior
    table_size: int = 64  # distinct symbols a grid's table holds; code 0 is 'unknown'
    text_words: int = 16  # words kept of a text
    text_table_size: int = 256
    maps: bool = True  # of what the views of grids have shown, for their priors to read
    attention_heads: int = 4  # of the attention of modalities to each other; 0: they are added up
    modality_dropout: float = 0.25  # share of sequences in which a span of an optional modality is hidden
    text_heads: int = 0  # similarities of a text to the cells of a grid; 0: none
    learned_groups: int = 8
    learned_classes: int = 32
    learned: list[str] = field(default_factory=list)  # grids and images whose codes an encoder makes of the whole view
    view_groups: int = 32  # numbers that such a view is encoded into
    view_classes: int = 8
    view_channels: int = 16  # of the first convolution of such an image
    vector_std: float = 0.1  # of the decoded vector's Gaussian, in standard deviations of the data
    image_patch: int = 8  # pixels a side of an image's cells, one code each
    image_codes: int = 256  # different cells that are told apart
    image_radius: float = 0.03  # root mean square by which a cell's pixels (0 to 1) differ from all codes' for a new one
    pretrained: dict[str, Any] = field(default_factory=dict)  # observation -> encoder, see world_model/pretrained/settings.py
    bins: int = 127
    bin_limit: float = 12.0  # bins span symexp(-limit) .. symexp(limit)
    lr: float = 1e-3
    weight_decay: float = 0.0
    grad_clip: float = 10.0
    ensemble: int = 0  # heads whose disagreement tells what the model does not know; 0: none
    precision: str = "fp32"  # fp32 | bf16, of training, acting and imagination; weights, losses and policies stay in fp32
    compile: str | None = None  # a backend of torch.compile, as inductor; None: none
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    losses: LossScales = field(default_factory=LossScales)


@dataclass
class ShardingConfig:
    """The `sharding` config group: where the world model's parameters live."""

    engine: str = "local"  # local | deepspeed
    stage: int = 0  # ZeRO stage of DeepSpeed: 0 to 3
    persistence: int = 100_000  # stage 3: matrices of up to so many numbers stay whole on every process
    gather: str = "rollout"  # stage 3: rollout | step, how acting and imagination come by whole weights
    offload: str = "none"  # none | optimizer | all: what is kept in the CPU's memory
    tensor_parallel: int = 1  # processes that share each matrix product of the decoder in training; 1: none
