"""Whether stored episodes were played on layouts that evaluation keeps for itself."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from agent.audit.shard import Start
from agent.config import RunConfig
from agent.loading import known_keys
from agent.run_folder import CONFIG
from envs import make_task_space
from envs.config import EnvConfig
from envs.delivery import EnvSlot, SlotStart
from envs.errors import UserError
from envs.make import held_out_tasks
from envs.spaces.specs import EnvSpec
from envs.splits import SPLITS

log = logging.getLogger(__name__)


def env_of_run(folder: Path) -> EnvConfig | None:
    """The environment that a run folder's config names; None where there is none that this version reads."""
    try:
        saved = OmegaConf.to_container(OmegaConf.load(folder / CONFIG))
        known, _ = known_keys({"env": saved["env"]} if isinstance(saved, dict) else {}, RunConfig)
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(RunConfig), known))
    except (OSError, KeyError, TypeError, ValueError, OmegaConfBaseException):
        return None
    assert isinstance(config, RunConfig)
    return config.env


def check_layouts(env: EnvConfig, spec: EnvSpec, starts: Sequence[Start], most: int) -> tuple[list[str], list[str]]:
    """Begin at most `most` episodes again, spread evenly, on the layouts of every split, and see which one begins as is stored.

    Only environments that a seed makes begin alike can tell. Answers what is wrong and what is worth a note, a sentence each.
    """
    if not (most and starts and env.holdout):
        return [], []
    try:
        tasks = make_task_space(env)
        if tasks.box is not None:
            return [], ["the layouts were not checked: the numbers of env.box are not stored"]
        held_out = held_out_tasks(env, tasks, spec)
    except UserError as error:
        return [], [f"the layouts were not checked: {error}"]
    chosen = [starts[i] for i in np.unique(np.linspace(0, len(starts) - 1, min(most, len(starts))).round().astype(int))]
    slots = {split: EnvSlot(env, spec, split, held_out) for split in SPLITS}
    wrong, unknown, checked = [], 0, 0
    for start in chosen:
        if start.task not in held_out:
            continue
        checked += 1
        task = tasks[start.task].with_seed(start.seed)
        begun = {split: slots[split].begin(task) for split in SPLITS}
        splits = [split for split in SPLITS if _begins_so(begun[split], start)]
        if not splits:
            unknown += 1
        elif splits[0] != "train":
            wrong.append(f"{start.where} was played on a layout of the {splits[0]} split, which training must not see")
    for slot in slots.values():
        slot.close()
    notes = (
        [f"of {unknown} of {checked} episodes the layout cannot be told: they begin otherwise when begun again"]
        if unknown
        else []
    )
    return wrong, notes


def _begins_so(begun: object, start: Start) -> bool:
    if not isinstance(begun, SlotStart):
        return False
    return all(np.array_equal(begun.obs[key], value) for key, value in start.obs.items() if key in begun.obs)
