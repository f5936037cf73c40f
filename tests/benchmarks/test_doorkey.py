"""Ours beside the peer."""

from __future__ import annotations

import json

import pytest
from rich.console import Console

from benchmarks import cartpole, doorkey, ours, peer_ppo
from benchmarks.harness import Context, Options


def record(variant, seed, steps, seconds, error=None, success=0.95):
    tasks = doorkey.TASKS
    figures = {
        "env_steps": 50_000,
        "wall_seconds": 60.0,
        "tasks": {task: {"success": success, "success_greedy": 0.9, "return": 0.9, "episodes": 100} for task in tasks},
        "steps_to_threshold": {**dict.fromkeys(tasks, 10_000), doorkey.TARGET: steps},
        "seconds_to_threshold": {**dict.fromkeys(tasks, 5.0), doorkey.TARGET: seconds},
        "reached": steps,
    }
    return {"variant": variant, "seed": seed, "error": error, "commit": "c", "figures": None if error else figures}


RECORDS = [
    record("ours", 1, 20_000, 200.0),
    record("ours", 2, 10_000, 100.0, success=0.91),
    record("ours", 3, 24_000, 260.0),
    record("peer", 1, 45_000, 15.0),
    record("peer", 2, 35_000, 10.0),
    record("peer", 3, 20_000, 9.0),
]


def test_the_break_even_comes_from_the_medians_and_from_each_seed():
    result = doorkey.summarise(Options(), RECORDS)
    assert result["ours"]["steps_to_threshold"] == {"median": 20_000, "worst": 24_000}
    assert result["peer"]["seconds_to_threshold"] == {"median": 10.0, "worst": 15.0}
    # (200 s - 10 s) / (35,000 - 20,000)
    assert result["break_even_seconds_per_step"] == pytest.approx(190 / 15_000)
    assert result["break_even_per_seed"] == {"1": pytest.approx(185 / 25_000), "2": pytest.approx(90 / 25_000), "3": None}
    assert result["share_of_peer_steps"] == pytest.approx(20 / 35)
    assert result["ours"]["least_held_out_success"] == 0.91


def test_a_failed_seed_is_shown_and_counts_as_never():
    result = doorkey.summarise(Options(), [*RECORDS[:1], record("ours", 2, None, None, error="it broke"), *RECORDS[3:]])
    assert result["ours"]["runs"]["2"] == {"error": "it broke", "commit": "c", "reached": None}
    assert result["ours"]["steps_to_threshold"] == {"median": None, "worst": None}
    assert result["break_even_seconds_per_step"] is None
    assert result["break_even_per_seed"]["2"] is None


def test_one_learner_alone_has_no_break_even_but_the_same_keys():
    both, alone = (doorkey.summarise(Options(), records) for records in (RECORDS, RECORDS[:3]))
    assert both.keys() == alone.keys()
    assert both["peer"].keys() == alone["peer"].keys()
    assert alone["break_even_seconds_per_step"] is None
    assert alone["break_even_per_seed"] == {}
    json.dumps(alone, allow_nan=False)


def test_the_table_shows_every_seed_the_median_and_the_break_even():
    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(doorkey.show(doorkey.summarise(Options(), RECORDS)))
    text = console.export_text()
    for shown in ("24,000", "35,000", "median", "worst", "12.7 ms", "0.57 of the peer's"):
        assert shown in text


def test_ours_gets_the_plain_overrides_and_the_peer_those_of_its_own(monkeypatch):
    pytest.importorskip("stable_baselines3", reason="the peer comes with the bench extra")
    monkeypatch.setattr(ours, "composed_config", lambda overrides: {"given": list(overrides), "train": {"env_steps": 7}})
    runs = doorkey.plan(Options(seeds=(4,), overrides=("model=s", "peer.gamma=0.98")))
    assert [(run.variant, run.seed) for run in runs] == [("ours", 4), ("peer", 4)]
    assert runs[0].config["given"] == ["model=s"]
    assert runs[1].config["gamma"] == 0.98


def test_a_quick_peer_is_another_run_than_the_full_one():
    pytest.importorskip("stable_baselines3", reason="the peer comes with the bench extra")
    quick, full = (peer_ppo.peer_config((), quick) for quick in (True, False))
    assert quick != full
    assert quick.max_env_steps < 10_000


@pytest.mark.parametrize(("score", "steps", "reached"), [(450.0, 20_000, 20_000), (449.9, 20_000, None), (500.0, 20_500, None)])
def test_cartpole_is_reached_with_a_return_of_450_within_20000_steps(monkeypatch, tmp_path, score, steps, reached):
    summary = {"env_steps": steps, "tasks": {"CartPole-v1": {"return": score}}}
    monkeypatch.setattr(cartpole, "composed_config", lambda overrides: {"train": {"env_steps": 1}, "env": {"num_envs": 16}})
    monkeypatch.setattr(cartpole, "train_run", lambda *args: summary)
    run = cartpole.cartpole_run([], seed=1)
    assert run.execute(Context(tmp_path, 1, lambda metrics: None, None))["reached"] == reached  # type: ignore[arg-type]
