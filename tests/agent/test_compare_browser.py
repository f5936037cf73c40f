"""The comparison's page in a browser: headless Chromium, where there is one (Debian's package `chromium`)."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from agent.compare.comparison import compare
from agent.compare.page import write_page
from agent.compare.runs import find_folders, load_runs
from agent.config import CompareConfig
from tests.agent.compare_data import write_sweep

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
OPTIONS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--enable-logging=stderr"]
# The page has no script. This one, added for the test, says what the browser made of it.
PROBE = """<script>
addEventListener("load", () => {
  const images = [...document.images];
  const drawn = images.filter(image => image.complete && image.naturalWidth > 100 && image.alt.length > 20).length;
  const wide = document.documentElement.scrollWidth > innerWidth;
  document.title = `${images.length} figures, ${drawn} drawn, ${wide ? "too wide" : "fits"}`;
});
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (apt-get install chromium)")
@pytest.mark.parametrize("width", [1200, 500])  # as narrow as a headless window gets
def test_every_figure_is_drawn_nothing_is_too_wide_and_the_console_is_silent(width: int, tmp_path: Path):
    runs, _ = load_runs(find_folders([write_sweep(tmp_path / "sweep")])[0])
    path = write_page(compare(runs, CompareConfig(resamples=100), np.random.default_rng(0)), tmp_path)
    path.write_text(path.read_text(encoding="utf-8").replace("</body>", f"{PROBE}</body>"), encoding="utf-8")
    size, profile = f"--window-size={width},900", f"--user-data-dir={tmp_path / 'profile'}"
    command = [str(CHROMIUM), *OPTIONS, size, profile, "--virtual-time-budget=5000", "--dump-dom", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    (title,) = re.findall(r"<title>(.*?)</title>", done.stdout)
    assert title == "8 figures, 8 drawn, fits"
    assert "CONSOLE" not in done.stderr
