"""Flat and director side by side."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from rich.console import Console

from benchmarks import hierarchy
from benchmarks.harness import Options
from benchmarks.hierarchy_figures import area, lead, share_of_ppo, success_at, swap_counts
from benchmarks.mastery import POINTS, mastery_curve
from benchmarks.picture import RESULTS
from benchmarks.store import Results
from benchmarks.training import composed_config

TASKS = hierarchy.FAMILIES["multiroom"]


def record(variant, seed, reached, error=None, lost=None, hardest=((10_000.0, 0.0), (30_000.0, 0.8))):
    """N2 is mastered by 10,000 env steps, N4 half of it, and a run lasts 40,000 at least."""
    tasks: dict[str, Any] = {task: {"success": success} for task, success in zip(TASKS, (1.0, 0.95, 0.5), strict=True)}
    if lost is not None:
        for task in TASKS:
            tasks[task]["goals"] = {"shuffled": {"success": 0.3, "lost": lost}, "zeroed": {"success": 0.7, "lost": 0.0}}
    figures = {
        "reached": reached,
        "env_steps": reached or 300_000,
        "steps_to_threshold": dict(zip(TASKS, (None, 20_000, reached), strict=True)),
        "held_out": {TASKS[0]: [[10_000.0, 1.0]], TASKS[1]: [[10_000.0, 0.5]], TASKS[2]: [list(point) for point in hardest]},
        "mastery": {task: [[1_000.0 * i, 0.1]] for i, task in enumerate(TASKS, 1)},
        "updates": 1_500,
        "wall_seconds": 100.0,
        "tasks": tasks,
        "forgotten": {TASKS[0]: 0.05, TASKS[2]: 0.4},
    }
    commit = {"variant": variant, "seed": seed, "error": error, "commit": "c"}
    return {**commit, "figures": None if error else figures}


def test_curves_are_thinned_and_keep_their_first_and_last_point():
    lines = [{"env_steps": n, "train/success/a": n / 1000} for n in range(1000)] + [{"env_steps": 1000}]
    curve = mastery_curve(lines, ("a", "b"))
    assert mastery_curve([{"env_steps": 5, "eval/success/a": 0.5}], ("a",), "eval/success") == {"a": [[5.0, 0.5]]}
    assert len(curve["a"]) <= POINTS + 1 and curve["a"][-1] == [999.0, 0.999] and curve["b"] == []
    assert curve["a"][0] == [0.0, 0.0] and len({step for step, _ in curve["a"]}) == len(curve["a"]), "the first once"


def test_practice_is_left_out_of_the_curves_where_there_was_any():
    lines = [{"env_steps": 1, "train/success/a": 0.5, "train/success/b": 0.9}]
    assert hierarchy.judged_curve(lines, ("a", "b")) == {"a": [[1.0, 0.5]], "b": [[1.0, 0.9]]}
    lines.append({"env_steps": 2, "train/success/a": 0.8, "train/success/b": 0.9, "train/judged/a": 0.3})
    assert hierarchy.judged_curve(lines, ("a", "b")) == {"a": [[2.0, 0.3]], "b": []}, "all of b's episodes were practice"


def test_what_was_mastered_and_is_missing_at_the_end_is_forgotten():
    curve = {"a": [[1.0, 0.95], [2.0, 0.75]], "b": [[1.0, 0.6], [2.0, 0.1]], "c": [[1.0, 0.9], [2.0, 0.9]]}
    found = hierarchy.forgotten(curve)
    assert found == {"a": pytest.approx(0.2), "c": 0.0}


def test_success_at_equal_steps_lies_on_lines_between_evaluations_and_stays_as_it_was_at_the_end():
    points = [[10_000.0, 0.2], [20_000.0, 0.6], [24_000.0, 1.0]]
    assert [success_at(points, n) for n in (5_000, 10_000, 15_000, 22_000, 50_000)] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0])


def test_the_area_is_the_mean_success_over_tasks_and_the_first_forty_thousand_steps():
    curve = {"a": [[10_000.0, 1.0]], "b": [[10_000.0, 0.0], [30_000.0, 1.0], [40_000.0, 0.0]]}
    # a rises for 10,000 steps and stays; b rises for 20,000 from 10,000 on and falls for 10,000.
    assert area(curve) == pytest.approx(((5 + 30) + (10 + 5)) / 2 / 40)


def shown(records, width=80):
    result = json.loads(json.dumps(hierarchy.summarise(Options(), records), allow_nan=False))
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(hierarchy.show(result))
    return result["families"]["multiroom"], console.export_text()


def test_runs_that_never_got_there_count_as_longest_and_failures_are_said():
    records = [
        record("multiroom/flat", 1, 50_000),
        record("multiroom/flat", 2, None),
        record("multiroom/flat", 3, 70_000),
        record("multiroom/director", 1, None, lost=0.6),
        record("multiroom/director", 2, None, error="it broke"),
    ]
    found, text = shown(records)
    flat, director = found["variants"]["flat"], found["variants"]["director"]
    assert flat["steps"] == 70_000 and director["steps"] is None and director["failed"] == 1
    words = " ".join(text.split())
    for expected in ("50,000", "> 300,000", "1.00 0.95 0.50", "N6 0.30, lost 0.60", "director seed 2 failed: it broke", "…"):
        assert (expected in words) == (expected != "…"), expected
    assert "0.00 0.40 0.80 0.80" in words, "of the hardest, at equal steps"
    cells = " ".join(words.replace("│", " ").split())
    assert "flat 1 3,000 50,000 1,500 100" in cells, "when the hardest was begun, env steps, updates and seconds"
    assert "PPO with a sequential curriculum: never never never" in words
    assert "flat: MultiRoom-N6 within 200,000 env steps in the median, met." in words


def test_goals_count_on_the_hardest_task_mastered_or_half_solved_and_only_easier_tasks_are_forgotten():
    runs = shown([record("multiroom/director", 1, 60_000, lost=0.6), record("multiroom/director", 2, None, lost=0.4)])[0]
    director = runs["variants"]["director"]
    assert [run["swapped"]["task"] for run in director["runs"].values()] == [TASKS[2], TASKS[2]]
    assert [run["forgotten"] for run in director["runs"].values()] == [0.05, 0.05]
    assert swap_counts(director) == (1, 2)
    short = record("multiroom/director", 3, None, lost=0.6)
    short["figures"]["steps_to_threshold"] = {}
    assert shown([short])[0]["variants"]["director"]["runs"]["3"]["swapped"]["task"] == TASKS[2], "solved half of the time"
    short["figures"]["tasks"][TASKS[2]]["success"] = 0.4
    assert shown([short])[0]["variants"]["director"]["runs"]["3"]["swapped"]["task"] == TASKS[1]


def test_the_explorers_lead_is_its_success_less_that_of_manager_and_worker_while_both_are_known():
    # From 5 on both are known: worker 0.5 to 1 at 10, then 1; explorer 1 until 10, down to 0.8 at 20: 0.25 over 5, -0.1 over 10.
    worker, explorer = [[0.0, 0.0], [10.0, 1.0], [20.0, 1.0]], [[5.0, 1.0], [10.0, 1.0], [20.0, 0.8], [30.0, 0.0]]
    assert lead(worker, explorer) == pytest.approx((5 * 0.25 - 10 * 0.1) / 15)
    assert lead(worker, []) is None and lead([], explorer) is None
    assert lead([[0.0, 1.0], [5.0, 1.0]], explorer) is None, "they meet in a single point"


def test_what_goals_do_is_shown_of_directors_alone():
    with_goals = record("multiroom/director", 1, 60_000, lost=0.6)
    told = {"heard": 0.75, "pairs": 40, "told": 0.25, "untold": 0.125, "reached": 0.5}
    with_goals["figures"]["goals"] = {TASKS[2]: told, TASKS[0]: {**told, "heard": 0.5}}
    with_goals["figures"]["practice"] = {TASKS[2]: [[2_000.0, 0.2], [9_000.0, 0.2]]}
    with_goals["figures"]["mastery"][TASKS[2]] = [[3_000.0, 0.1], [8_000.0, 0.1]]
    text = shown([with_goals, record("multiroom/flat", 1, 60_000)], 160)[1]
    cells = " ".join(text.replace("│", " ").split())
    # Wilson 1927 of 30 in 40: (0.75 + 0.048) / 1.096 -+ 0.130
    assert "director 1 N6 0.75 (0.60-0.86) 0.25 0.12 0.50 +0.10" in cells
    titles = [{line.strip() for line in of.splitlines()} for of in (text, shown([record("multiroom/flat", 1, 60_000)])[1])]
    assert ["Goals" in lines for lines in titles] == [True, False]


def test_one_hierarchy_is_ahead_of_another_where_the_interval_says_so():
    good, bad = (((10_000.0, success),) for success in (0.8, 0.2))
    records = [record("multiroom/director", seed, None, hardest=good) for seed in (1, 2, 3)]
    records += [record("multiroom/flat", seed, None, hardest=bad) for seed in (1, 2, 3)]
    found, text = shown(records)
    gap = found["ahead"]["director"]
    assert (gap["difference"], gap["low"], gap["high"]) == pytest.approx((0.6, 0.6, 0.6)) and gap["probability"] == 1.0
    assert gap["p"] == pytest.approx(0.1), "the least that three against three can have"
    assert gap["ahead"] and "ahead, met" in " ".join(text.split())
    mixed = [record("multiroom/director", seed, None, hardest=hardest) for seed, hardest in ((1, good), (2, bad), (3, bad))]
    gap = shown([*mixed, *records[3:]])[0]["ahead"]["director"]
    assert gap["difference"] == pytest.approx(0.2) and gap["low"] == pytest.approx(0.0) and not gap["ahead"]
    given = {"director": (0.9, 0.8, 0.22), "flat": (0.2, 0.2, 0.25)}
    some = [
        record(f"multiroom/{name}", seed, None, hardest=((10_000.0, success),))
        for name, row in given.items()
        for seed, success in enumerate(row, 1)
    ]
    gap = shown(some)[0]["ahead"]["director"]
    assert gap["low"] > 0 and gap["p"] > 0.1 and not gap["ahead"], "one run of them is behind"
    gap = shown([run for run in some if run["seed"] < 3])[0]["ahead"]["director"]
    assert gap["low"] > 0 and gap["p"] == pytest.approx(1 / 3) and not gap["ahead"], "two against two show nothing"


def test_a_remedy_is_compared_once_it_was_confirmed_and_success_that_is_none_has_nothing_to_lose():
    name = "multiroom/director, goals of 8 steps"
    records = [record("multiroom/flat", seed, 70_000) for seed in (1, 2, 3)] + [record(name, 1, 60_000)]
    records[-1]["figures"]["tasks"][TASKS[2]]["goals"] = {"shuffled": {"success": 0.0, "lost": None}}
    found, text = shown(records)
    assert found["ahead"] == {} and "shuffled goals cost" not in text
    found, text = shown([*records, record(name, 2, 60_000, lost=0.6)])
    assert {key: gap["against"] for key, gap in found["ahead"].items()} == {"director, goals of 8 steps": "flat"}
    words = " ".join(text.split())
    assert "Director, goals of 8 steps: shuffled goals cost half of the success or more in 1 of 1 runs." in words


def test_todays_director_and_confirmed_remedies_are_compared_with_the_director_before_them():
    """Ahead of both; one that was not confirmed is compared with flat alone."""
    better, other = hierarchy.CONFIRMED[0], "director, goals of 8 steps"
    assert other not in hierarchy.CONFIRMED
    given = {"flat": 0.1, hierarchy.EARLIER: 0.3, "director": 0.5, better: 0.8, other: 0.8}
    records = [
        record(f"multiroom/{name}", seed, None, hardest=((10_000.0, success),))
        for name, success in given.items()
        for seed in (1, 2, 3)
    ]
    found, text = shown(records)
    assert {key: gap["against"] for key, gap in found["better"].items()} == dict.fromkeys(("director", better), hierarchy.EARLIER)
    assert [gap["difference"] for gap in found["better"].values()] == pytest.approx([0.2, 0.5])
    assert found["ahead"].keys() == given.keys() - {"flat"} and {gap["against"] for gap in found["ahead"].values()} == {"flat"}
    assert f"{better.capitalize()} against {hierarchy.EARLIER} on MultiRoom-N6" in " ".join(text.split())
    assert shown([run for run in records if not run["variant"].endswith(hierarchy.EARLIER)])[0]["better"] == {}


def test_a_director_is_compared_with_the_flat_policy_of_its_own_kind():
    records = [record(f"multiroom/{name}, alone", seed, 60_000) for name in ("director", "flat") for seed in (1, 2)]
    with_curriculum = [record("multiroom/flat", seed, 60_000) for seed in (1, 2)]
    found, text = shown([*records, *with_curriculum])
    assert found["ahead"]["director, alone"]["against"] == "flat, alone"
    assert "Director, alone against flat, alone on MultiRoom-N6" in " ".join(text.split())
    assert shown([*records[:2], *with_curriculum])[0]["ahead"] == {}, "never with one that had a curriculum"
    novel = [record("multiroom/director, goal novelty, alone", seed, 60_000) for seed in (1, 2)]
    assert shown([*records, *novel])[0]["ahead"]["director, goal novelty, alone"]["against"] == "flat, alone"
    bare = [record(f"multiroom/{name}, undiscovered", seed, 60_000) for name in ("director", "flat") for seed in (1, 2)]
    assert shown(bare)[0]["ahead"]["director, undiscovered"]["against"] == "flat, undiscovered"


def test_a_share_of_ppo_is_of_its_median():
    assert share_of_ppo("keycorridor", 29_300.0) == pytest.approx(0.1)
    assert share_of_ppo("multiroom", 29_300.0) is None and share_of_ppo("keycorridor", None) is None


def test_variants_run_seed_by_seed(monkeypatch):
    monkeypatch.setattr("benchmarks.hierarchy.composed_config", lambda given: {"given": given, "train": {"env_steps": 7}})
    chosen = ["multiroom/flat", "multiroom/director"]
    runs = hierarchy.plan(Options(seeds=(1, 2), arguments={"only": chosen}, overrides=("model=s",)))
    assert [(run.variant, run.seed) for run in runs] == [(name, seed) for seed in (1, 2) for name in chosen]
    assert runs[0].config["given"][-1] == "model=s" and runs[0].total_steps == 7


def test_what_needs_one_seed_runs_with_the_first_unless_it_is_asked_for(monkeypatch):
    monkeypatch.setattr("benchmarks.hierarchy.composed_config", lambda given: {"train": {"env_steps": 7}})
    runs = [(run.variant, run.seed) for run in hierarchy.plan(Options(seeds=(1, 2)))]
    assert {name for name, seed in runs if seed == 1} == set(hierarchy.VARIANTS)
    assert {name.partition("/")[2] for name, seed in runs if seed == 2} == {
        "flat",
        "director",
        hierarchy.EARLIER,
        *hierarchy.CONFIRMED,
    }
    assert {name for name, _ in runs if name.startswith("doorkey")} == {"doorkey/flat", "doorkey/director"}
    drawn = "multiroom/director, undiscovered"
    assert [run.seed for run in hierarchy.plan(Options(seeds=(1, 2), arguments={"only": [drawn]}))] == [1, 2]


@pytest.mark.parametrize(
    ("name", "novelty"),
    [
        ("multiroom/flat", None),
        ("keycorridor/director, alone", 0.0),
        ("doorkey/director", 0.0),
        ("multiroom/director, goal novelty", 0.1),
        ("multiroom/director, goals of 8 steps", 0.1),
    ],
)
def test_run_py_takes_the_overrides(name: str, novelty: float | None):
    config = composed_config(hierarchy.VARIANTS[name])
    assert config["env"]["tasks"] == list(hierarchy.FAMILIES[name.partition("/")[0]])
    assert (config["hierarchy"]["name"] == "director") == (novelty is not None)
    assert novelty is None or config["hierarchy"]["manager"]["novelty"] == novelty
    assert (config["curriculum"]["name"] == "target_only") == ("alone" in name)


def test_every_record_is_of_a_variant():
    assert {run["variant"] for run in Results(RESULTS, "hierarchy").load()} <= hierarchy.VARIANTS.keys()
