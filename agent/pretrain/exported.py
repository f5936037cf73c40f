"""Episodes of a replay as a Minari data set, and back bit for bit.

Observations are those of the agent: a Dict of flat parts, or the one part alone; texts are strings. Actions are the
environment's own. What Minari has no place for is told in `infos` (log-probabilities, and actions of numbers as the agent knows
them) and in attributes of the episodes. `metadata.json` holds the agent's spec, by which our reader knows such a data set again.
"""

from __future__ import annotations

import json
import shutil
import string
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from agent import checksums
from agent.files import publish, sync
from agent.pretrain.hdf5 import array, flags, texts
from agent.sequences import Episode
from agent.shard_file import COMPRESSIONS, part_name, spec_difference
from envs.adapter import TextEncoder, decode_text
from envs.spaces.actions import can_be_taken, from_environment, to_environment
from envs.spaces.leaves import BARE_KEY
from envs.spaces.specs import ActionSpec, EnvSpec, ModalitySpec

SPEC = "strata_spec"
VERSION = "0.5.0"  # of Minari's layout
ATTRIBUTES = ("task", "seed", "env_index", "end_step", "held_out", "synthetic")


def write_exported(
    folder: Path, spec: EnvSpec, episodes: Iterable[Episode], about: Mapping[str, Any], compression: str = "gzip"
) -> int:
    """Write a Minari data set into a new folder, whole or not at all; answers how many episodes it has.

    Args:
        about: entries of `metadata.json` beside those of the layout.
        compression: one of `COMPRESSIONS`.
    """
    whole = folder.with_name(f".{folder.name}.tmp")
    if whole.exists():  # of one that was broken off
        shutil.rmtree(whole)
    data = whole / "data"
    data.mkdir(parents=True)
    arrays = data / "main_data.hdf5"
    number = steps = 0
    with h5py.File(arrays, "w", track_order=True) as file:
        for episode in episodes:
            _write(file.create_group(f"episode_{number}"), number, episode, spec, compression)
            number, steps = number + 1, steps + len(episode)
    metadata = {
        **about,
        "dataset_id": f"strata/{folder.name if folder.name.replace('-', '').isalnum() else 'replay'}-v0",
        "total_episodes": number,
        "total_steps": steps,
        "data_format": "hdf5",
        "jpeg_encoding": False,
        "minari_version": VERSION,
        "observation_space": json.dumps(_observation_space(spec)),
        "action_space": json.dumps(_action_space(spec.action)),
        "dataset_size": round(arrays.stat().st_size / 1e6, 1),
        SPEC: json.dumps(spec.to_dict()),
    }
    sync(arrays)
    (data / "metadata.json").write_text(json.dumps(metadata, indent=1), encoding="utf-8")
    sync(data / "metadata.json")
    sync(data)
    publish(whole, folder)
    return number


def check_exported(metadata: Mapping[str, Any], spec: EnvSpec) -> None:
    """Raises ValueError where a data set was exported from another environment than that of `spec`."""
    difference = spec_difference(EnvSpec.from_dict(json.loads(str(metadata[SPEC]))), spec)
    if difference:
        raise ValueError(f"it was recorded in another environment, where {difference}")


def exported_episode(group: h5py.Group, spec: EnvSpec) -> Episode:
    """One episode as it was before it was exported. Raises ValueError, KeyError or TypeError where it is not as it must be."""
    name = str(group.name).strip("/")
    reward = array(group, "rewards", "f")
    steps = len(reward)
    terminated, truncated = (flags(group, flag, steps) for flag in ("terminations", "truncations"))
    ends = terminated | truncated
    if reward.shape != (steps,) or not steps or ends[:-1].any() or not ends[-1]:
        raise ValueError(f"{name} does not end at its last step and there alone")
    if spec.action.kind == "box":
        action = array(group, "infos/agent_action", "f")[:-1]
    else:
        action = from_environment(spec.action)(array(group, "actions", "biu"))
    if action.shape != (steps, *spec.action.shape) or not can_be_taken(spec.action, action):
        raise ValueError(f"{name}/actions are not all actions of this environment")
    log_prob = array(group, "infos/log_prob", "f")[:-1]
    obs = {leaf.key: _observed(group, leaf, spec, steps + 1) for leaf in spec.observations}
    numbers = {
        "rewards": reward,
        "infos/log_prob": log_prob,
        **{key: value for key, value in obs.items() if value.dtype.kind == "f"},
    }
    for key, values in numbers.items():
        if len(values) < steps or not np.isfinite(values).all():
            raise ValueError(f"{name}/{key} is not finite, or too short")
    told = {key: group.attrs[key] for key in ATTRIBUTES}
    episode = Episode(
        obs, action, log_prob, reward, bool(terminated[-1]), bool(truncated[-1]), str(told["task"]), int(told["seed"]),
        int(told["env_index"]), int(told["end_step"]), bool(told["synthetic"]), bool(told["held_out"]),
    )  # fmt: skip
    if checksums.sha256(episode) != group.attrs["sha256"]:
        raise ValueError(f"{name} does not match its checksum")
    return episode


def _write(group: h5py.Group, number: int, episode: Episode, spec: EnvSpec, compression: str) -> None:
    steps = len(episode)
    group.attrs.update(id=number, total_steps=steps, sha256=checksums.sha256(episode))
    group.attrs.update({name: getattr(episode, name) for name in ATTRIBUTES})
    for leaf in spec.observations:
        values, path = episode.obs[leaf.key], _path(leaf.key, spec)
        if leaf.kind == "text":
            group.create_dataset(path, data=[decode_text(value) for value in values], dtype=h5py.string_dtype("utf-8"))
        else:
            group.create_dataset(path, data=values, chunks=True, **COMPRESSIONS[compression])
    act = to_environment(spec.action)
    at_end = np.arange(steps) == steps - 1
    group["actions"] = np.stack([np.asarray(act(action)) for action in episode.action])
    group["rewards"] = episode.reward
    group["terminations"], group["truncations"] = at_end & episode.terminated, at_end & episode.truncated
    group["infos/log_prob"] = np.append(episode.log_prob, np.float32(0))
    if spec.action.kind == "box":
        group["infos/agent_action"] = np.concatenate([episode.action, np.zeros_like(episode.action[:1])])


def _observed(group: h5py.Group, leaf: ModalitySpec, spec: EnvSpec, rows: int) -> np.ndarray:
    path = _path(leaf.key, spec)
    if leaf.kind == "text":
        encode = TextEncoder(leaf.shape[0])
        values = np.stack([encode(text) for text in texts(group, path)])
    else:
        values = array(group, path, np.dtype(leaf.dtype).kind)
    if values.shape != (rows, *leaf.shape) or values.dtype != leaf.dtype:
        where = f"{str(group.name).strip('/')}/{path}"
        raise ValueError(f"{where} is {values.shape} {values.dtype} in place of {(rows, *leaf.shape)} {leaf.dtype}")
    return values


def _path(key: str, spec: EnvSpec) -> str:
    return "observations" if _bare(spec) else f"observations/{part_name(key)}"


def _bare(spec: EnvSpec) -> bool:
    return [leaf.key for leaf in spec.observations] == [BARE_KEY]


def _observation_space(spec: EnvSpec) -> dict[str, Any]:
    """As Minari writes spaces."""
    parts = {part_name(leaf.key): _part(leaf) for leaf in spec.observations}
    return parts[BARE_KEY] if _bare(spec) else {"type": "Dict", "subspaces": parts}


def _part(leaf: ModalitySpec) -> dict[str, Any]:
    if leaf.kind == "text":
        return {"type": "Text", "max_length": leaf.shape[0], "min_length": 0, "charset": string.printable}
    if leaf.kind == "categorical":
        return {"type": "MultiDiscrete", "dtype": leaf.dtype, "nvec": list(leaf.classes), "start": [0] * len(leaf.classes)}
    dtype = np.dtype(leaf.dtype)
    low, high = (-np.inf, np.inf) if dtype.kind == "f" else (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
    return _box(dtype, leaf.shape, np.full(leaf.shape, low), np.full(leaf.shape, high))


def _action_space(spec: ActionSpec) -> dict[str, Any]:
    if spec.kind == "discrete":
        return {"type": "Discrete", "dtype": "int64", "start": spec.start, "n": spec.size}
    shape = spec.env_shape
    if spec.kind == "multi_discrete":
        nvec, start = (np.reshape(values, shape).tolist() for values in (spec.classes, spec.starts))
        return {"type": "MultiDiscrete", "dtype": "int64", "nvec": nvec, "start": start}
    return _box(np.dtype(spec.dtype), shape, np.reshape(spec.low, shape), np.reshape(spec.high, shape))


def _box(dtype: np.dtype[Any], shape: tuple[int, ...], low: np.ndarray, high: np.ndarray) -> dict[str, Any]:
    return {"type": "Box", "dtype": str(dtype), "shape": list(shape), "low": low.tolist(), "high": high.tolist()}
