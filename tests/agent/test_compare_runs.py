"""Run folders read for a comparison: what is in them, and what is wrong with those that are left out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pytest import approx

from agent.compare.runs import BrokenRunError, differences, find_folders, load_run, load_runs
from agent.report.imagined import Tally, imagined_figure, tallied_halves
from curriculum.imagined_success import TALLIES
from tests.agent.compare_data import FAST, SLOW, TASKS, TRAINED, write_run, write_sweep


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_run_is_read_from_its_three_files(tmp_path: Path):
    run = load_run(write_run(tmp_path / "run", "fast", 3, FAST))
    assert (run.curriculum, run.seed, run.trained, run.tasks) == ("fast", 3, TRAINED, TASKS)
    assert run.steps.tolist() == [100, 200, 300, 400]
    assert run.success.tolist() == [[0.5, 0, 0], [1, 0.5, 0], [1, 1, 0.5], [1, 1, 1]]
    assert run.probability_steps.tolist() == [100, 200, 300, 400] and run.probability.tolist() == [[0.75, 0.25]] * 4
    assert (run.env_steps, run.updates, run.wall_seconds, run.evaluation_seconds) == (400, 50, 60, 5)
    assert run.episodes == {"easy": 7, "hard": 7}


def test_the_evaluation_at_the_end_takes_the_place_of_the_shorter_one_before_it(tmp_path: Path):
    folder = write_run(tmp_path / "run")
    final = {task: {"success": 0.25} for task in TASKS}
    change(folder / "summary.json", tasks=final)
    assert load_run(folder).success[-1].tolist() == [0.25, 0.25, 0.25] and len(load_run(folder).steps) == 4
    change(folder / "summary.json", env_steps=416)
    assert load_run(folder).steps.tolist() == [100, 200, 300, 400, 416]


def test_a_run_without_evaluations_on_the_way_has_its_end_alone(tmp_path: Path):
    folder = write_run(tmp_path / "run")
    (folder / "metrics.jsonl").write_text('{"env_steps": 100, "curriculum/p/easy": 1, "curriculum/p/hard": 0}\n')
    run = load_run(folder)
    assert run.steps.tolist() == [400] and run.success.tolist() == [[0.5, 0.5, 0]]
    assert run.probability.tolist() == [[1, 0]], "as runs logged it before"


def test_what_was_foretold_is_told_apart_by_the_half_of_the_run_in_which_it_came(tmp_path: Path):
    """Sums that only grow, logged at 100 to 400 of 400 env steps: what stands at 200 is the first half's."""
    folder = write_run(tmp_path / "run", "imagined_success")
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for row, sums in zip(rows, [(2, 0.1, 0, 0.01), (4, 0.2, 1, 0.91), (4, 0.2, 1, 0.91), (10, 0.5, 1, 1.0)], strict=True):
        row |= {f"curriculum/reliability/0.0/{name}": value for name, value in zip(TALLIES, sums, strict=True)}
    rows[3] |= {f"curriculum/reliability/0.9/{name}": value for name, value in zip(TALLIES, (1, 1, 1, 0), strict=True)}
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    halves = load_run(folder).halves
    assert halves is not None and halves.shape == (2, 10, 4)
    early, late = Tally(halves[0]), Tally(halves[1])
    assert early.episodes == 4 and [early.brier, early.uninformed] == approx([0.91 / 4, 0.25 * 0.75])
    assert late.episodes == 7 and late.brier == approx(0.09 / 7)
    assert np.array(late.bins) == approx(np.array([[0.05, 0, 6], [1, 1, 1]]))
    assert load_run(write_run(tmp_path / "other")).halves is None
    figure = imagined_figure(halves, "title", [halves, halves])
    assert figure is not None and "second half: 0.05 came as 0.00 (6), 1.00 came as 1.00 (1)" in figure.alt
    assert "first half 0.23 (0.23 to 0.23 over 2 runs; 0.19 by always" in figure.caption


def test_sums_that_are_none_are_cut_to_what_they_can_be(tmp_path: Path):
    rows = [
        {"env_steps": 100.0, "curriculum/reliability/0.5/came": 7.0},
        {"env_steps": 400.0, "curriculum/reliability/0.5/x": 1.0},
    ]
    halves = tallied_halves(rows, 400)
    assert halves is not None and not halves.any() and imagined_figure(halves, "title") is None
    assert tallied_halves(rows[:0], 400) is None


def test_another_learner_has_a_name_and_settings_of_its_own(tmp_path: Path):
    write_run(tmp_path / "ours", "sequential")
    write_run(tmp_path / "theirs", "sequential", learner="PPO", peer={"gamma": 0.99})
    runs, notes = load_runs(find_folders([tmp_path])[0])
    assert [(run.curriculum, run.learner) for run in runs] == [("sequential", ""), ("PPO (sequential)", "PPO")]
    assert not notes and not differences(runs)


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda run: (run / "config.yaml").unlink(), "it has no config.yaml"),
    "not finished": (lambda run: (run / "summary.json").unlink(), "it has no summary.json; the run is not finished"),
    "not evaluated": (lambda run: change(run / "summary.json", tasks={}), "it was not evaluated"),
    "no JSON": (lambda run: (run / "summary.json").write_text("{"), "it cannot be read"),
    "nested without end": (lambda run: (run / "summary.json").write_text("[" * 100_000), "it cannot be read"),
    "a list": (lambda run: (run / "summary.json").write_text("[]"), "have to hold keys"),
    "code in YAML": (lambda run: (run / "config.yaml").write_text("a: !!python/object/apply:os.getcwd []"), "it cannot be read"),
    "binary": (lambda run: (run / "config.yaml").write_bytes(b"\xff\xfe\x00"), "it cannot be read"),
    "no seed": (lambda run: change(run / "config.yaml", seed="one"), "its 'seed' is no number"),
    "no curriculum": (lambda run: change(run / "config.yaml", curriculum={}), "need names"),
    "a name with lines": (lambda run: change(run / "config.yaml", curriculum={"name": "a\nb"}), "need names"),
    "a huge number": (lambda run: change(run / "summary.json", env_steps=10**400), "its 'env_steps' is no number"),
    "not a number": (lambda run: change(run / "summary.json", wall_seconds=float("nan")), "its 'wall_seconds' is no number"),
    "no share": (lambda run: change(run / "summary.json", tasks={t: {"success": 2} for t in TASKS}), "is no share: 2"),
    "a row that is none": (
        lambda run: (run / "metrics.jsonl").write_text(json.dumps({"env_steps": 1} | {f"eval/success/{t}": -1 for t in TASKS})),
        "from 0 to 1",
    ),
    "tasks not evaluated": (lambda run: change(run / "summary.json", training={"other": {"episodes": 1}}), "were not evaluated"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_named_in_one_sentence_and_left_out(name: str, tmp_path: Path):
    breaks, said = BROKEN[name]
    whole, broken = write_run(tmp_path / "whole"), write_run(tmp_path / "broken", seed=2)
    breaks(broken)
    with pytest.raises(BrokenRunError, match=said):
        load_run(broken)
    runs, (note,) = load_runs([whole, broken])
    assert [run.folder for run in runs] == [whole]
    assert note.startswith(f"{broken} is left out: ") and said in note and "\n" not in note


def test_a_bomb_of_anchors_is_refused_before_it_grows(tmp_path: Path):
    folder = write_run(tmp_path / "run")
    layers = ["a0: &a0 {x: 1}"] + [f"a{i}: &a{i} {{{', '.join(f'k{j}: *a{i - 1}' for j in range(9))}}}" for i in range(1, 9)]
    (folder / "config.yaml").write_text("\n".join(layers))
    with pytest.raises(BrokenRunError, match="more than"):
        load_run(folder)


def test_runs_are_found_below_the_folders_given(tmp_path: Path):
    sweep = write_sweep(tmp_path / "sweep")
    (tmp_path / "empty").mkdir()
    one = sweep / "curriculum=fast,seed=1"
    folders, notes = find_folders([one, tmp_path / "sweep", tmp_path / "empty", tmp_path / "nowhere"])
    assert len(folders) == 4 and folders[0] == one, "each once"
    assert notes == [f"{tmp_path / 'empty'} holds no run.", f"{tmp_path / 'nowhere'} is not there."]


def test_the_same_run_twice_and_runs_on_other_tasks_are_left_out(tmp_path: Path):
    write_sweep(tmp_path / "sweep")
    write_run(tmp_path / "sweep" / "twice", "fast", 1, FAST)
    write_run(tmp_path / "sweep" / "other", "fast", 9, {"easy": SLOW["easy"]})
    runs, notes = load_runs(find_folders([tmp_path])[0])
    assert [(run.curriculum, run.seed) for run in runs] == [("fast", 1), ("fast", 2), ("uniform", 1), ("uniform", 2)]
    assert len(notes) == 2 and "on other tasks (easy)" in notes[0] and "same curriculum and seed, fast 1" in notes[1]


def test_settings_of_one_scheduler_are_curricula_of_their_own(tmp_path: Path):
    for i, revisit in enumerate((0.0, 0.2)):
        write_run(tmp_path / str(i), "sequential", revisit=revisit)
    write_run(tmp_path / "uniform")
    runs, _ = load_runs(find_folders([tmp_path])[0])
    assert [run.curriculum for run in runs] == ["sequential (revisit=0.0)", "sequential (revisit=0.2)", "uniform"]


def test_settings_that_a_scheduler_does_not_read_make_no_other_curriculum_of_it(tmp_path: Path):
    """A sweep over two schedulers and a setting of one of them plays the other twice."""
    for i, robust in enumerate((False, True)):
        for name in ("uniform", "level_replay", "mine.Own"):
            folder = write_run(tmp_path / f"{name}{i}")
            change(folder / "config.yaml", curriculum={"name": name, "level_replay": {"robust": robust}})
    runs, (note,) = load_runs(find_folders([tmp_path])[0])
    both = ("level_replay.robust=False", "level_replay.robust=True")
    others = {f"{name} ({key})" for name in ("level_replay", "mine.Own") for key in both}
    assert {run.curriculum for run in runs} == {"uniform", *others}
    assert "of the same curriculum and seed, uniform 1." in note


def test_a_run_that_is_left_out_for_another_says_in_what_else_they_differ(tmp_path: Path):
    write_run(tmp_path / "a", hierarchy={"name": "flat"})
    write_run(tmp_path / "b", hierarchy={"name": "director"})
    _, (note,) = load_runs(find_folders([tmp_path])[0])
    assert note.endswith("is of the same curriculum and seed, uniform 1, and of another hierarchy.name.")


def test_what_differs_beside_curriculum_and_seed_is_known(tmp_path: Path):
    write_run(tmp_path / "a", "fast", 1, train={"env_steps": 400, "threads": 1}, logger={"group": "fast"}, device="cpu")
    write_run(tmp_path / "b", "uniform", 2, train={"env_steps": 500, "threads": 2}, logger={"group": "uniform"}, device="cuda")
    runs, _ = load_runs(find_folders([tmp_path])[0])
    assert differences(runs) == {"train.env_steps": ["400", "500"]}
    assert runs[0].success[-1].mean() == approx(1 / 3)
