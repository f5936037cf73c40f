"""One part of the world model changed at a time."""

from __future__ import annotations

import json

import pytest
from rich.console import Console

from benchmarks import ablation
from benchmarks.harness import Options
from benchmarks.ours import composed_config


def record(variant, seed, steps, error=None, success=0.95, updates=2_000, seconds=600.0):
    figures = {
        "wall_seconds": seconds,
        "updates": updates,
        "tasks": {ablation.TARGET: {"success": success}},
        "steps_to_threshold": {ablation.TARGET: steps},
        "seconds_to_threshold": {ablation.TARGET: seconds if steps else None},
        "reached": steps,
    }
    return {"variant": variant, "seed": seed, "error": error, "commit": "c", "figures": None if error else figures}


RECORDS = [
    record("default", 1, 20_000),
    record("default", 2, 24_000, success=0.9),
    record("default", 3, 30_000, updates=3_000),
    *(
        record(name, seed, 30_000)
        for name in ("without_discovery", "without_maps", "without_maps_and_attention")
        for seed in (1, 2, 3)
    ),
    record("without_attention", 1, 18_000),
    record("without_attention", 2, None, success=0.1),
    record("without_attention", 3, None, success=0.2),
]


def test_every_variant_stands_beside_the_default_and_not_reached_counts_as_worst():
    found = ablation.summarise(Options(), RECORDS)["variants"]
    assert list(found) == list(ablation.VARIANTS)
    default, plain, bare = found["default"], found["without_discovery"], found["without_attention"]
    assert default["steps_to_threshold"] == {"median": 24_000, "worst": 30_000}
    assert (default["updates"], default["held_out"], default["share_of_base_steps"]) == (2_000, 0.95, 1.0)
    assert plain["share_of_base_steps"] == 30_000 / 24_000
    assert bare["steps_to_threshold"]["median"] is None and bare["share_of_base_steps"] is None
    assert bare["held_out"] == 0.2 and bare["runs"]["2"]["reached"] is None, "not reached, not dropped"
    assert found["learned"]["runs"] == {}
    faster = [record("ensemble", seed, 12_000) for seed in (1, 2, 3)]
    assert ablation.summarise(Options(), [*RECORDS, *faster])["variants"]["ensemble"]["share_of_base_steps"] == 0.5


def test_a_failed_run_has_no_figures_and_counts_as_never():
    failed = [*RECORDS[:2], record("default", 3, None, error="it broke")]
    result = ablation.summarise(Options(), failed)
    assert result["variants"]["default"]["steps_to_threshold"] == {"median": 24_000, "worst": None}
    assert result["variants"]["default"]["updates"] == 2_000
    json.dumps(result, allow_nan=False)


def test_the_table_shows_every_seed_and_the_median_beside_the_default():
    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    faster = [record("learned", seed, 12_000) for seed in (1, 2, 3)]
    console.print(
        ablation.show(ablation.summarise(Options(), [*RECORDS, *faster, record("ensemble", 1, None, error="it broke")]))
    )
    text = console.export_text()
    for shown in ("24,000", "never", "0.50", "3,000", "600", "median", "ensemble seed 1 failed: it broke"):
        assert shown in text


def test_variants_run_seed_by_seed_and_differ_from_the_default_by_their_own_keys(monkeypatch):
    monkeypatch.setattr("benchmarks.ours.composed_config", lambda given: {"given": list(given), "train": {"env_steps": 7}})
    runs = ablation.plan(Options(seeds=(1, 2), overrides=("train.env_steps=9",)))
    names = list(ablation.VARIANTS)
    assert [(run.variant, run.seed) for run in runs] == [(name, seed) for seed in (1, 2) for name in names]
    assert runs[0].config["given"] == ["train.env_steps=9"]
    (learned,) = ablation.plan(Options(seeds=(1,), arguments={"only": ["learned"]}))
    assert learned.config["given"] == ["model.learned=[image]", "train.env_steps=25000"]


@pytest.mark.parametrize("name", ablation.VARIANTS)
def test_run_py_takes_the_overrides_of_every_variant(name: str):
    assert composed_config(ablation.VARIANTS[name])["train"]["env_steps"] > 0
