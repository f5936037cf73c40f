"""docs/scaling.md: its commands compose, and its examples are what their formats ask for."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from agent import settings
from agent.config import RunConfig
from agent.settings import check_settings
from tests.test_configs import composed

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
EXAMPLES = ROOT / "docs" / "examples"
COMMANDS = re.findall(r"^(?:python|torchrun|deepspeed)\b.*run\.py (.*)$", PAGE, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_its_commands_compose_and_are_taken(command: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(settings, "check_installed", lambda: None)  # Ray is an extra
    config = composed(*(word for word in command.split() if not word.startswith("hydra.")))
    if config.job.name == "train":
        check_settings(config)


def test_the_keys_and_files_it_names_are_there():
    assert len(COMMANDS) > 7
    for group, key in re.findall(r"`(plan|acting|sharding|train|env|replay)\.(\w+)[`=]", PAGE):
        assert hasattr(getattr(RunConfig(), group), key), f"{group}.{key}"
    for path in re.findall(r"\]\((examples/[^)]*)\)", PAGE):
        assert (ROOT / "docs" / path).is_file(), path
    for path in re.findall(r"`((?:tests|world_model)/[\w/]+\.py)`", PAGE):
        assert (ROOT / path).is_file(), path


def test_the_dockerfile_copies_what_is_there_and_all_packages():
    lines = re.findall(r"^COPY (.*)$", (EXAMPLES / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    sources = [word for line in lines for word in line.split()[:-1]]
    assert all((ROOT / source).exists() for source in sources)
    assert {"agent", "world_model", "hierarchy", "curriculum", "envs", "configs", "run.py", "pyproject.toml"} <= set(sources)


GIVEN = ("sharding", "model", "train.batch", "train.random_steps")


def overrides_in(text: str) -> list[str]:
    """Every `key=value` for run.py in an example."""
    return [word for word in re.findall(r"[\w.]+=[\w.]+", text) if word.split("=")[0] in GIVEN]


@pytest.mark.parametrize("name", ["slurm.sh", "kubernetes.yaml"])
def test_the_overrides_of_the_examples_compose(name: str):
    given = overrides_in((EXAMPLES / name).read_text(encoding="utf-8"))
    assert len(given) == len(GIVEN)
    check_settings(composed(*given), processes=16)


@pytest.mark.parametrize("line", re.findall(r"^(?:torchrun|deepspeed)\b.*$", PAGE, re.MULTILINE))
def test_no_rank_refuses_the_settings_it_is_launched_with(line: str):
    several = "--nnodes" in line or "--hostfile" in line
    check_settings(composed(*overrides_in(line)), processes=16 if several else 8)


def test_the_slurm_script_is_bash():
    done = subprocess.run(["bash", "-n", EXAMPLES / "slurm.sh"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "command", ["shellcheck slurm.sh", "hadolint Dockerfile", "kubernetes-validate --strict kubernetes.yaml"]
)
def test_a_linter_finds_nothing(command: str):
    linter, *options, name = command.split()
    found = shutil.which(linter, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if found is None:
        pytest.skip(f"{linter} is not installed: it comes with the dev extra")
    done = subprocess.run([found, *options, EXAMPLES / name], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_kubernetes_job_starts_as_many_pods_as_torchrun_waits_for():
    service, claim, job = yaml.safe_load_all((EXAMPLES / "kubernetes.yaml").read_text(encoding="utf-8"))
    assert [part["kind"] for part in (service, claim, job)] == ["Service", "PersistentVolumeClaim", "Job"]
    spec = job["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    script = container["args"][0]
    assert f"--nnodes {spec['completions']} " in script and spec["completions"] == spec["parallelism"]
    assert f"--nproc_per_node {container['resources']['limits']['nvidia.com/gpu']} " in script
    assert f"{job['metadata']['name']}-0.{pod['subdomain']}:" in script and pod["subdomain"] == service["metadata"]["name"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
