"""docs/environments.md: its files are written to an empty folder and its commands are run there, with a tiny budget."""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch

from agent.config import RunConfig
from agent.trainer import Trainer
from envs.spaces.specs import KINDS
from tests.agent.tiny import play, tiny_config
from world_model.modalities import MODALITIES

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "environments.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", PAGE, re.DOTALL))
COMMANDS = {match[1]: match[2].strip() for match in re.finditer(r"## (Recipe \d).*?```sh\n(.*?)```", PAGE, re.DOTALL)}
MODULES = [name.removesuffix(".py") for name in FILES]
TINY = (
    "model=debug device=cpu logger=none logger.progress=false env.num_envs=2 eval.episodes=1 dream.horizon=3 dream.film=false "
    "hydra.run.dir=run train.env_steps=80 train.random_steps=64 train.warmup_updates=1 train.batch=2 train.length=8"
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the files of the page, where Python finds them; forgotten afterwards."""
    for name, code in FILES.items():
        (tmp_path / name).write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("world_model.modalities.MODALITIES", MODALITIES)
    known, ids = dict(MODALITIES), set(gym.registry)
    yield tmp_path
    for module in MODULES:
        sys.modules.pop(module, None)
    MODALITIES.clear()
    MODALITIES.update(known)
    for env_id in set(gym.registry) - ids:
        del gym.registry[env_id]


def config_of(recipe: str) -> RunConfig:
    """The `env.*` settings of a recipe's command, as the command line reads them."""
    from hydra import compose, initialize_config_dir

    import run

    arguments = run.free_arguments(run.recipe_arguments(shlex.split(COMMANDS[recipe])[2:]))
    with initialize_config_dir(version_base=None, config_dir=str(ROOT / "configs")):
        config = compose("config", overrides=arguments)
    assert config.curriculum.name == ("sequential" if "curriculum=sequential" in arguments else "target_only")
    from omegaconf import OmegaConf

    given = OmegaConf.to_container(config.env)
    assert isinstance(given, dict)
    return tiny_config({str(key): value for key, value in given.items()}, num_envs=2)


def test_there_are_five_recipes_and_each_has_a_command() -> None:
    assert sorted(COMMANDS) == [f"Recipe {n}" for n in range(1, 6)] and len(FILES) == 6


def test_recipe_1_an_environment_is_trained_from_the_command_line_as_a_user_would(folder: Path) -> None:
    program, _, *arguments = shlex.split(COMMANDS["Recipe 1"])
    assert program == "python"
    command = [sys.executable, str(ROOT / "run.py"), *arguments, *TINY.split()]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "lamp" in done.stdout and "categorical" in done.stdout
    assert json.loads((folder / "run" / "summary.json").read_text())["env_steps"] >= 80
    assert (folder / "run" / "media" / "eval_Corridor-v0.gif").is_file() and (folder / "run" / "report.html").is_file()


def test_recipe_2_a_suite_is_a_task_space_from_easy_to_hard(folder: Path) -> None:
    trainer = Trainer(config_of("Recipe 2"), folder / "run")
    try:
        assert trainer.tasks.ids == ("Corridor-2", "Corridor-3", "Corridor-5")
        play(trainer, 16)
        assert trainer.collector.current_task() == "Corridor-2"
    finally:
        trainer.envs.close()


def test_recipe_3_a_wrapper_changes_what_an_action_does(folder: Path) -> None:
    trainer = Trainer(config_of("Recipe 3"), folder / "run")
    try:
        trainer.envs.reset([trainer.tasks.hardest.with_seed(1)] * 2)
        places = trainer.envs.step(np.array([1, 0])).obs["at"][:, 0] - 5  # categories count from 0, places from -5
        assert places.tolist() == [-1, 1]
    finally:
        trainer.envs.close()


def test_recipe_4_a_modality_is_a_file_and_a_line(folder: Path) -> None:
    trainer = Trainer(config_of("Recipe 4"), folder / "run")
    try:
        (leaf,) = trainer.envs.spec.observations
        assert (leaf.kind, leaf.shape) == ("sundial.Angle", (1,))
        angle = trainer.agent.model.modality("observation")
        codes = angle.tokenize(np.array([[-np.pi], [np.pi], [0.1], [-0.1]], np.float32))
        assert codes.ravel().tolist() == [8, 8, 0, 15]
        np.testing.assert_allclose(angle.detokenize(torch.tensor([[0]])), [[np.pi / 16]], rtol=1e-6)
        logged = play(trainer, 64)
        assert logged and all(np.isfinite(update["model/prior/observation"]) for update in logged)
    finally:
        trainer.envs.close()


def test_recipe_5_a_potential_is_paid_as_a_difference(folder: Path) -> None:
    config = config_of("Recipe 5")
    trainer = Trainer(config, folder / "run")
    try:
        trainer.envs.reset([trainer.tasks.hardest.with_seed(seed) for seed in (1, 2)])
        step = trainer.envs.step(np.array([1, 1]))
        gamma = config.hierarchy.actor_critic.gamma
        assert step.terms is not None and step.terms.shape == (2, 2)
        np.testing.assert_allclose(np.abs(step.terms[:, 1]), 0.1 * gamma, rtol=1e-5)
        guide = importlib.import_module("guide")
        assert guide.nearness({"lamp": "left", "at": -2}, {}) == pytest.approx(0.2)
    finally:
        trainer.envs.close()


def test_the_table_of_spaces_names_only_kinds_that_there_are() -> None:
    table = PAGE[PAGE.index("| space |") : PAGE.index("Actions:")]
    named = {word for row in table.splitlines()[2:] if row for word in re.findall(r"`(\w+)`", row.split("|")[2])}
    assert named - {"ignore"} == set(KINDS)
