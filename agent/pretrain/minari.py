"""Minari data sets on disk (https://minari.farama.org, HDF5 format), read without the package.

A data set is a folder with `data/main_data.hdf5` and, in newer versions, `data/metadata.json`; in older ones attributes of the
file say the same. Groups `episode_0`, `episode_1`, ... hold `observations` (T + 1, nested as the space is: `_index_0` for parts
of a Tuple), `actions`, `rewards`, `terminations` and `truncations` (T), as our own episodes do. Data from outside: nothing is
unpickled or evaluated, no link to another file is followed, and everything is checked against the environment's spec.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from agent.pretrain.exported import SPEC, check_exported, exported_episode
from agent.pretrain.hdf5 import array, flags, subgroup, texts
from agent.rewards import size_reward
from agent.sequences import Episode
from envs.adapter import converter
from envs.config import EnvConfig
from envs.errors import UserError
from envs.spaces.actions import action_spec, can_be_taken, describe_actions, from_environment
from envs.spaces.inference import is_text, space_name
from envs.spaces.leaves import Leaf, leaves
from envs.spaces.ranges import integer_ranges
from envs.spaces.serialized import read_space
from envs.spaces.specs import EnvSpec, ModalitySpec, presence_key

FILE, METADATA = "main_data.hdf5", "metadata.json"
EPISODE = re.compile(r"episode_(\d+)")


def minari_folder(folder: Path) -> Path | None:
    """The folder of a data set that holds its files: itself or `data`; None where it is no Minari data set."""
    return next((at for at in (folder / "data", folder) if (at / FILE).is_file() or (at / METADATA).is_file()), None)


@dataclass
class Part:
    """How one observed part is read: where it lies in an episode, and what turns a raw value into the adapter's array."""

    modality: ModalitySpec
    leaf: Leaf
    convert: Callable[[Any], np.ndarray]

    @property
    def path(self) -> str:
        steps = [f"_index_{step}" if isinstance(step, int) else str(step) for step in self.leaf.path]
        return "/".join(["observations", *steps])


class MinariReader:
    """The episodes of a Minari data set as the environment of a spec would have delivered them.

    With `synthetic`, imagined ones too, which our own data sets may hold; their episodes say so.
    """

    def __init__(self, folder: Path, spec: EnvSpec, config: EnvConfig, synthetic: bool = False) -> None:
        self.folder, self.spec, self.config, self.synthetic = folder, spec, config, synthetic

    def episodes(self) -> Iterator[Episode]:
        """All episodes, in the order of their numbers; rewards are sized as `env.reward` and its kin say.

        Raises:
            UserError: in one sentence, for a data set that is damaged, of another environment, or imagined where that is not
                wanted.
        """
        at = minari_folder(self.folder)
        assert at is not None  # `read_folder` has looked
        try:
            if not (at / FILE).is_file():
                raise ValueError(f"it has no {FILE}; Minari writes one with data_format='hdf5'")
            with h5py.File(at / FILE, "r") as file:
                metadata = _metadata(at, file)
                own = SPEC in metadata  # written by `job=export`: as our agent saw it, rewards and all
                if own:
                    check_exported(metadata, self.spec)
                else:
                    self._check_config()
                parts, act = ([], np.asarray) if own else (self._parts(metadata), self._actions(metadata))
                numbers = sorted(int(match[1]) for name in file if (match := EPISODE.fullmatch(name)))
                announced = metadata.get("total_episodes")
                if announced is not None and int(announced) != len(numbers):
                    raise ValueError(f"it holds {len(numbers)} episodes and announces {int(announced)}")
                for number in numbers:
                    found = subgroup(file, f"episode_{number}")
                    yield self._exported(found) if own else self._episode(found, number, parts, act)
        except (OSError, RuntimeError, KeyError, TypeError, ValueError, OverflowError, MemoryError) as error:
            why = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
            raise UserError(f"Minari data set {self.folder} cannot be used ({why}): mend it, or leave it out.") from error

    def _exported(self, group: h5py.Group) -> Episode:
        episode = exported_episode(group, self.spec)
        if episode.synthetic and not self.synthetic:
            raise UserError(
                f"Minari data set {self.folder} holds imagined episodes: leave it out, or learn from them too by "
                "replay.synthetic=true."
            )
        return episode

    def _check_config(self) -> None:
        terms = [term for term in self.config.rewards.values() if not (isinstance(term, Mapping) and _is_plain(term))]
        for key, changed in (("frame_skip", self.config.frame_skip != 1), ("rewards", bool(terms))):
            if changed:
                raise UserError(
                    f"env.{key} asks for what a Minari data set does not hold: it has the environment's own steps and rewards; "
                    f"leave env.{key} at its default, or {self.folder} out"
                )

    def _parts(self, metadata: Mapping[str, Any]) -> list[Part]:
        found = {leaf.key: leaf for leaf in leaves(read_space(metadata["observation_space"]))}
        presences = {presence_key(leaf.key) for leaf in self.spec.observations if leaf.optional}
        parts = []
        for modality in self.spec.observations:
            leaf = found.get(modality.key)
            if leaf is not None and _fits(leaf, modality):
                parts.append(Part(modality, leaf, converter(leaf.space, modality)))
            elif leaf is not None or not (modality.optional or modality.key in presences):
                there = space_name(leaf.space) if leaf is not None else "not there"
                self._refuse(f"observation `{modality.key}` is {there} and not {modality.origin}")
        return parts

    def _actions(self, metadata: Mapping[str, Any]) -> Callable[[np.ndarray], np.ndarray]:
        found = action_spec(read_space(metadata["action_space"]))
        if replace(found, dtype="") != replace(self.spec.action, dtype=""):
            self._refuse(f"the actions are {describe_actions(found)} and not {describe_actions(self.spec.action)}")
        return from_environment(found)

    def _refuse(self, difference: str) -> None:
        raise UserError(
            f"Minari data set {self.folder} was recorded in another environment, where {difference}: give the env= it was "
            "recorded in, with its wrappers"
        )

    def _episode(self, group: h5py.Group, number: int, parts: list[Part], act: Callable[[np.ndarray], np.ndarray]) -> Episode:
        reward = array(group, "rewards", "biuf")
        steps = len(reward)
        if reward.shape != (steps,) or not steps:
            raise ValueError(f"episode_{number}/rewards has shape {reward.shape}")
        if not np.isfinite(reward).all():
            raise ValueError(f"episode_{number}/rewards is not finite")
        terminated, truncated = (flags(group, name, steps) for name in ("terminations", "truncations"))
        if (terminated | truncated)[:-1].any():
            raise ValueError(f"episode_{number} goes on after its end")
        env_shape = (steps, *self.spec.action.env_shape) if self.spec.action.kind != "discrete" else (steps,)
        raw = array(group, "actions", "biuf" if self.spec.action.kind == "box" else "biu")
        if raw.shape != env_shape:
            raise ValueError(f"episode_{number}/actions has shape {raw.shape} in place of {env_shape}")
        action = act(raw)
        if not can_be_taken(self.spec.action, action):
            raise ValueError(f"episode_{number}/actions are not all actions of this environment")
        return Episode(
            obs=self._observations(group, steps, parts),
            action=action,
            log_prob=np.zeros(steps, np.float32),
            reward=size_reward(reward.astype(np.float64), self.config),
            terminated=bool(terminated[-1]),
            truncated=bool(truncated[-1] or not terminated[-1]),  # where the recording stops, the episode was cut off
            task=self.folder.name,
            seed=number,  # many data sets give all episodes one seed
            env_index=0,
            end_step=0,
        )

    def _observations(self, group: h5py.Group, steps: int, parts: list[Part]) -> dict[str, np.ndarray]:
        obs = {leaf.key: np.zeros((steps + 1, *leaf.shape), leaf.dtype) for leaf in self.spec.observations}
        for part in parts:
            raw = texts(group, part.path) if part.modality.kind == "text" else _numbers(group, part)
            where = f"{str(group.name).strip('/')}/{part.path}"
            if len(raw) != steps + 1:
                raise ValueError(f"{where} has {len(raw)} rows for {steps} steps, in place of {steps + 1}")
            values = obs[part.modality.key]
            for row, value in zip(values, raw, strict=True):
                row[...] = part.convert(value)
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                raise ValueError(f"{where} is not finite")
            if part.modality.optional:
                obs[presence_key(part.modality.key)][:] = 1
        return obs


def _is_plain(term: Mapping[str, Any]) -> bool:
    return term.get("kind") == "environment" and term.get("weight", 1.0) == 1.0


def _fits(leaf: Leaf, modality: ModalitySpec) -> bool:
    """Whether values of a data set's leaf are those that a modality is made from."""
    if modality.kind == "text":
        return is_text(leaf.space)
    if modality.kind == "vector":  # read as numbers: neither their bounds nor their type matter
        return leaf.space.shape is not None and not is_text(leaf.space) and np.prod(leaf.space.shape) == modality.shape[0]
    return space_name(leaf.space) == modality.origin


def _metadata(folder: Path, file: h5py.File) -> dict[str, Any]:
    if (folder / METADATA).is_file():
        found = json.loads((folder / METADATA).read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError(f"{METADATA} is no JSON object")
    else:
        found = dict(file.attrs)
    for name in ("observation_space", "action_space"):
        if name not in found:
            raise ValueError(f"its {name} is not stored with it")
    return found


def _numbers(group: h5py.Group, part: Part) -> np.ndarray:
    """Raw values (T + 1, *space shape) of a part, within its space where that is one of integers."""
    space, ranges = part.leaf.space, integer_ranges(part.leaf.space)
    shape, where = space.shape or (), f"{str(group.name).strip('/')}/{part.path}"
    raw = array(group, part.path, "Obiu" if space.dtype == np.uint8 else "biu" if ranges is not None else "biuf")
    if len(shape) in (2, 3) and space.dtype == np.uint8 and raw.ndim <= 2:
        raw = _decoded(raw, shape, where)
    if raw.dtype.kind == "O" or raw.shape[1:] != shape:
        raise ValueError(f"{where} has values of shape {raw.shape[1:]} in place of {shape}")
    if ranges is not None:
        low = ranges.low.reshape(shape)
        if ((raw < low) | (raw > low + ranges.count.reshape(shape) - 1)).any():
            raise ValueError(f"{where} holds numbers outside of {space_name(space)}")
    return raw


def _decoded(files: np.ndarray, shape: tuple[int, ...], where: str) -> np.ndarray:
    """Images that Minari keeps as JPEG files, (T + 1,) of bytes or (T + 1, bytes), as uint8 (T + 1, *shape)."""
    from PIL import Image

    frames = np.zeros((len(files), *shape), np.uint8)
    for frame, data in zip(frames, files, strict=True):
        with Image.open(io.BytesIO(np.asarray(data, np.uint8).tobytes()), formats=("JPEG",)) as image:
            size = (image.height, image.width, *([len(image.getbands())] if len(shape) == 3 else []))
            if size != shape:  # seen before a pixel is decoded
                raise ValueError(f"{where} has images of shape {size} in place of {shape}")
            frame[...] = np.asarray(image).reshape(shape)
    return frames
