"""docs/pretrained.md: its files are written to an empty folder and its commands are run there, with a tiny budget."""

from __future__ import annotations

import importlib.util
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from agent.agent import Agent
from agent.checkpoint import CheckpointStore
from agent.checkpointing import restore, save
from agent.config import RunConfig
from agent.trainer import Trainer
from envs.errors import UserError
from tests.agent.tiny import MODEL, play, tiny_config
from world_model.pretrained.settings import PretrainedConfig

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "pretrained.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", PAGE, re.DOTALL))
(SCRIPT,) = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = [shlex.split(line)[2:] for line in SCRIPT.splitlines() if "run.py" in line]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the files of the page, the encoders written, to work in."""
    for name, code in FILES.items():
        (tmp_path / name).write_text(code, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.syspath_prepend(tmp_path)
    runpy.run_path("encoders.py")
    yield tmp_path
    sys.modules.pop("shelf", None)
    gym.registry.pop("Shelf-v0", None)


def config_of(arguments: list[str]) -> RunConfig:
    """The settings of a command, as the command line reads them."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    import run

    with initialize_config_dir(version_base=None, config_dir=str(ROOT / "configs")):
        composed = compose("config", overrides=run.free_arguments(run.recipe_arguments(arguments)))
    env: Any = OmegaConf.to_container(composed.env)
    pretrained: Any = OmegaConf.to_container(composed.model.pretrained)
    return replace(tiny_config(env, num_envs=2), model=replace(MODEL, pretrained=pretrained))


def test_the_table_names_every_key_and_its_default() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", PAGE, re.MULTILINE))
    defaults = {field.name: str(field.default) for field in fields(PretrainedConfig)}
    assert rows.keys() == defaults.keys()
    for name in ("mode", "rank", "groups", "cache_mb"):
        assert rows[name].strip("`") == defaults[name]
    assert float(rows["lr"]) == float(defaults["lr"])


@pytest.mark.parametrize("arguments", COMMANDS, ids=["frozen", "lora", "full"])
def test_a_command_trains_saves_loads_and_goes_on(arguments: list[str], folder: Path) -> None:
    if any("lora" in argument for argument in arguments) and importlib.util.find_spec("peft") is None:
        pytest.skip("needs the extra `lora`")
    trainer = Trainer(config_of(arguments), folder / "run")
    try:
        logged = play(trainer, 64)
        assert logged and all(np.isfinite(list(update.values())).all() for update in logged)
        path = save(trainer, CheckpointStore(folder / "run" / "checkpoints"))
        resumed = Trainer(trainer.config, folder / "run")
        resumed.envs.close()
        restore(resumed, path)
        loaded, obs, first = Agent.load(folder / "run", "cpu"), trainer.collector.obs, np.ones(2, bool)
        agents = (trainer.agent, loaded, resumed.agent)
        actions = [agent.act(obs, first, agent.initial_state(2), "greedy")[0] for agent in agents]
        assert np.array_equal(actions[0], actions[1]) and np.array_equal(actions[0], actions[2])
    finally:
        trainer.envs.close()
    (folder / "encoders").rename(folder / "elsewhere")
    with pytest.raises(UserError, match=r"model\.pretrained\.\w+\.id=encoders/\w+: cannot be loaded|is not there"):
        Agent.load(folder / "run", "cpu")
