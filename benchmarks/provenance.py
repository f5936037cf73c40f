"""Where a result came from: library versions, commit and machine, with nothing in it that names a path, a person or a host."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
APART = ("benchmarks/results/", "docs/", "README.md")  # what no run depends on
LIBRARIES = ("torch", "torchrl", "transformers", "gymnasium", "minigrid", "stable-baselines3")


def versions() -> dict[str, str | None]:
    """Versions of Python and the libraries that figures depend on; `None` for what is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def commit(root: Path = ROOT) -> dict[str, Any]:
    """`{"commit": hash or None, "dirty": bool}` of the working tree; results and documents do not make it dirty."""
    head = _git(root, "rev-parse", "--verify", "--quiet", "HEAD")
    changed = _git(root, "status", "--porcelain", "--", ".", *(f":(exclude){path.rstrip('/')}" for path in APART))
    return {"commit": head or None, "dirty": bool(changed)}


def code(root: Path = ROOT) -> str | None:
    """A short hash of all that is committed but results and documents; None where something is changed, or there is no git."""
    here, listed = commit(root), _git(root, "ls-tree", "-r", "HEAD")
    if here["dirty"] or not listed:
        return None
    return digest([line for line in listed.splitlines() if not line.partition("\t")[2].startswith(APART)])


def machine() -> dict[str, Any]:
    """`{"cpu": model, "cores": usable ones, "memory_gib": int}`."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"cpu": cpu_model(), "cores": cores(), "memory_gib": round(memory / 2**30)}


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def digest(config: Any) -> str:
    """A short hash of plain data: equal for equal data, whatever the order of its keys."""
    text = json.dumps(config, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def scrub(text: str, root: Path = ROOT) -> str:
    """`text` without the paths of this machine: the repository is `.`, the user's home `~`, Python's own folder `<python>`."""
    for folder, name in ((str(root), "."), (sys.prefix, "<python>"), (sys.base_prefix, "<python>"), (str(Path.home()), "~")):
        if len(folder) > 1:
            text = re.sub(re.escape(folder) + r"(?![\w.-])", name, text)
    return text


def cpu_model(info: Path = Path("/proc/cpuinfo")) -> str:
    """The CPU's name, with family and model where the system tells them: of machines that are lent, names alone say little."""
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.exists() else []
    told = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    if "model name" not in told:
        return platform.processor() or platform.machine()
    numbers = ", ".join(f"{name} {told[key]}" for name, key in (("family", "cpu family"), ("model", "model")) if key in told)
    return f"{told['model name']} ({numbers})" if numbers else told["model name"]


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    except OSError:  # no git: a result without a commit is still a result
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
