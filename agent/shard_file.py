"""One shard as an HDF5 file: how an episode is laid out in it, and what is checked when it is read.

A shard is data from outside: nothing is unpickled or evaluated, and everything is checked before it is used.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from agent import checksums
from agent.sequences import Episode, episode_fields
from envs.errors import UserError
from envs.spaces.actions import can_be_taken, describe_actions
from envs.spaces.specs import EnvSpec, ModalitySpec

Records = dict[str, np.ndarray]  # by name, one row a record

FORMAT = 1
CHUNK_BYTES = 1 << 20
STEP_FIELDS = {  # and `actions`, whose shape and dtype are the spec's
    "log_probs": np.float32,
    "rewards": np.float32,
    "terminations": np.bool_,
    "truncations": np.bool_,
}
COMPRESSIONS: dict[str, dict[str, Any]] = {  # replay.compression: what HDF5 has of its own, so that any reader can open it
    "none": {"fletcher32": True},  # compressed data notice a flipped bit by themselves
    "gzip": {"compression": "gzip", "compression_opts": 1},
    "lzf": {"compression": "lzf", "fletcher32": True},
}


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Whatever proves wrong with a shard becomes a UserError that names the file."""
    try:
        yield
    except (OSError, RuntimeError, KeyError, TypeError, ValueError, MemoryError) as error:
        why = str(error.args[0] if isinstance(error, KeyError) else error)
        raise UserError(f"Replay shard {path} cannot be used ({why}): move it away, or restore it from a copy.") from error


@contextmanager
def opened(path: Path, spec: EnvSpec) -> Iterator[h5py.File]:
    """An open shard whose header fits; what proves wrong with it is explained."""
    with explained(path), h5py.File(path, "r") as file:
        check_header(file, spec)
        yield file


def check_header(file: h5py.File, spec: EnvSpec) -> None:
    """Raises ValueError for a shard of another format or of another environment."""
    found = file.attrs.get("strata_format")
    if found != FORMAT:
        raise ValueError(f"its format is {found}, this version reads {FORMAT}")
    difference = spec_difference(EnvSpec.from_dict(json.loads(str(file.attrs["spec"]))), spec)
    if difference:
        raise ValueError(f"it was recorded in another environment, where {difference}")


def write_episode(group: h5py.Group, index: int, episode: Episode, compression: str = "gzip") -> None:
    """Lay out an episode in a new group; `compression` is one of `COMPRESSIONS`."""
    steps = len(episode)
    group.attrs.update(id=index, total_steps=steps, task=episode.task, seed=episode.seed)
    group.attrs.update(env_index=episode.env_index, end_step=episode.end_step, held_out=episode.held_out)
    group.attrs.update(crc32=checksums.crc32(episode), sha256=checksums.sha256(episode))
    for key, values in episode.obs.items():
        rows = max(1, min(len(values), CHUNK_BYTES // max(values[0].nbytes, 1)))
        chunks = (rows, *values.shape[1:])
        group.create_dataset(f"observations/{part_name(key)}", data=values, chunks=chunks, **COMPRESSIONS[compression])
    at_end = np.arange(steps) == steps - 1
    fields = {
        "log_probs": episode.log_prob,
        "rewards": episode.reward,
        "terminations": at_end & episode.terminated,
        "truncations": at_end & episode.truncated,
    }
    group.create_dataset("actions", data=episode.action)
    for name, dtype in STEP_FIELDS.items():
        group.create_dataset(name, data=np.asarray(fields[name], dtype))


def episode_group(file: h5py.File, index: int) -> tuple[h5py.Group, int]:
    """The group of episode `index`, and its steps; raises ValueError or KeyError where there is none."""
    name = f"episode_{index}"
    group = _linked(file, name)
    if not isinstance(group, h5py.Group):
        raise ValueError(f"{name} is no group")
    steps = int(group.attrs["total_steps"])
    if steps < 1:
        raise ValueError(f"{name} has {steps} steps")
    return group, steps


def read_episode(file: h5py.File, index: int, spec: EnvSpec) -> Episode:
    """Episode `index` of a shard; raises ValueError or KeyError where it is not as it must be."""
    name = f"episode_{index}"
    group, steps = episode_group(file, index)
    obs = {
        leaf.key: _read(group, f"observations/{part_name(leaf.key)}", (steps + 1, *leaf.shape), leaf.dtype)
        for leaf in spec.observations
    }
    fields = {field: _read(group, field, (steps,), dtype) for field, dtype in STEP_FIELDS.items()}
    action = _read(group, "actions", (steps, *spec.action.shape), spec.action.agent_dtype)
    if not can_be_taken(spec.action, action):
        raise ValueError(f"{name}/actions are not all actions of this environment ({describe_actions(spec.action)})")
    ends = fields["terminations"] | fields["truncations"]
    if ends[:-1].any() or not ends[-1]:
        raise ValueError(f"{name} does not end at its last step and there alone")
    episode = Episode(
        obs=obs,
        action=action,
        log_prob=fields["log_probs"],
        reward=fields["rewards"],
        terminated=bool(fields["terminations"][-1]),
        truncated=bool(fields["truncations"][-1]),
        task=str(group.attrs["task"]),
        seed=int(group.attrs["seed"]),
        env_index=int(group.attrs["env_index"]),
        end_step=int(group.attrs["end_step"]),
        held_out=bool(group.attrs.get("held_out", False)),
    )
    _check_sum(group, name, episode)
    return episode


def read_records(file: h5py.File, index: int, spec: EnvSpec, start: int, stop: int) -> tuple[Records, Records]:
    """Records [start, stop) of episode `index`: observations and fields, as a replay keeps them; `task` is left out.

    Where these are not all of the episode they cannot be compared with its checksum; all else is checked. Raises as
    `read_episode` does.
    """
    group, steps = episode_group(file, index)
    if start == 0 and stop == steps + 1:
        episode = read_episode(file, index, spec)
        return episode.obs, episode_fields(episode)
    if not 0 <= start < stop <= steps + 1:
        raise ValueError(f"episode_{index} has no records {start} to {stop}")
    obs = {
        leaf.key: _read(group, f"observations/{part_name(leaf.key)}", (steps + 1, *leaf.shape), leaf.dtype, slice(start, stop))
        for leaf in spec.observations
    }
    taken, came = slice(start, min(stop, steps)), slice(max(start - 1, 0), stop - 1)  # actions at records, answers before them
    action = _read(group, "actions", (steps, *spec.action.shape), spec.action.agent_dtype, taken)
    if not can_be_taken(spec.action, action):
        raise ValueError(f"episode_{index}/actions are not all actions of this environment ({describe_actions(spec.action)})")
    fields = {
        name: _read(group, name, (steps,), dtype, taken if name == "log_probs" else came) for name, dtype in STEP_FIELDS.items()
    }

    def padded(values: np.ndarray, front: bool) -> np.ndarray:
        missing = stop - start - len(values)
        return np.pad(values, [(missing, 0) if front else (0, missing), *[(0, 0)] * (values.ndim - 1)])

    return obs, {
        "action": padded(action, front=False),
        "log_prob": padded(fields["log_probs"], front=False),
        "reward": padded(fields["rewards"], front=True),
        "first": np.arange(start, stop) == 0,
        "terminated": padded(fields["terminations"], front=True),
        "truncated": padded(fields["truncations"], front=True),
    }


def check_sums(file: h5py.File, episodes: int) -> str:
    """Compare a shard's header, and its episodes' checksums as it states them, with the checksum over them.

    Answers `sha256`, or `crc32` or `none` for shards of before, which have no more than that.

    Raises:
        ValueError: they do not match.
    """
    groups = [episode_group(file, index)[0] for index in range(episodes)]
    if "sha256" in file.attrs:
        stated = [str(group.attrs.get("sha256", "")) for group in groups]
        if checksums.header(file.attrs, stated) != file.attrs["sha256"]:
            raise ValueError("its header does not match its checksum")
        return "sha256"
    return "crc32" if all("crc32" in group.attrs for group in groups) else "none"


def _check_sum(group: h5py.Group, name: str, episode: Episode) -> None:
    """Shards of before have no more than a CRC-32 of the arrays, or nothing."""
    if "sha256" in group.attrs:
        right = checksums.sha256(episode) == group.attrs["sha256"]
    else:
        right = "crc32" not in group.attrs or checksums.crc32(episode) == group.attrs["crc32"]
    if not right:
        raise ValueError(f"{name} does not match its checksum")


def _read(group: h5py.Group, name: str, shape: tuple[int, ...], dtype: Any, rows: slice | None = None) -> np.ndarray:
    where = f"{str(group.name).strip('/')}/{name}"
    dataset = _linked(group, name)
    if not isinstance(dataset, h5py.Dataset) or dataset.shape != shape or dataset.dtype != np.dtype(dtype):
        found = f"{dataset.shape} {dataset.dtype}" if isinstance(dataset, h5py.Dataset) else "no array"
        raise ValueError(f"{where} is {found} in place of {shape} {np.dtype(dtype)}")
    if dataset.is_virtual or dataset.external:
        raise ValueError(f"{where} is no array in this file")
    values = np.asarray(dataset[()] if rows is None else dataset[rows])
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ValueError(f"{where} is not finite")
    return values


def _linked(group: h5py.Group, path: str) -> Any:
    """What lies at `path`, if it lies in this very file: links to others are not followed."""
    found: Any = group
    for name in path.split("/"):
        try:
            link = found.id.links.get_info(name.encode())
        except (KeyError, RuntimeError, AttributeError):  # it is not there, or what should hold it is an array
            raise KeyError(f"{str(group.name).strip('/')}/{path} is missing".strip("/")) from None
        if link.type != h5py.h5l.TYPE_HARD:
            raise ValueError(f"{str(group.name).strip('/')}/{path} is a link".strip("/"))
        found = found[name]
    return found


def spec_difference(found: EnvSpec, expected: EnvSpec) -> str:
    """What sets two specs apart, for people; empty where data of one fits the other (`origin` is for people only)."""

    def describe(leaf: ModalitySpec) -> str:
        return f"{leaf.kind} {leaf.shape} {leaf.dtype}" + (f" of {leaf.classes} classes" if leaf.classes else "")

    there = {leaf.key: replace(leaf, origin="") for leaf in found.observations}
    here = {leaf.key: replace(leaf, origin="") for leaf in expected.observations}
    for key in [*here, *there]:
        if there.get(key) != here.get(key):
            ours, theirs = (describe(leaves[key]) if key in leaves else "absent" for leaves in (here, there))
            return f"observation {key} is {theirs} and not {ours}" if ours != theirs else f"observation {key} is static otherwise"
    return (
        ""
        if found.action == expected.action
        else f"the actions are {describe_actions(found.action)} and not {describe_actions(expected.action)}"
    )


def part_name(key: str) -> str:
    """An observation's key as the name of a dataset: HDF5 takes slashes for folders and a lone dot for the folder itself."""
    return "%2E" if key == "." else key.replace("%", "%25").replace("/", "%2F").replace("\0", "%00")
