"""`benchmarks.curricula`: what runs in which order, what a record keeps, and the report that is made of records alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from agent.compare.comparison import compare
from agent.compare.page import foretold_of
from agent.compare.runs import load_run
from agent.config import CompareConfig
from benchmarks import curricula, curricula_report
from benchmarks.curricula import BENCHMARK, PARTS, QUICK_REPORT, plan, summarise, under_protocol
from benchmarks.curricula_records import compared_run, figures_of, settings_of
from benchmarks.curricula_report import about_code, conclusions, reach_of
from benchmarks.harness import Options, Run
from benchmarks.store import Results
from benchmarks.training import RunError, composed_config
from envs.errors import UserError
from tests.agent.compare_data import FAST, SLOW, write_run

CONFIG = {"env": {"suite": "doorkey", "tasks": ["a"], "num_envs": 16}, "train": {"env_steps": 7}}


@pytest.fixture
def composed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is composed, and PPO counts as installed."""
    monkeypatch.setattr(curricula, "composed_config", lambda overrides: {"given": list(overrides), **CONFIG})
    monkeypatch.setattr(curricula, "peer_config", lambda overrides, quick: None)
    monkeypatch.setattr(curricula, "under_protocol", lambda config: curricula.PeerConfig())
    monkeypatch.setattr(curricula_report, "chromium", lambda: None)
    monkeypatch.setattr(curricula_report, "CompareConfig", lambda: CompareConfig(resamples=100))


def options(*words: str) -> Options:
    return BENCHMARK.parse(words)


def planned(*words: str) -> list[Run]:
    return plan(options(*words))


def names(runs: list[Run]) -> list[tuple[str, int]]:
    return [(run.variant, run.seed) for run in runs]


def test_after_every_seed_there_is_a_whole_comparison(composed: None):
    runs = names(planned())
    whole = [f"{part}_{name}" for part, own in PARTS.items() for name in own.curricula]
    assert [variant for variant, seed in runs if seed == 1] == whole == [variant for variant, _ in runs[: len(whole)]]
    assert [seed for _, seed in runs] == sorted(seed for _, seed in runs)
    counts = {part: sum(variant == f"{part}_uniform" for variant, _ in runs) for part in PARTS}
    assert counts == {"doorkey": 5, "director": 5, "box": 3}
    assert len([name for name in PARTS["doorkey"].curricula if name != "ppo"]) >= 6


def test_parts_curricula_and_seeds_can_be_chosen(composed: None):
    assert names(planned("--only", "box", "--curricula", "adr", "uniform", "--seeds", "4", "5")) == [
        ("box_uniform", 4), ("box_adr", 4), ("box_uniform", 5), ("box_adr", 5),
    ]  # fmt: skip
    with pytest.raises(UserError, match="no part"):
        planned("--only", "box", "--curricula", "sequential")


def test_all_of_a_part_differ_in_the_curriculum_alone_and_ppo_gets_its_own_words(composed: None):
    runs = {run.variant: run for run in planned("--seeds", "1", "model=s", "peer.gamma=0.98")}
    given = {name: runs[name].config["given"] for name in ("doorkey_uniform", "doorkey_sequential", "box_adr")}
    assert given["doorkey_uniform"][-2:] == ["model=s", "curriculum=uniform"]
    assert given["doorkey_uniform"][:-1] == given["doorkey_sequential"][:-1]
    assert given["box_adr"][0] == "experiment=compare_curricula" and "env=obstacles" in given["box_adr"]
    assert runs["doorkey_ppo"].config["gamma"] == 0.98


def test_ppo_keeps_to_the_protocol():
    config = composed_config([*curricula.PROTOCOL, "env=doorkey"])
    peer = under_protocol(config)
    assert (peer.tasks, peer.eval_also) == (("DoorKey-5x5", "DoorKey-6x6", "DoorKey-8x8"), ("DoorKey-16x16",))
    assert (peer.max_env_steps, peer.stop_at_mastery, peer.threshold) == (45_000, False, 0.9)
    assert (peer.eval_every, peer.eval_every_episodes, peer.eval_episodes) == (2_500, 20, 100)
    assert (peer.eval_seed, peer.eval_envs, peer.eval_max_steps, peer.split) == (0, 20, 640, "test")
    assert (peer.advance_window, peer.revisit) == (30, 0.2), "the same sequential curriculum"


FORETOLD = {"curriculum/reliability/0.8/episodes": 4.0, "curriculum/reliability/0.8/foretold": 3.4}
FORETOLD |= {"curriculum/reliability/0.8/came": 3.0, "curriculum/reliability/0.8/squared_error": 1.0}


def record(folder: Path, curriculum: str, seed: int, fast: bool, **keys: Any) -> dict[str, Any]:
    """Of a run folder that is gone afterwards, as the harness would make it."""
    run = write_run(folder / f"{curriculum}{seed}", curriculum, seed, FAST if fast else SLOW, **keys)
    if curriculum == "imagined_success":
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        rows[0] |= FORETOLD
        rows[-1] |= {key: 2 * value for key, value in FORETOLD.items()}
        (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    figures = {"part": "doorkey", **figures_of(run)}
    config = {"advance_window": 30} if "learner" in keys else {"curriculum": {"imagined_success": {"horizon": 128}}}
    code = {"commit": "a" * 40, "dirty": False, "jobs": 1}
    return {"variant": f"doorkey_{curriculum}", "seed": seed, "error": None, "config": config, "figures": figures} | code


def test_a_report_says_where_its_runs_are_of_different_code():
    same = [{"commit": "a" * 40, "dirty": False, "jobs": 1}] * 2
    assert about_code(same) == ["The runs are of one version of the code: aaaaaaa."]
    assert about_code([*same, {"commit": "b" * 40, "dirty": True, "jobs": 2}]) == [
        "The runs are of 2 versions of the code: aaaaaaa, bbbbbbb.",
        "1 runs had changes that were not committed.",
        "1 of 3 runs ran beside others (`--jobs`): training times tell little of what a curriculum costs.",
    ]


def test_what_the_worker_reached_in_the_end_is_said_of_runs_that_had_goals():
    runs = [{"figures": {"logged": {"p/hard": [1.0, 1.0], "reach/hard": [0.1, last]}}} for last in (0.2, 0.5)]
    assert reach_of([*runs, {"figures": {"logged": {}}}]) == (
        "Share of the manager's goals that the worker reached in imagination in the end, mean of 2 runs: 0.35 on hard."
    )
    assert reach_of([{"figures": {"logged": {}}}]) == ""


def test_runs_of_different_versions_do_not_seem_to_differ_in_keys_that_change_nothing(composed: None):
    now = composed_config(["experiment=compare_curricula"])
    older = json.loads(json.dumps(now))
    del older["hierarchy"]["worker"], older["model"]["maps"]  # from before there were these
    older["model"] |= {"shared_groups": 0}  # and with one that is no more
    older["train"]["update_every"] = now["train"]["update_every"] + 1
    ours, theirs = settings_of(now), settings_of(older)
    assert {key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)} == {
        "model.maps",  # of which a run from before had none
        "train.update_every",
    }


def test_a_record_holds_all_that_a_comparison_shows_of_a_run(tmp_path: Path):
    run = load_run(write_run(tmp_path / "run", "fast", 3, FAST))
    kept = {"variant": "v", "seed": 3, "config": {"a": {"b": 1}}, "figures": json.loads(json.dumps(figures_of(run.folder)))}
    again = compared_run(kept)
    for name in ("curriculum", "seed", "trained", "tasks", "env_steps", "updates", "wall_seconds", "episodes"):
        assert getattr(again, name) == getattr(run, name), name
    assert again.steps.tolist() == run.steps.tolist() and again.success.tolist() == run.success.tolist()
    assert again.probability.tolist() == run.probability.tolist() and again.settings == {"a.b": 1}
    assert str(again.folder) == "v_seed3", "no path of the machine it ran on"
    assert (again.curriculum_seconds, again.judged_steps) == (None, None)
    older = {key: value for key, value in kept["figures"].items() if key not in ("curriculum_seconds", "judged_steps")}
    assert compared_run(kept | {"figures": older}).curriculum_seconds is None
    measured = compared_run(kept | {"figures": older | {"curriculum_seconds": 3.5, "judged_steps": 8.0}})
    assert (measured.curriculum_seconds, measured.judged_steps) == (3.5, 8.0)
    assert kept["figures"]["logged"] == {} and kept["figures"]["reached"] == 300
    (run.folder / "summary.json").unlink()
    with pytest.raises(RunError, match=r"no summary\.json"):
        figures_of(run.folder)


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Four seeds of uniform, of a better curriculum, and of another learner."""
    folder = tmp_path_factory.mktemp("records")
    return [
        made
        for seed in range(1, 5)
        for made in (
            record(folder, "uniform", seed, fast=False),
            record(folder, "imagined_success", seed, fast=True),
            record(folder, "sequential", seed, fast=True, learner="PPO"),
        )
    ]


def test_the_report_says_what_the_numbers_carry(composed: None, records: list[dict[str, Any]], tmp_path: Path):
    logged = records[1]["figures"]["logged"]
    assert logged["reliability/0.8/came"] == [3.0, 6.0] and len(records[1]["figures"]["logged_steps"]) == 2
    failed = {"variant": "doorkey_adr", "seed": 9, "error": "it broke", "figures": None}
    result = summarise(Options(arguments={"out": tmp_path}), [*records, failed])
    json.dumps(result, allow_nan=False)
    part = result["parts"]["doorkey"]
    assert list(part["curricula"]) == ["imagined_success", "uniform", "PPO (sequential)"], "the best first, other learners last"
    assert part["against_baseline"]["imagined_success"] == {
        "value": 1,
        "low": 1,
        "high": 1,
        "p": pytest.approx(2 / 70),
        "apart": True,
    }
    assert "PPO (sequential)" not in part["against_baseline"]
    assert part["conclusions"][0] == "With 4 runs each, 1 of 1 can be told apart from uniform: imagined_success (better)."
    # 0.85 was foretold of four episodes in each half, of which three succeeded: 0.75 x 0.25 by foretelling the share.
    assert part["curricula"]["imagined_success"]["brier"] == [{"brier": 0.25, "uninformed": 0.1875, "episodes": 16}] * 2
    said = "success within 128 steps was foretold worse than the baseline in the first half (Brier score 0.250, baseline 0.188)"
    assert said in " ".join(part["conclusions"]) and said in (tmp_path / "doorkey" / "comparison.html").read_text()
    text = (tmp_path / "README.md").read_text()
    assert "Success means success within 128 steps, foretold or real" in text
    beside = text.index("PPO (sequential) moves on by its last 30 episodes")
    assert text.index("| PPO (sequential) | 4 |") < beside < text.index("![Line chart") and "tuned with 100" in text
    assert "| imagined_success | 4 | 0.50 (0.50 to 0.50) |" in text and str(tmp_path) not in text
    for name in ("comparison.html", "runs.csv", "curves.csv", "pairs.csv", "imagined.csv", "mastered.svg", "imagined.svg"):
        assert (tmp_path / "doorkey" / name).stat().st_size > 100
    page = (tmp_path / "doorkey" / "comparison.html").read_text()
    assert "Did imagination foretell it?" in page and "first half: 0.85 came as 0.75 (16)" in page
    assert "PPO (sequential) is another learner, shown for scale" in page and "differ in more than" not in page
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(BENCHMARK.show(result))
    assert "doorkey_adr seed 9 failed: it broke" in console.export_text()


def test_few_runs_are_said_to_show_nothing(records: list[dict[str, Any]]):
    few = [compared_run(one) for one in records if one["seed"] <= 3]
    said = conclusions(compare(few, CompareConfig(resamples=100), np.random.default_rng(0)))
    assert said[0] == "With 3 runs each, none of 1 can be told apart from uniform."
    assert said[1].startswith("Too few runs to tell from uniform, whatever they show: imagined_success (0.1).")


def test_what_was_foretold_is_better_or_worse_than_the_baseline_in_each_half(records: list[dict[str, Any]]):
    """16 episodes a half, 12 successes: squared errors of 4, then of 1; the baseline has 0.75 x 0.25 in both."""
    mixed = [compared_run(one) for one in records]
    better = np.array([[1, 1, 1, 1], [1, 1, 1, 0.25]])  # of sums: squared errors of the second half are a quarter
    mixed = [run if run.halves is None else replace(run, halves=run.halves * better[:, None], settings={}) for run in mixed]
    (said,) = foretold_of(compare(mixed, CompareConfig(resamples=100), np.random.default_rng(0)))
    assert said == (
        "imagined_success: success within the steps imagined was foretold "
        "worse than the baseline in the first half (Brier score 0.250, baseline 0.188) and "
        "better than the baseline in the second half (Brier score 0.062, baseline 0.188). "
        "The baseline always foretells the share of successes."
    )


def test_a_page_that_is_not_sound_is_written_and_refused(
    composed: None,
    records: list[dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    benchmark = replace(BENCHMARK, plan=lambda options: [], summarise=lambda options, _: summarise(options, records))
    words = ["--report", "--out", str(tmp_path)]
    assert benchmark.main(words) == 0, "no Chromium, nothing to refuse"
    for found in ({"sound": False, "narrow": ["1200 px are too wide"]}, {"sound": False, "error": "it broke"}):
        monkeypatch.setattr(curricula_report, "_look", lambda page, picture, found=found: found)
        assert benchmark.main(words) != 0 and (tmp_path / "README.md").exists()
        assert str(list(found.values())[1]) in capsys.readouterr().err


def test_a_report_alone_runs_nothing_and_names_what_is_not_on_record(
    composed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (first, *_) = planned("--only", "box", "--seeds", "1")
    Results(tmp_path, "curricula").add(
        {"variant": first.variant, "seed": 1, "config": dict(first.config), "error": None, "overrides": []}
    )
    monkeypatch.setattr(curricula, "Results", lambda folder, name: Results(tmp_path, name))
    assert names(planned("--only", "box", "--seeds", "1", "--report")) == [("box_uniform", 1)]
    assert "not in the report: box_expanding_range 1, box_adr 1, box_alp_gmm 1." in capsys.readouterr().err
    assert QUICK_REPORT.is_relative_to(curricula_report.ROOT / "runs"), "a quick run leaves docs alone"
