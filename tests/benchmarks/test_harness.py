"""The benchmark contract: command line, resuming, quick runs, failures, the last line."""

from __future__ import annotations

import json
import os
import signal

import pytest
from rich.text import Text

from benchmarks.harness import Benchmark, Options, Run, run_all
from benchmarks.training import RunError, StoppedError
from envs.errors import UserError


def options(tmp_path, **changes):
    return Options(seeds=(1, 2), results=tmp_path / "results", runs=tmp_path / "runs", **changes)


def planned(executed, seeds=(1, 2), config=None):
    def run(seed):
        def execute(context):
            executed.append(seed)
            return {"reached": 100 * seed}

        return Run("ours", seed, config or {"lr": 0.1}, execute)

    return [run(seed) for seed in seeds]


def benchmark(execute, monkeypatch, tmp_path):
    """A benchmark of one run a seed, whose results go to a folder of the test's."""
    found = Benchmark(
        "toy",
        "A toy.",
        plan=lambda o: [Run("ours", seed, {"overrides": list(o.overrides)}, execute) for seed in o.seeds],
        summarise=lambda o, records: {"reached": {str(record["seed"]): record["reached"] for record in records}},
        show=lambda result: Text("a table"),
    )
    parse = found.parse

    def here(self, argv):
        read = parse(argv)
        return Options(
            read.seeds,
            read.quick,
            read.jobs,
            read.threads,
            read.fresh,
            read.overrides,
            {},
            tmp_path / "results",
            tmp_path / "runs",
        )

    monkeypatch.setattr(Benchmark, "parse", here)
    return found


def test_runs_that_are_finished_are_skipped_and_their_records_answered(tmp_path):
    executed: list[int] = []
    first, _ = run_all("toy", planned(executed), options(tmp_path))
    again, interrupted = run_all("toy", planned(executed), options(tmp_path))
    assert executed == [1, 2]
    assert again == first
    assert not interrupted


def test_only_what_is_missing_is_run(tmp_path):
    executed: list[int] = []
    run_all("toy", planned(executed, seeds=(2,)), options(tmp_path))
    records, _ = run_all("toy", planned(executed, seeds=(1, 2, 3)), options(tmp_path))
    assert sorted(executed) == [1, 2, 3]
    assert [record["seed"] for record in records] == [1, 2, 3]


def test_another_config_is_another_run(tmp_path):
    executed: list[int] = []
    run_all("toy", planned(executed, seeds=(1,), config={"lr": 0.1}), options(tmp_path))
    run_all("toy", planned(executed, seeds=(1,), config={"lr": 0.2}), options(tmp_path))
    assert executed == [1, 1]


def test_fresh_runs_again_and_replaces_the_record(tmp_path):
    executed: list[int] = []
    run_all("toy", planned(executed, seeds=(1,)), options(tmp_path))
    run_all("toy", planned(executed, seeds=(1,)), options(tmp_path, fresh=True))
    assert executed == [1, 1]
    assert len(json.loads((tmp_path / "results" / "toy.json").read_text())) == 1


def test_a_quick_run_never_enters_the_results_and_ignores_them(tmp_path):
    executed: list[int] = []
    run_all("toy", planned(executed, seeds=(1,)), options(tmp_path))
    before = (tmp_path / "results" / "toy.json").read_text()
    records, _ = run_all("toy", planned(executed), options(tmp_path, quick=True))
    assert executed == [1, 1, 2]
    assert len(records) == 2
    assert (tmp_path / "results" / "toy.json").read_text() == before


def test_a_record_says_what_ran_where_and_names_no_path_or_host(tmp_path):
    [record], _ = run_all("toy", planned([], seeds=(1,)), options(tmp_path, overrides=("model=xs",)))
    for key in ("benchmark", "variant", "seed", "config", "config_hash", "overrides", "commit", "dirty", "reached", "error"):
        assert key in record
    for name in ("python", "torch", "torchrl", "transformers", "gymnasium", "minigrid"):
        assert record["versions"][name]
    assert set(record["machine"]) == {"cpu", "cores", "memory_gib"}
    text = json.dumps(record)
    assert os.uname().nodename not in text
    assert str(tmp_path) not in text


def test_a_failed_seed_is_recorded_as_never_reached_and_tried_again(tmp_path):
    attempts: list[int] = []

    def execute(context):
        attempts.append(1)
        if len(attempts) == 1:
            raise RunError("exit code 1: it broke")
        return {"reached": 5}

    runs = [Run("ours", 1, {}, execute)]
    [failed], _ = run_all("toy", runs, options(tmp_path))
    assert (failed["reached"], failed["error"], failed["figures"]) == (None, "exit code 1: it broke", None)
    assert json.loads((tmp_path / "results" / "toy.json").read_text())[0]["error"] == "exit code 1: it broke"
    [record], _ = run_all("toy", runs, options(tmp_path))
    assert (record["reached"], record["error"]) == (5, None)


def test_ctrl_c_keeps_what_is_finished_and_ends_the_rest(tmp_path):
    def execute_two(context):
        os.kill(os.getpid(), signal.SIGINT)
        assert context.stop.wait(10)
        raise StoppedError

    first, second, third = planned([], seeds=(1, 2, 3))
    runs = [first, Run("ours", 2, {}, execute_two), third]
    records, interrupted = run_all("toy", runs, options(tmp_path))
    assert interrupted
    assert [record["seed"] for record in records] == [1]
    assert [record["seed"] for record in json.loads((tmp_path / "results" / "toy.json").read_text())] == [1]
    assert second.seed == 2


def test_a_run_starts_with_no_leftovers_of_an_earlier_try(tmp_path):
    seen: list[bool] = []

    def execute(context):
        seen.append(context.folder.exists())
        context.folder.mkdir(parents=True)
        raise RunError("it broke")

    for _ in range(2):
        run_all("toy", [Run("ours", 1, {}, execute)], options(tmp_path))
    assert seen == [False, False]


def test_a_run_that_resumes_finds_what_an_interrupted_try_of_the_same_code_left(tmp_path, monkeypatch):
    seen: list[bool] = []

    def execute(context):
        seen.append(context.folder.exists())
        context.folder.mkdir(parents=True, exist_ok=True)
        raise StoppedError

    def tried(**changes):
        run_all("toy", [Run("ours", 1, {}, execute, resumes=True)], options(tmp_path, **changes))
        return seen[-1]

    def code(found):
        monkeypatch.setattr("benchmarks.harness.code", lambda: found)

    code("one")
    assert not tried() and tried() and not tried(fresh=True) and tried()
    code("another")
    assert not tried() and tried()
    code(None)  # something is changed and not committed
    assert not tried() and not tried()


def test_the_last_line_is_one_json_object(monkeypatch, tmp_path, capsys):
    toy = benchmark(lambda context: {"reached": 42}, monkeypatch, tmp_path)
    assert toy.main(["--seeds", "3"]) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last == {"benchmark": "toy", "quick": False, "seeds": [3], "interrupted": False, "reached": {"3": 42}}


def test_a_quick_run_gives_the_same_keys(monkeypatch, tmp_path, capsys):
    toy = benchmark(lambda context: {"reached": 42}, monkeypatch, tmp_path)
    toy.main([])
    full = json.loads(capsys.readouterr().out.splitlines()[-1])
    toy.main(["--quick"])
    quick = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert full.keys() == quick.keys()
    assert (full["seeds"], quick["seeds"]) == ([1, 2, 3], [1])


def test_a_failed_run_makes_the_exit_code_1(monkeypatch, tmp_path):
    def execute(context):
        raise RunError("it broke")

    assert benchmark(execute, monkeypatch, tmp_path).main(["--seeds", "1"]) == 1


def test_bad_words_on_the_command_line_are_refused_with_exit_code_2(monkeypatch, tmp_path, capsys):
    toy = benchmark(lambda context: {}, monkeypatch, tmp_path)
    assert toy.main(["--seeds", "1", "model"]) == 2
    assert "model is neither" in capsys.readouterr().err


def read(*argv):
    return Benchmark("toy", "A toy.", lambda o: [], lambda o, r: {}, lambda r: Text()).parse(argv)


def test_overrides_may_follow_seeds():
    found = read("--seeds", "1", "2", "model=xs", "--jobs", "2", "train.batch=8")
    assert found.seeds == (1, 2)
    assert found.overrides == ("model=xs", "train.batch=8")
    assert found.jobs == 2


def test_a_seed_given_twice_is_run_once():
    assert read("--seeds", "2", "1", "2").seeds == (2, 1)


def test_no_jobs_or_threads_are_refused():
    for argv in (["--jobs", "0"], ["--threads", "0"]):
        with pytest.raises(UserError, match="at least 1"):
            read(*argv)
