"""The configs: every key typed, named, explained, and the same in Python as in YAML."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

import run  # stores the schema, too
from agent.config import RunConfig
from curriculum import CURRICULA
from envs.config import EnvConfig
from hierarchy import HIERARCHIES

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
GROUPS = {field.name: type(getattr(RunConfig(), field.name)) for field in fields(RunConfig) if (CONFIGS / field.name).is_dir()}
OPTIONS = [(path.parent.name, path.stem) for path in sorted(CONFIGS.glob("*/*.yaml"))]


def composed(*overrides: str) -> RunConfig:
    with initialize_config_dir(str(CONFIGS), version_base=None):
        config: Any = OmegaConf.to_object(compose("config", list(overrides)))
    assert isinstance(config, RunConfig)
    return config


def leaves(data: Any, prefix: str = "") -> Iterator[str]:
    """Dotted names of a dataclass's fields, nested ones walked into."""
    for field in fields(data):
        value = getattr(data, field.name)
        if is_dataclass(value):
            yield from leaves(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}"


def commented(path: Path) -> dict[str, str]:
    """The dotted names of a YAML file's keys, and the comment behind each."""
    found: dict[str, str] = {}
    parents: list[tuple[int, str]] = []
    for line in path.read_text().splitlines():
        text = line.strip()
        if not text or text.startswith(("#", "-")):
            continue
        indent = len(line) - len(line.lstrip())
        parents = [(depth, name) for depth, name in parents if depth < indent]
        name, _, rest = text.partition(":")
        parents.append((indent, name))
        found[".".join(name for _, name in parents)] = rest.partition("#")[2].strip()
    return found


def test_the_schema_covers_every_group_but_whole_recipes_and_hydras_own():
    assert set(GROUPS) == {path.name for path in CONFIGS.iterdir() if path.is_dir()} - {"experiment", "hydra", "__pycache__"}


@pytest.mark.parametrize("group", GROUPS)
def test_every_key_of_a_group_stands_in_one_of_its_files_with_a_comment(group: str):
    comments: dict[str, str] = {}
    for path in (CONFIGS / group).glob("*.yaml"):
        for name, comment in commented(path).items():
            comments[name] = comments.get(name, "") or comment
    keys = list(leaves(GROUPS[group]()))
    assert [key for key in keys if key not in comments] == [], "missing"
    assert [key for key in keys if not comments[key]] == [], "without a comment"
    headings = {key.rpartition(".")[0] for key in keys}
    free = {name for name in comments if any(name.startswith(f"{key}.") for key in keys)}  # of a free dictionary
    assert set(comments) - set(keys) - headings - free - {"defaults"} == set(), "of no use"


def test_every_key_outside_of_the_groups_stands_in_the_main_file_with_a_comment():
    comments = commented(CONFIGS / "config.yaml")
    keys = [key for key in leaves(RunConfig()) if key.split(".")[0] not in GROUPS]
    assert len(keys) > 20 and [key for key in keys if not comments.get(key)] == []


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=lambda value: value)
def test_every_file_composes_and_holds_to_the_schema(group: str, option: str):
    if group == "hydra":
        pytest.skip("Hydra's own")
    if (CONFIGS / "hydra" / group).is_dir():
        pytest.skip("Hydra's own")
    config = composed(f"{group}={option}")
    assert composed(f"{group}={option}") == config
    if group in ("curriculum", "hierarchy", "job", "model") and option != "base":
        assert getattr(config, group).name == option


@pytest.mark.parametrize("group", [group for group in GROUPS if group != "env"])
def test_the_defaults_of_python_are_those_of_the_composed_config(group: str):
    assert getattr(composed(), group) == GROUPS[group]()


@pytest.mark.parametrize("group", ["train", "eval", "replay"])
def test_the_defaults_of_the_main_file_are_those_of_python(group: str):
    assert getattr(composed(), group) == getattr(RunConfig(), group)


def test_the_default_environment_differs_from_pythons_only_in_which_one_it_is():
    assert composed("env=base").env == EnvConfig()
    ours, theirs = asdict(composed().env), asdict(EnvConfig())
    assert {key for key in ours if ours[key] != theirs[key]} == {"suite", "tasks", "reward"}


def test_every_scheduler_and_hierarchy_has_a_file_of_its_own():
    assert {option for group, option in OPTIONS if group == "curriculum"} == {"base", *CURRICULA}
    assert {option for group, option in OPTIONS if group == "hierarchy"} == set(HIERARCHIES)


def test_presets_grow_from_debug_to_l():
    widths = [composed(f"model={name}").model.width for name in ("debug", "xs", "s", "m", "l")]
    assert widths == [64, 128, 256, 512, 1024]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.speed=3", "speed"),
        ("model.losses.beauty=1", "beauty"),
        ("train.batch=large", "batch"),
        ("train.batch=null", "batch"),
        ("env.holdout=perhaps", "holdout"),
        ("logger.tags=3", "tags"),
        ("hierarchy.actor_critic.gamma=high", "gamma"),
    ],
)
def test_an_unknown_key_or_a_wrong_type_fails_at_load_by_name(override: str, said: str):
    with pytest.raises((HydraException, OmegaConfBaseException)) as caught:
        composed(override)
    assert said in f"{caught.value} {caught.value.__cause__}"


def test_a_config_goes_through_yaml_unchanged():
    wrappers = "env.wrappers=[{name: 'm:C', kwargs: {x: 1}}]"
    config = composed("++env.kwargs={size: 6}", "logger.tags=[a,b]", "model.lr=1e-6", wrappers)
    text = yaml.safe_dump(asdict(config), sort_keys=False)
    assert OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(RunConfig), OmegaConf.create(text))) == config


def test_every_dictionary_takes_new_keys_as_they_are_typed():
    def dictionaries(data: Any, prefix: str = "") -> Iterator[str]:
        for field in fields(data):
            value = getattr(data, field.name)
            if is_dataclass(value):
                yield from dictionaries(value, f"{prefix}{field.name}.")
            elif isinstance(value, dict):
                yield prefix + field.name

    assert set(dictionaries(RunConfig())) == set(run.DICTIONARIES)
