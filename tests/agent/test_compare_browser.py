"""The comparison's page in a browser: headless Chromium, where there is one (Debian's package `chromium`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agent.compare.comparison import compare
from agent.compare.page import write_page
from agent.compare.runs import find_folders, load_runs
from agent.config import CompareConfig
from benchmarks.browser import Seen, chromium, look, screenshot
from benchmarks.curricula_report import too_wide
from tests.agent.compare_data import write_run, write_sweep

needs_chromium = pytest.mark.skipif(chromium() is None, reason="needs Chromium (apt-get install chromium)")


@needs_chromium
@pytest.mark.parametrize("width", [1200, 500])  # as narrow as a headless window gets
def test_every_figure_is_drawn_nothing_is_too_wide_and_the_console_is_silent(width: int, tmp_path: Path):
    runs, _ = load_runs(find_folders([write_sweep(tmp_path / "sweep")])[0])
    path = write_page(compare(runs, CompareConfig(resamples=100), np.random.default_rng(0)), tmp_path)
    seen = look(path, width)
    assert seen == Seen(figures=8, drawn=8, described=8, too_wide=False, console=()) and seen.sound


@needs_chromium
def test_nothing_is_cut_off_on_a_phone_or_in_print(tmp_path: Path):
    """The widest there is: a matrix of many pairs, names that are long, and as many tasks as tables show."""
    tasks = {f"density0.{i}_size14": (0.0, 0.5, 1.0, 0.5) for i in range(12)}
    for i in range(11):
        write_run(tmp_path / str(i), f"curriculum_number_{i}_of_eleven", 1, tasks)
    runs, _ = load_runs(find_folders([tmp_path])[0])
    path = write_page(compare(runs, CompareConfig(resamples=100), np.random.default_rng(0)), tmp_path)
    assert too_wide(path) == []
    page = path.read_text()
    path.write_text(page.replace(".scroll, .strip { overflow: visible; }", ".scroll th { white-space: nowrap; }"))
    assert too_wide(path) and all("a printed A4 page" in line for line in too_wide(path)), "what cannot be scrolled is cut off"
    path.write_text(page.replace(".scroll {", ".none {"))
    assert any("a phone of 375 px" in line for line in too_wide(path)), "tables that do not scroll make the page wide"


@needs_chromium
def test_what_is_wrong_with_a_page_is_seen(tmp_path: Path):
    page = tmp_path / "page.html"
    page.write_text("<html><body><script>console.error('broken')</script><img src='none.png' alt='short'></body></html>")
    seen = look(page)
    assert (seen.figures, seen.drawn, seen.described) == (1, 0, 0) and not seen.sound
    assert any("broken" in line for line in seen.console)
    screenshot(page, tmp_path / "page.png", 400, 300)
    assert (tmp_path / "page.png").read_bytes()[16:24] == (400).to_bytes(4, "big") + (300).to_bytes(4, "big")
