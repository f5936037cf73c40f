"""Results on disk."""

from __future__ import annotations

import json
from typing import Any

import pytest

from benchmarks.provenance import ROOT, digest
from benchmarks.store import Results, write_json
from envs.errors import UserError

CONFIG: dict[str, Any] = {"train": {"lr": 0.001, "steps": 100}, "tasks": ["5x5"]}


def record(variant="ours", seed=1, config=CONFIG, error=None, **more):
    return {"variant": variant, "seed": seed, "config": config, "error": error, **more}


def test_results_are_a_json_list_in_the_order_they_came(tmp_path):
    results = Results(tmp_path / "results", "doorkey")
    for seed in (2, 1, 3):
        results.add(record(seed=seed))
    written = json.loads((tmp_path / "results" / "doorkey.json").read_text())
    assert [entry["seed"] for entry in written] == [2, 1, 3]


def test_a_run_is_found_by_variant_seed_and_config_alone(tmp_path):
    results = Results(tmp_path, "doorkey")
    results.add(record(reached=7))
    found = results.find("ours", 1, CONFIG)
    assert found is not None
    assert found["reached"] == 7
    assert results.find("peer", 1, CONFIG) is None
    assert results.find("ours", 2, CONFIG) is None
    for other in ({**CONFIG, "tasks": ["6x6"]}, {**CONFIG, "train": {"lr": 0.002, "steps": 100}}, {"tasks": ["5x5"]}, {}):
        assert results.find("ours", 1, other) is None


def test_keys_that_are_newer_than_a_record_matter_only_where_an_override_sets_them(tmp_path):
    results = Results(tmp_path, "doorkey")
    results.add(record(reached=7))
    grown = {**CONFIG, "train": {**CONFIG["train"], "planner": "none"}, "seeds": 3}
    assert results.find("ours", 1, grown) is not None
    assert results.find("ours", 1, grown, ["train.lr=0.001", "peer.window=30"]) is not None
    assert results.find("ours", 1, grown, ["+train.planner=none"]) is None
    results.add(record(config=grown, reached=5))
    assert [entry["reached"] for entry in results.load()] == [5]


WHOLE: dict[str, Any] = {"model": {"width": 128, "maps": True}, "hierarchy": {"discovery": 0.0}, "curriculum": {"name": "any"}}


def test_a_record_from_before_a_key_is_of_what_was_done_then(tmp_path):
    """Maps are there by default today; a record that knows none of them is one without."""
    results = Results(tmp_path, "doorkey")
    results.add(record(config={**WHOLE, "model": {"width": 128}, "hierarchy": {}}, reached=7))
    assert results.find("ours", 1, WHOLE) is None
    assert results.find("ours", 1, {**WHOLE, "model": {"width": 128, "maps": False}}) is not None


def test_a_key_that_is_gone_does_not_matter_where_it_changed_nothing(tmp_path):
    results = Results(tmp_path, "doorkey")
    without, with_one = ({**WHOLE, "model": WHOLE["model"] | {"shared_groups": n}} for n in (0, 1))
    results.add(record(config=with_one, reached=5))
    assert results.find("ours", 1, WHOLE) is None
    results.add(record(config={"given": without}, reached=7))
    assert results.find("ours", 1, {"given": WHOLE}) is not None
    assert [entry["config"] for entry in results.load()] == [with_one, {"given": without}], "what is recorded stays as it was"


def test_goals_that_were_not_swapped_by_default_do_not_matter_and_those_that_were_do(tmp_path):
    def of(*goals: str | None) -> dict[str, Any]:
        return {**WHOLE, "eval": {"episodes": 100, "goals": None if None in goals else list(goals)}}

    results = Results(tmp_path, "hierarchy")
    results.add(record(config=of(), reached=7))
    results.add(record("swapped", config=of("shuffled", "zeroed"), reached=5))
    for config in (of(), of(None)):
        assert (results.find("ours", 1, config) or {}).get("reached") == 7
        assert results.find("swapped", 1, config) is None
    assert results.find("ours", 1, of("shuffled"), ["eval.goals=[shuffled]"]) is None
    assert results.find("swapped", 1, of("shuffled")) is None
    assert (results.find("swapped", 1, of("shuffled", "zeroed")) or {}).get("reached") == 5


def test_settings_of_curricula_that_were_not_used_do_not_matter(tmp_path):
    def of(name: str, horizon: int) -> dict[str, Any]:
        return {**WHOLE, "curriculum": {"name": name, "window": 30, "imagined_success": {"horizon": horizon}}}

    results = Results(tmp_path, "doorkey")
    results.add(record(config=of("sequential", 64)))
    results.add(record("foreseen", config=of("imagined_success", 64)))
    assert results.find("ours", 1, of("sequential", 128)) is not None
    assert results.find("ours", 1, of("imagined_success", 64)) is None
    assert results.find("foreseen", 1, of("imagined_success", 64)) is not None
    assert results.find("foreseen", 1, of("imagined_success", 128)) is None


def test_no_record_has_been_changed_since_it_was_made():
    files = sorted((ROOT / "benchmarks" / "results").glob("*.json"))
    assert files
    for path in files:
        for entry in Results(path.parent, path.stem).load():
            assert digest(entry["config"]) == entry["config_hash"], f"{path.name}: {entry['variant']} {entry['seed']}"


def test_a_later_record_takes_the_place_of_the_same_run(tmp_path):
    results = Results(tmp_path, "doorkey")
    results.add(record(reached=7))
    results.add(record(reached=5))
    assert [entry["reached"] for entry in results.load()] == [5]


def test_a_failed_run_is_recorded_but_not_finished(tmp_path):
    results = Results(tmp_path, "doorkey")
    results.add(record(error="out of memory"))
    assert len(results.load()) == 1
    assert results.find("ours", 1, CONFIG) is None


def test_an_error_never_takes_the_place_of_a_finished_run(tmp_path):
    results = Results(tmp_path, "doorkey")
    results.add(record(reached=7))
    results.add(record(error="out of memory"))
    found = results.find("ours", 1, CONFIG)
    assert found is not None
    assert found["reached"] == 7


def test_a_results_file_that_is_no_list_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "doorkey.json"
    path.write_text('{"half": ')
    with pytest.raises(UserError, match=r"doorkey\.json"):
        Results(tmp_path, "doorkey").add(record())
    assert path.read_text() == '{"half": '


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    path = tmp_path / "doorkey.json"
    write_json(path, [1])
    with pytest.raises(TypeError):
        write_json(path, [object()])
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, [float("nan")])
    assert json.loads(path.read_text()) == [1]
    assert [entry.name for entry in tmp_path.iterdir()] == ["doorkey.json"]


def test_a_write_that_is_cut_off_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "doorkey.json"
    write_json(path, [1])

    def fail(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("benchmarks.store.os.fsync", fail)
    with pytest.raises(KeyboardInterrupt):
        write_json(path, [1, 2])
    assert json.loads(path.read_text()) == [1]
    assert [entry.name for entry in tmp_path.iterdir()] == ["doorkey.json"]
