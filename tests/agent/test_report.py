"""The report of a run: one page that needs nothing else and is honest about what is missing."""

from __future__ import annotations

import base64
import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import pytest

from agent.report import write_report
from agent.report.data import RunData, Series, load_run
from agent.report.figures import Figure, curriculum_figure, duration, success_figure, thousands, time_figure
from envs.errors import UserError

# A transparent PNG of one pixel.
PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==")


def write_run(folder: Path, log_steps: int = 4, summary: bool = True) -> Path:
    """A small run on two tasks: `easy` is mastered at 200 env steps, `hard` is not."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "env_steps": 100 * i,
            "train/success/easy": 0.5 * min(i, 2),
            "train/return/easy": 0.4 * min(i, 2),
            "train/episodes/easy": 50.0 * i,
            "curriculum/p/easy": 1.0 if i < 3 else 0.2,
            "curriculum/p/hard": 0.0 if i < 3 else 0.8,
            "model/total": 4.0 / i,
            "policy/entropy": 1.0,
            "policy/imagined_return": 0.1 * i,
            "time/model": 6.0 * i,
            "time/acting": 2.0 * i,
        }
        for i in range(1, log_steps + 1)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "config.yaml").write_text("seed: 7\nenv:\n  suite: pair\ntrain:\n  mastery: 0.9\n")
    if summary:
        tasks = {"easy": {"success": 1.0, "success_greedy": 0.95, "return": 0.9, "episodes": 100}}
        reached = {"easy": 200, "hard": None}
        seconds = {"easy": 75.0, "hard": None}
        text = {"env_steps": 400, "updates": 1234, "wall_seconds": 40.0, "tasks": tasks}
        (folder / "summary.json").write_text(json.dumps({**text, "steps_to_threshold": reached, "seconds_to_threshold": seconds}))
    return folder


class Page(HTMLParser):
    """What a browser would fetch and what a reader would read."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.images: list[dict[str, str | None]] = []
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "img":
            self.images.append(dict(attrs))
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]

    def handle_data(self, data: str) -> None:
        self.text += " " + data

    def rows(self) -> str:
        return re.sub(r"\s+", " ", self.text)


def svg_of(figure: Figure | None) -> str:
    assert figure is not None
    text = base64.b64decode(figure.uri.removeprefix("data:image/svg+xml;base64,")).decode()
    ElementTree.fromstring(text)  # well-formed
    return text


def test_the_page_fetches_nothing(tmp_path: Path):
    page = Page(write_report(write_run(tmp_path)))
    assert len(page.images) >= 6
    assert all(address.startswith("data:image/") for address in page.addresses)
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert "@import" not in (tmp_path / "report.html").read_text()
    assert "url(" not in (tmp_path / "report.html").read_text()


def test_every_picture_has_a_text_that_says_the_same(tmp_path: Path):
    page = Page(write_report(write_run(tmp_path)))
    alts = [image["alt"] or "" for image in page.images]
    assert "Line chart of success over env steps. easy ends at 1.00, after 400 env steps." in alts
    assert all(len(alt) > 20 for alt in alts)


def test_tables_hold_what_the_summary_holds_and_a_dash_where_nothing_was_measured(tmp_path: Path):
    text = Page(write_report(write_run(tmp_path))).rows()
    assert "easy 1.00 0.95 0.900 100 1.00 200 200 1 min 15 s" in text
    assert "hard – – – – – – – –" in text
    assert "steps to 0.9 on hard" in text
    assert "not reached" in text
    assert "1,234" in text
    assert "env steps/s overall 10" in text  # 400 steps in 40 s


def test_a_run_that_died_gets_a_report_that_says_what_is_missing(tmp_path: Path):
    write_run(tmp_path, summary=False)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"env_steps": 500, "model/to')
    text = Page(write_report(tmp_path)).rows()
    assert "summary.json is missing: the run ended before its evaluation" in text
    assert "The run left no media/dream.png." in text
    assert "metrics.jsonl is missing" not in text


def test_an_empty_folder_gets_a_page_too(tmp_path: Path):
    page = Page(write_report(tmp_path))
    missing = ("metrics.jsonl is missing or empty", "config.yaml is missing", "summary.json is missing")
    for sentence in (*missing, "No episode was finished"):
        assert sentence in page.rows()
    assert page.images == []


def test_broken_files_are_said_to_be_broken(tmp_path: Path):
    write_run(tmp_path)
    (tmp_path / "summary.json").write_text('{"env_steps": ')
    (tmp_path / "config.yaml").write_text("a: [1\n")
    assert load_run(tmp_path).missing == [
        "config.yaml cannot be parsed; it is shown as it is.",
        "summary.json cannot be parsed, so only training figures are shown.",
    ]
    write_report(tmp_path)


def test_a_run_that_was_stopped_is_said_to_be_without_an_evaluation(tmp_path: Path):
    write_run(tmp_path)
    (tmp_path / "summary.json").write_text('{"env_steps": 400, "tasks": {}, "steps_to_threshold": {"easy": 200}}')
    assert load_run(tmp_path).missing == ["The run was stopped before its evaluation, so only training figures are shown."]
    assert "evaluation success on hard not evaluated" in Page(write_report(tmp_path)).rows()


def test_a_folder_that_does_not_exist_is_refused_by_name(tmp_path: Path):
    with pytest.raises(UserError, match=r"no run folder .*nowhere"):
        write_report(tmp_path / "nowhere")


def test_what_a_run_is_called_and_configured_with_cannot_break_the_page(tmp_path: Path):
    folder = write_run(tmp_path / "<script>alert(1)<")
    (folder / "config.yaml").write_text('name: "</pre><script>x</script>"\n')
    assert "script" not in Page(write_report(folder)).tags


def test_the_dream_is_shown_with_its_caption_and_other_pictures_after_it(tmp_path: Path):
    write_run(tmp_path)
    media = tmp_path / "media"
    media.mkdir()
    (media / "dream.png").write_bytes(PNG)
    (media / "dream.json").write_text(json.dumps({"title": "A dream", "caption": "Top: real.", "alt": "Two rows of views."}))
    (media / "goals.png").write_bytes(PNG)
    for name in ("dream.gif", "dream_hard.png", "dream_hard_2.png"):
        (media / name).write_bytes(PNG)
    assert [picture.name for picture in load_run(tmp_path).pictures] == ["goals"]
    kinds = [(picture.name, picture.uri[11:14]) for picture in load_run(tmp_path).dreams]
    assert kinds == [("dream", "png"), ("dream", "gif"), ("dream_hard", "png"), ("dream_hard_2", "png")]
    page = Page(write_report(tmp_path))
    shown = {image["alt"]: image["src"] for image in reversed(page.images)}
    assert shown["Two rows of views."] == "data:image/png;base64," + base64.b64encode(PNG).decode()
    assert "The picture goals.png; it came without a description." in shown
    assert "Top: real." in page.rows()
    assert "left no media/dream.png" not in page.rows()


def test_a_folder_of_dreams_alone_gets_a_page_of_them_alone(tmp_path: Path):
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / "dream_easy.png").write_bytes(PNG)
    rows = Page(write_report(tmp_path)).rows()
    assert "A dream beside what really happened" in rows
    for absent in ("missing", "Results", "Learning curves", "Losses", "No "):
        assert absent not in rows


def test_a_report_is_written_in_one_piece_and_again_when_asked(tmp_path: Path):
    write_run(tmp_path)
    first = write_report(tmp_path).read_bytes()
    assert write_report(tmp_path).read_bytes() == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml", "metrics.jsonl", "report.html", "summary.json"]


def test_a_series_holds_the_log_steps_that_have_it():
    run = RunData("r", metrics=[{"env_steps": 1, "a/x": 5.0}, {"env_steps": 2}, {"env_steps": 3, "a/x": 7.0, "a/y": 1.0}])
    assert run.series("a/x") == Series([1, 3], [5.0, 7.0])
    assert run.group("a/") == {"x": Series([1, 3], [5.0, 7.0]), "y": Series([3], [1.0])}
    assert run.series("b") is None


def test_a_long_series_is_thinned_without_losing_its_spikes():
    values = [0.0] * 1000
    values[123], values[777] = 9.0, -9.0
    thin = Series([float(i) for i in range(1000)], values).thin(buckets=10)
    assert len(thin.steps) <= 21
    assert (max(thin.values), min(thin.values)) == (9.0, -9.0)
    assert thin.steps[-1] == 999.0
    assert thin.steps == sorted(thin.steps)
    short = Series([1.0, 2.0], [3.0, 4.0])
    assert short.thin(buckets=10) is short


def test_time_that_no_phase_covers_is_shown_as_such(tmp_path: Path):
    run = load_run(write_run(tmp_path))
    assert run.phases() == {"model": 24.0, "acting": 8.0, "everything else": 8.0}  # of 40 s
    figure = time_figure(run)
    svg_of(figure)
    assert figure is not None
    assert figure.alt == "Bar chart of seconds by phase: model 60 %, acting 20 %, everything else 20 %."


def test_tasks_come_in_the_order_of_the_task_space(tmp_path: Path):
    assert load_run(write_run(tmp_path)).tasks == ["easy", "hard"]
    run = RunData("r", metrics=[{"env_steps": 1, "train/success/b": 0.0, "curriculum/p/a": 0.5, "curriculum/p/b": 0.5}])
    assert run.tasks == ["a", "b"]


def test_success_over_fewer_than_a_full_window_is_drawn_faintly(tmp_path: Path):
    run = load_run(write_run(tmp_path))
    assert run.full_from("easy") == 200  # 50, 100, 150, ... episodes
    assert run.full_from("hard") == 0  # not counted
    figure = success_figure(run)
    assert "opacity: 0.35" in svg_of(figure)
    assert figure is not None
    assert "Faint: fewer than 100 episodes so far." in figure.caption


def test_success_without_practice_is_drawn_thin(tmp_path: Path):
    plain = success_figure(load_run(write_run(tmp_path)))
    run = load_run(tmp_path)
    run.metrics = [line | {"train/judged/easy": 0.5} for line in run.metrics]
    figure = success_figure(run)
    assert figure is not None and plain is not None
    assert "Thin: of the episodes that were no practice" in figure.caption and "Thin" not in plain.caption
    assert "stroke-width: 0.8" in svg_of(figure) and svg_of(figure) != svg_of(plain)


def test_the_curriculum_tells_its_end_and_what_was_mastered(tmp_path: Path):
    run = load_run(write_run(tmp_path))
    figure = curriculum_figure(run)
    svg_of(figure)
    assert figure is not None
    assert figure.alt == (
        "Stacked areas of the curriculum's choice over env steps; at the end easy 0.20, hard 0.80. "
        "Reached the threshold (rings): easy at 200 env steps."
    )


def test_a_single_task_has_no_curriculum_to_draw(tmp_path: Path):
    (tmp_path / "metrics.jsonl").write_text('{"env_steps": 1, "train/success/only": 0.0, "curriculum/p/only": 1.0}\n')
    assert "There was one task, only: nothing to choose." in Page(write_report(tmp_path)).rows()


@pytest.mark.parametrize(("value", "text"), [(0, "0"), (950, "950"), (12500, "12.5k"), (2_000_000, "2M")])
def test_large_numbers_are_short_on_an_axis(value: float, text: str):
    assert thousands(value) == text


@pytest.mark.parametrize(("seconds", "text"), [(7.25, "7.2 s"), (754, "12 min 34 s"), (7500, "2 h 5 min")])
def test_durations_are_for_people(seconds: float, text: str):
    assert duration(seconds) == text
