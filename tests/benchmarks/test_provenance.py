"""Where a result came from."""

from __future__ import annotations

import subprocess
from pathlib import Path

from benchmarks.provenance import code, commit, cpu_model, digest, scrub


def git(root, *arguments):
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(root), *identity, *arguments], check=True, capture_output=True)


def test_a_digest_depends_on_the_data_not_on_the_order_of_keys():
    assert digest({"a": 1, "b": [2, 3]}) == digest({"b": [2, 3], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})


def test_a_tuple_and_a_list_have_the_same_digest_as_json_knows_no_tuples():
    assert digest({"tasks": ("x", "y")}) == digest({"tasks": ["x", "y"]})


def test_the_paths_of_this_machine_are_scrubbed(tmp_path):
    text = f"{tmp_path}/run.py: no {Path.home()}/data"
    assert scrub(text, root=tmp_path) == "./run.py: no ~/data"


def test_a_folder_that_only_begins_alike_is_left_alone(tmp_path):
    assert scrub(f"{tmp_path}2/run.py", root=tmp_path) == f"{tmp_path}2/run.py"


def test_results_do_not_make_the_working_tree_dirty_but_code_does(tmp_path):
    git(tmp_path, "init", "--quiet")
    (tmp_path / "code.py").write_text("1")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    (tmp_path / "benchmarks" / "results" / "toy.json").write_text("[]")
    clean = commit(tmp_path)
    assert len(clean["commit"]) == 40
    assert not clean["dirty"]
    (tmp_path / "code.py").write_text("2")
    assert commit(tmp_path)["dirty"]


def test_outside_a_repository_there_is_no_commit(tmp_path):
    assert commit(tmp_path) == {"commit": None, "dirty": False}


def test_code_is_another_once_code_is_committed_and_the_same_after_documents_and_results(tmp_path):
    git(tmp_path, "init")

    def committed(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        git(tmp_path, "add", "-A")
        git(tmp_path, "commit", "-m", name)
        return code(tmp_path)

    first = committed("run.py", "one")
    assert first is not None and first == committed("docs/page.md", "more") == committed("benchmarks/results/x.json", "[]")
    assert committed("run.py", "two") not in (first, None)
    (tmp_path / "run.py").write_text("three")
    assert code(tmp_path) is None, "changed and not committed"
    assert code(tmp_path / "nowhere") is None


def test_a_cpu_of_a_name_that_many_share_is_told_by_family_and_model(tmp_path):
    info = tmp_path / "cpuinfo"
    core = "processor\t: {}\nvendor_id\t: AuthenticAMD\ncpu family\t: 26\nmodel\t\t: 2\nmodel name\t: AMD EPYC\n\n"
    info.write_text(core.format(0) + core.format(1), encoding="utf-8")
    assert cpu_model(info) == "AMD EPYC (family 26, model 2)"
    info.write_text("processor\t: 0\nmodel name\t: Some Core\nFeatures\t: fp\n", encoding="utf-8")
    assert cpu_model(info) == "Some Core"
    assert cpu_model(tmp_path / "none")
