"""A page in headless Chromium (Debian's package `chromium`): what the browser makes of it, and a screenshot."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from envs.errors import UserError

OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--enable-logging=stderr",
    "--hide-scrollbars",
)
COLOURS = 128  # of a screenshot
# Our pages have no script. This one, added to a copy, says what the browser made of the page.
PROBE = """<script>
addEventListener("load", () => {
  const images = [...document.images];
  const drawn = images.filter(image => image.complete && image.naturalWidth > 100).length;
  const described = images.filter(image => image.alt.length > 20).length;
  const wide = document.documentElement.scrollWidth > innerWidth;
  document.title = `${images.length} ${drawn} ${described} ${wide ? 1 : 0}`;
});
</script>"""


@dataclass(frozen=True)
class Seen:
    """What a browser made of a page.

    Attributes:
        figures: images on it; `drawn` and `described`: those that it could draw, and that have a text in their place.
        too_wide: whether one has to scroll sideways.
        console: what it said there: errors, above all.
    """

    figures: int
    drawn: int
    described: int
    too_wide: bool
    console: tuple[str, ...]

    @property
    def sound(self) -> bool:
        return self.figures == self.drawn == self.described and not self.too_wide and not self.console

    def as_data(self) -> dict[str, Any]:
        return {**asdict(self), "console": list(self.console)}


def chromium() -> str | None:
    """The browser's command, where there is one."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


def look(page: Path, width: int = 1200) -> Seen:
    """Open a page of one file.

    Raises:
        UserError: there is no Chromium, or it does not answer.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "page.html"
        copy.write_text(page.read_text(encoding="utf-8").replace("</body>", f"{PROBE}</body>"), encoding="utf-8")
        done = _browse(Path(folder), copy, width, 900, "--virtual-time-budget=5000", "--dump-dom")
    titles = re.findall(r"<title>(\d+) (\d+) (\d+) ([01])</title>", done.stdout)
    if len(titles) != 1:
        raise UserError(f"Chromium could not show {page.name}: {done.stderr.strip().splitlines()[-1:] or 'it said nothing'}.")
    figures, drawn, described, wide = map(int, titles[0])
    console = re.findall(r"CONSOLE\S*\s+(.*)", done.stderr)
    return Seen(figures, drawn, described, bool(wide), tuple(console))


def screenshot(page: Path, picture: Path, width: int = 1200, height: int = 1400) -> None:
    """Write the top of a page, of so many pixels, as a PNG of few colours: a third as large, and no difference to be seen.

    Raises:
        UserError: there is no Chromium, or it draws nothing.
    """
    from PIL import Image

    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole.png"
        _browse(Path(folder), page.resolve(), width, height, f"--screenshot={whole}")
        if not whole.exists():
            raise UserError(f"Chromium drew nothing of {page.name}.")
        with Image.open(whole) as image:
            image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(picture, optimize=True)


def _browse(folder: Path, page: Path, width: int, height: int, *options: str) -> subprocess.CompletedProcess[str]:
    command = chromium()
    if command is None:
        raise UserError("a page can be looked at only where there is Chromium: apt-get install chromium.")
    given = [f"--window-size={width},{height}", f"--user-data-dir={folder / 'profile'}", *options, page.as_uri()]
    try:
        return subprocess.run([command, *OPTIONS, *given], capture_output=True, text=True, timeout=240, check=True)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise UserError(f"Chromium could not show {page.name}: {str(error)[:200]}.") from error
