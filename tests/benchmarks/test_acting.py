"""`python -m benchmarks.acting`: what is made of its runs."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from benchmarks.acting import BENCHMARK, VARIANTS, show, summarise
from benchmarks.harness import Options

FIGURES = {
    "env_steps": 9456, "updates": 612, "wall_seconds": 61.0, "waited_for_steps": 2.0, "updates_behind": 9.6,
    "updates_behind_most": 12.0, "reached": 9456,
}  # fmt: skip


def record(variant: str, figures: dict[str, Any] | None, error: str | None = None) -> dict[str, Any]:
    return {"variant": variant, "seed": 1, "figures": figures, "error": error}


def test_it_is_reached_where_every_run_masters_the_task():
    both = [record("async", FIGURES), record("sync", FIGURES | {"reached": None, "waited_for_steps": None})]
    assert summarise(Options(), both[:1])["reached"] and not summarise(Options(), both)["reached"]
    assert not summarise(Options(), [])["reached"]


def test_a_run_that_failed_is_shown_with_its_reason():
    result = summarise(Options(), [record("async", FIGURES), record("sync", None, "exit code 2: no such key")])
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(show(result))
    text = console.export_text()
    assert "9,456" in text and "9.6" in text and "failed: exit code 2: no such key" in text


def test_one_way_of_acting_can_be_asked_for():
    assert BENCHMARK.parse(["--only", "async"]).arguments["only"] == ["async"]
    assert set(VARIANTS) == {"sync", "async"}
