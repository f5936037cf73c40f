"""docs/curricula.md: its scheduler is written to an empty folder and plays there; its table names every scheduler."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.signals import SIGNALS
from agent.trainer import Trainer
from curriculum import CURRICULA
from run import free_arguments, recipe_arguments
from tests.agent.tiny import DOORKEY, play, tiny_config
from tests.test_configs import composed

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "curricula.md").read_text(encoding="utf-8")
((NAME, CODE),) = re.findall(r"```python\n# (\w+)\.py\n(.*?)```", PAGE, re.DOTALL)
(COMMAND,) = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the page's file, where Python finds it; forgotten afterwards."""
    (tmp_path / f"{NAME}.py").write_text(CODE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop(NAME, None)


def test_the_scheduler_of_the_page_plays_by_its_command(folder: Path) -> None:
    chosen = composed(*free_arguments(shlex.split(COMMAND)[2:])).curriculum
    assert chosen.kwargs == {"rate": 0.2}
    trainer = Trainer(replace(tiny_config(DOORKEY, holdout=False), curriculum=chosen), folder / "run")
    try:
        play(trainer, 64)
        state = trainer.curriculum.state_dict()
        assert state["loss"] != [1.0, 1.0] and trainer.curriculum.distribution().sum() == pytest.approx(1)
        trainer.curriculum.load_state_dict(state)
        assert trainer.curriculum.state_dict() == state
    finally:
        trainer.envs.close()


def test_its_box_of_tasks_composes_as_it_is_typed() -> None:
    (line,) = re.findall(r"`(env\.id=YOURS [^`]*)`", PAGE)
    config = composed(*free_arguments(recipe_arguments(shlex.split(line))))
    assert config.env.box == {"density": [0, 0.3], "size": [5, 12]} and config.curriculum.name == "alp_gmm"


def test_the_table_names_every_scheduler_and_the_page_every_signal() -> None:
    assert set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)) == set(CURRICULA)
    assert [name for name in SIGNALS if f"`{name}`" not in PAGE] == []
