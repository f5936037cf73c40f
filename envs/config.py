"""The `env` config group."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class EnvConfig:
    """Which environments are played and how they are delivered. Either `id` (one task) or `suite` (an ordered task space)."""

    id: str | None = None
    kwargs: dict[str, Any] = field(default_factory=dict)
    box: dict[str, Any] = field(default_factory=dict)  # number -> [low, high]
    cells: int = 3  # parts of every range of the box
    suite: str | None = None
    tasks: list[str] | None = None
    num_envs: int = 16
    vectorization: str = "sync"  # sync | async
    wrappers: list[Any] = field(default_factory=list)  # [{name: "module:Class", kwargs: {...}}]
    modalities: dict[str, Any] = field(default_factory=dict)  # leaf key -> kind, static, changing or ignore; keys may be nested
    max_episode_steps: int | None = None  # the environment's own steps
    noop_start: int = 0  # at most so many idle steps at the start of an episode
    frame_skip: int = 1  # times that every action is repeated
    resize: list[int] | None = None  # [rows, columns] of images
    frame_stack: int = 1  # frames observed at once
    success: str = "positive_reward"  # positive_reward | info:KEY | return>=X
    reward: str = "raw"  # what the agent learns from: raw | sign
    reward_scale: float = 1.0
    reward_clip: float | None = None  # largest size of what is left after scaling
    rewards: dict[str, Any] = field(default_factory=dict)  # term -> {kind, weight, ...}; see envs/rewards.py
    report: list[str] = field(default_factory=list)  # info entries whose means over episodes are reported
    score: str | None = None  # an entry of `report` that holds achievements: their geometric mean is the score
    holdout: bool = True  # keep some layouts out of training
    text_bytes: int = 96
    step_timeout: float = 60.0  # seconds; 0: no limit
    max_faults: int = 10  # breakdowns of environments that a run survives
    image_size: int = 64  # pixels of an image's longer side; larger images are shrunk to it, 0: never
