"""Who may import whom, read from the source: a forbidden import is found in a function and under TYPE_CHECKING as well."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# package: what it may import of ours, by module or package name, beside itself. An arrow never runs upward.
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "envs": (),
    "curriculum": ("envs.tasks", "envs.errors", "envs.by_name"),
    "world_model": ("envs.spaces", "envs.errors", "envs.by_name"),
    "hierarchy": ("world_model", "envs.spaces", "envs.errors", "envs.by_name"),
    "agent": ("hierarchy", "world_model", "curriculum", "envs"),
    "run": ("agent", "hierarchy", "world_model", "curriculum", "envs", "configs"),
}
# package: what it may not import although the line above would let it.
MAY_NOT_IMPORT: dict[str, tuple[str, ...]] = {
    "hierarchy": ("world_model.encoders", "world_model.modalities"),
}
OURS = (*MAY_IMPORT, "configs", "benchmarks", "tests")
# Imported where they are used: a plain local run pays for none of them.
LAZY = (
    "wandb", "wandb_workspaces", "deepspeed", "ray", "tensorboard", "torch.utils.tensorboard",
    "matplotlib", "minigrid", "ale_py", "crafter", "stable_baselines3", "peft", "fsspec",
)  # fmt: skip


@dataclass(frozen=True)
class Import:
    """One imported name: `from a.b import c` is `a.b.c` where that is a module, else `a.b`."""

    target: str
    line: int
    at_import: bool  # it runs when the module is imported


def is_module(name: str, root: Path = ROOT) -> bool:
    path = root.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def imports(source: str, module: str, is_package: bool = False) -> list[Import]:
    """Every import in `source`, the source of `module`: relative names resolved, literal `import_module` calls counted."""
    package = module.split(".") if is_package else module.split(".")[:-1]
    found: list[Import] = []

    def visit(node: ast.AST, at_import: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend(Import(alias.name, node.lineno, at_import) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *(node.module or "").split(".")]).strip(".")
            for alias in node.names:
                full = f"{base}.{alias.name}"
                ours = full.split(".")[0] in OURS
                found.append(Import(full if (is_module(full) if ours else full in LAZY) else base, node.lineno, at_import))
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module") and node.args:
            argument = node.args[0]
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                found.append(Import(argument.value, node.lineno, at_import))
        for child, inside in children(node, at_import):
            visit(child, inside)

    visit(ast.parse(source), True)
    return found


def children(node: ast.AST, at_import: bool) -> Iterator[tuple[ast.AST, bool]]:
    """What is below `node`, and whether it runs when the module is imported."""
    later = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    only_typing = isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
    for field, value in ast.iter_fields(node):
        skipped = (later and field == "body") or (only_typing and field == "body")
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield child, at_import and not skipped


def within(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


def violations(source: str, module: str, is_package: bool = False) -> list[str]:
    """What `source` may not import, a sentence each."""
    top = module.split(".")[0]
    wrong = []
    for item in imports(source, module, is_package):
        ours = item.target.split(".")[0] in OURS
        allowed = within(item.target, (top, *MAY_IMPORT[top])) and not within(item.target, MAY_NOT_IMPORT.get(top, ()))
        if ours and not allowed:
            wrong.append(f"{module}, line {item.line}: {top} may not import {item.target}")
        if item.at_import and within(item.target, LAZY):
            wrong.append(f"{module}, line {item.line}: {item.target} has to be imported where it is used")
    return wrong


def modules() -> list[Path]:
    return [path for top in MAY_IMPORT for path in [ROOT / f"{top}.py", *sorted((ROOT / top).rglob("*.py"))] if path.is_file()]


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path: Path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    is_package = parts[-1] == "__init__"
    module = ".".join(parts[:-1] if is_package else parts)
    assert violations(path.read_text(encoding="utf-8"), module, is_package) == []


def test_every_package_of_the_design_is_checked():
    assert {path.relative_to(ROOT).parts[0].removesuffix(".py") for path in modules()} >= {
        "envs", "curriculum", "world_model", "hierarchy", "agent",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("module", "source", "target"),
    [
        ("world_model.model", "import envs", "envs"),
        ("world_model.model", "from envs import make_envs", "envs"),
        ("world_model.model", "from envs.vector import TaskVectorEnv", "envs.vector"),
        ("world_model.model", "def f():\n    from agent.replay import Replay", "agent.replay"),
        ("world_model.model", "from hierarchy.returns import lambda_return", "hierarchy.returns"),
        ("hierarchy.flat", "if TYPE_CHECKING:\n    from agent.replay import Replay", "agent.replay"),
        ("hierarchy.flat", "from world_model.modalities.grid import GridEncoder", "world_model.modalities.grid"),
        ("hierarchy.flat", "from world_model import modalities", "world_model.modalities"),
        ("hierarchy.flat", "from curriculum.base import Curriculum", "curriculum.base"),
        ("curriculum.uniform", "import world_model.model", "world_model.model"),
        ("curriculum.uniform", "from envs.config import EnvConfig", "envs.config"),
        ("envs.vector", "import importlib\nimportlib.import_module('agent.trainer')", "agent.trainer"),
        ("agent.trainer", "from run import main", "run"),
        ("agent.trainer", "from tests.odd import thing", "tests.odd"),
    ],
)
def test_an_import_against_the_arrows_is_caught(module: str, source: str, target: str):
    (sentence,) = violations(source, module)
    assert sentence.endswith(f"{module.split('.')[0]} may not import {target}")


@pytest.mark.parametrize(
    "source",
    [
        "import wandb",
        "import matplotlib.pyplot as plt",
        "from torch.utils.tensorboard import SummaryWriter",
        "from torch.utils import tensorboard",
        "try:\n    import deepspeed\nexcept ImportError:\n    deepspeed = None",
        "class A:\n    import ray",
        "def f(x=__import__('importlib').import_module('minigrid')):\n    pass",
    ],
)
def test_a_lazy_package_imported_with_its_module_is_caught(source: str):
    (sentence,) = violations(source, "agent.trainer")
    assert sentence.endswith("has to be imported where it is used")


@pytest.mark.parametrize(
    "source",
    [
        "def f():\n    import wandb",
        "class A:\n    def f(self):\n        import deepspeed",
        "if TYPE_CHECKING:\n    from matplotlib.axes import Axes",
        "from torch.utils.data import DataLoader",
        "import wandbish",
        "from envs.tasks import Task\nfrom hierarchy.base import Hierarchy\nfrom agent.replay import Replay",
    ],
)
def test_what_is_allowed_is_let_through(source: str):
    assert violations(source, "agent.trainer") == []


def test_relative_imports_are_resolved():
    source = "from . import specs\nfrom .specs import EnvSpec\nfrom .. import tasks\nfrom ..tasks import Task"
    expected = ["envs.spaces.specs", "envs.spaces.specs", "envs.tasks", "envs.tasks"]
    assert [item.target for item in imports(source, "envs.spaces.leaves")] == expected
    assert [item.target for item in imports(source, "envs.spaces", is_package=True)] == expected
