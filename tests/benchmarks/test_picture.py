"""The picture of the results."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from benchmarks.picture import ROWS, draw, draw_novelty, newest
from benchmarks.store import write_json


def record(variant, seed, reached, finished, overrides=(), error=None):
    figures = None if error else {"env_steps": 300_000}
    found = {"variant": variant, "seed": seed, "reached": reached, "finished": finished, "overrides": list(overrides)}
    return {**found, "error": error, "figures": figures, "config": {}}


def test_the_newest_run_of_each_seed_counts_and_what_never_got_there_is_marked(tmp_path: Path):
    runs = [
        record("ours", 1, 900, "2026-02-01"),
        record("ours", 1, 20_000, "2026-01-01"),
        record("ours", 1, 5, "2026-03-01", overrides=["model=s"]),
        record("ours", 2, None, "2026-01-01"),
        record("ours", 3, None, "2026-01-01", error="it broke"),
        record("peer", 1, 40_000, "2026-01-01"),
    ]
    write_json(tmp_path / "doorkey.json", runs)
    assert newest(ROWS[0], tmp_path) == {1: (900.0, True), 2: (300_000.0, False)}
    assert draw(tmp_path / "shown.png", tmp_path) == 3
    with Image.open(tmp_path / "shown.png") as picture:
        assert picture.width > 800 and len(set(picture.convert("L").getdata())) > 10


def test_the_novelty_of_changed_environments_is_drawn_as_a_roc(tmp_path: Path):
    assert draw_novelty(tmp_path / "none.png", tmp_path) == 0, "nothing is on record"
    changed = {"noise": {"auc": 0.8, "roc": [0.2, 0.7, 1.0]}, "lava_gap": {"auc": 1.0, "roc": [1.0, 1.0, 1.0]}}
    run = {**record("doorkey", 1, 0.8, "2026-01-01"), "figures": {"changed": changed}}
    write_json(tmp_path / "ood.json", [run])
    assert draw_novelty(tmp_path / "roc.png", tmp_path) == 2
    with Image.open(tmp_path / "roc.png") as picture:
        assert picture.width > 500 and len(set(picture.convert("L").getdata())) > 10
