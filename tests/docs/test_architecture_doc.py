"""docs/architecture.md: what it names is there."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any

from agent.config import RunConfig

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def test_the_files_and_folders_it_names_are_there() -> None:
    named = re.findall(r"`((?:agent|benchmarks|configs|curriculum|envs|hierarchy|tests|world_model)/[\w/.]*)`", PAGE)
    assert len(named) > 20 and [path for path in named if not (ROOT / path).exists()] == []


def test_the_registries_it_names_are_where_it_says() -> None:
    found = re.findall(r"`([A-Z_]+)` in `([\w/]+)\.py`", PAGE)
    assert len(found) >= 7
    assert [
        name for name, path in found if not getattr(import_module(path.replace("/", ".").removesuffix(".__init__")), name)
    ] == []


def test_the_keys_it_names_exist() -> None:
    found = re.findall(r"`((?:env|eval|hierarchy|model|plan|replay|train)(?:\.[a-z]\w*)+)", PAGE)
    assert len(found) > 20
    for key in found:
        value: Any = RunConfig()
        for part in key.split("."):
            if isinstance(value, dict):
                break
            assert hasattr(value, part), key
            value = getattr(value, part)
