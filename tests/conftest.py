"""What every test runs under: one thread, no network, no accelerator that is not asked for."""

from __future__ import annotations

import os
import shutil

# Set before anything imports torch, wandb or a hub client; two test processes on two cores must not start four threads each.
os.environ.update(
    {
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "DS_ACCELERATOR": "cpu",
        "HF_HUB_OFFLINE": "1",
        "WANDB_SILENT": "true",
        "MPLBACKEND": "Agg",
        "PYGAME_HIDE_SUPPORT_PROMPT": "1",
        "SDL_VIDEODRIVER": "dummy",
    }
)

import pytest


def has_compiler() -> bool:
    return any(shutil.which(name) for name in (os.environ.get("CXX") or "g++", "c++", "clang++"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if has_compiler():
        return
    skip = pytest.mark.skip(reason="no C++ compiler here (g++ or clang++): DeepSpeed's CPU backend cannot be built")
    for item in items:
        if item.get_closest_marker("compiler"):
            item.add_marker(skip)
