"""The report of `benchmarks.curricula`: of each part the page and tables of `job=compare`, and one README with what they say."""

from __future__ import annotations

import base64
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from agent.compare.comparison import LEVEL, Arm, Comparison, Estimate, compare
from agent.compare.figures import band_figure, imagined_figures, pairs_figure, success_figures
from agent.compare.page import PAGE, findings_of, foretold_of, write_page
from agent.compare.tables import write_tables
from agent.config import CompareConfig
from agent.report.figures import Figure
from agent.report.imagined import Tally
from benchmarks.browser import chromium, look, screenshot
from benchmarks.curricula_records import compared_run
from benchmarks.peer_config import PeerConfig
from benchmarks.provenance import ROOT
from benchmarks.store import Record
from envs.errors import UserError

REPORT = ROOT / "docs" / "results" / "curricula"
QUICK_REPORT = ROOT / "runs" / "benchmarks" / "curricula" / "quick_report"  # what a quick run shows says nothing
SCREENSHOT = "page.png"

TITLES = {
    "doorkey": "DoorKey 5x5 to 8x8, the default agent",
    "director": "DoorKey 5x5 to 8x8, with a manager (`hierarchy=director`, with the settings in `benchmarks/curricula.py`)",
    "box": "A box of tasks: rooms by density of obstacles and size",
}
NOTES = {
    "director": "This director is an earlier one than today's: its code and settings are those of the first of these runs. "
    "To reachability what its explorer did without goals counted as success, too; it no longer does.",
}
TOP = """# Curricula compared

Written by `python -m benchmarks.curricula` from the records in `benchmarks/results/curricula.json`; every sentence and figure
here is computed. How runs are made and what the figures mean: [comparing.md](../../comparing.md).

Two curricula count as told apart where a permutation test of their areas, corrected for the number of curricula compared with
`uniform` (Holm), has p < {level:g} and the interval of the probability of improvement leaves out 0.5. "Cannot be told apart" does
not mean "equally good".
"""

# Frames that the page is shown in, in CSS pixels, as Chromium has no window narrower than 500. In print nothing can be scrolled.
WIDTHS = {"a phone of 375 px": (375, "screen"), "a printed A4 page": (718, "print")}
MEASURE = """<script>
addEventListener("load", () => {
  for (const frame of document.querySelectorAll("iframe")) {
    const page = frame.contentDocument.documentElement;
    const scrolled = frame.name === "print" ? [...page.querySelectorAll(".scroll, .strip")] : [];
    const wide = [page, ...scrolled].filter(part => part.scrollWidth > part.clientWidth);
    for (const part of wide) console.error(`${part.scrollWidth} px are too wide for ${frame.title}`);
  }
});
</script>"""


def write_reports(records: Sequence[Record], parts: Sequence[str], folder: Path) -> dict[str, Any]:
    """Write the page, tables and figures of every part that has records into `folder/PART`, and `folder/README.md`.

    Returns:
        `{part: its figures}`: the final JSON object's.

    Raises:
        UserError: a page, though written, is not as it should be in the browser.
    """
    sections: list[str] = []
    found: dict[str, Any] = {}
    for part in parts:
        own = [record for record in records if record["figures"]["part"] == part]
        if not own:
            continue
        comparison = compare([compared_run(record) for record in own], CompareConfig(), np.random.default_rng(0))
        comparison.notes.extend([*about_code(own), *([NOTES[part]] if part in NOTES else [])])
        here = folder / part
        shutil.rmtree(here, ignore_errors=True)  # figures of curricula that are no more
        here.mkdir(parents=True)
        page = write_page(comparison, here)
        write_tables(comparison, here)
        pictures = _pictures(comparison, here)
        seen = _look(page, None if found else here / SCREENSHOT)  # one picture is enough, the pages are alike
        sections.append(_section(part, comparison, reach_of(own), pictures, (here / SCREENSHOT).exists()))
        found[part] = _figures(comparison) | {"browser": seen}
    if sections:
        text = "\n".join([TOP.format(level=LEVEL), *sections])
        (folder / "README.md").write_text(text, encoding="utf-8")
    unsound = {part: seen for part, seen in ((part, row["browser"]) for part, row in found.items()) if seen and not seen["sound"]}
    if unsound:
        said = "; ".join(f"{part}: {seen}" for part, seen in unsound.items())
        raise UserError(f"The report is written, but {PAGE} is not sound in the browser. {said}")
    return found


def about_code(records: Sequence[Record]) -> list[str]:
    """Sentences on the code that the runs are of, and on what ran beside them."""
    commits = sorted({str(record["commit"])[:7] for record in records})
    dirty, beside = sum(bool(record["dirty"]) for record in records), sum(record["jobs"] > 1 for record in records)
    versions = "one version" if len(commits) == 1 else f"{len(commits)} versions"
    said = [f"The runs are of {versions} of the code: {', '.join(commits)}."]
    said += [f"{dirty} runs had changes that were not committed."] if dirty else []
    slow = f"{beside} of {len(records)} runs ran beside others (`--jobs`): training times tell little of what a curriculum costs."
    return said + ([slow] if beside else [])


def reach_of(records: Sequence[Record]) -> str:
    """What `reachability` went by in the end, where there are runs of it."""
    found: dict[str, list[float]] = {}
    for record in records:
        for key, values in record["figures"]["logged"].items():
            if key.startswith("reach/"):
                found.setdefault(key.partition("/")[2], []).append(values[-1])
    if not found:
        return ""
    each = ", ".join(f"{np.mean(values):.2f} on {task}" for task, values in found.items())
    runs = max(map(len, found.values()))
    return f"Share of the manager's goals that the worker reached in imagination in the end, mean of {runs} runs: {each}."


def conclusions(comparison: Comparison) -> list[str]:
    """What the numbers carry, sentence by sentence."""
    said: list[str] = []
    if comparison.verdicts:
        said += _count(comparison)
    said += findings_of(comparison) + foretold_of(comparison)
    for arm in comparison.arms:
        if arm.learner:
            said.append(f"{arm.name}, another learner, for scale: area {_text(comparison.figures[arm.name]['area'])}.")
    return said


def _count(comparison: Comparison) -> list[str]:
    """How many can be told apart from the baseline."""
    apart, of = [verdict for verdict in comparison.verdicts if verdict.apart], len(comparison.verdicts)
    counts = sorted({len(arm.runs) for arm in comparison.arms if not arm.learner})
    each = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    runs = f"{each} run{'' if each == '1' else 's'} each"
    better = [f"{v.pair.left} (better)" for v in apart if v.pair.improvement.value > 0.5]
    worse = [f"{v.pair.left} (worse)" for v in apart if v.pair.improvement.value < 0.5]
    if apart:
        return [f"With {runs}, {len(apart)} of {of} can be told apart from {comparison.baseline}: {', '.join(better + worse)}."]
    return [f"With {runs}, none of {of} can be told apart from {comparison.baseline}."]


def show(result: Mapping[str, Any]) -> Group:
    shown: list[Table | Text] = []
    for part, figures in result["parts"].items():
        table = Table(title=f"{part}, best first", title_justify="left")
        for column in ("curriculum", "runs", "area", "mastered", "success", "hardest", "steps", "minutes"):
            table.add_column(column, justify="left" if column == "curriculum" else "right")
        for name, row in figures["curricula"].items():
            area = row["area"]
            cells = [f"{area['value']:.2f}\n{area['low']:.2f} to {area['high']:.2f}"]
            cells += [f"{row[key]['value']:.2f}" for key in ("mastered", "success", "hardest")]
            steps = "never" if row["steps_to_threshold"] is None else f"{row['steps_to_threshold']:,.0f}"
            table.add_row(name, str(row["runs"]), *cells, steps, f"{row['minutes']:.1f}")
        shown += [table, *(Text(sentence) for sentence in figures["conclusions"])]
    return Group(*shown, *(Text(f"{name} failed: {why}") for name, why in result["failed"].items()))


def _figures(comparison: Comparison) -> dict[str, Any]:
    rows = {}
    for arm in comparison.arms:
        seconds = [run.wall_seconds + run.evaluation_seconds for run in arm.runs]
        rows[arm.name] = {
            "runs": len(arm.runs),
            **{name: vars(estimate) for name, estimate in comparison.figures[arm.name].items()},
            "steps_to_threshold": arm.median_reached,
            "reached": sum(steps is not None for steps in arm.reached),
            "minutes": round(sum(seconds) / len(seconds) / 60, 2),
            "brier": [_score(half, arm) for half in range(2)] if arm.halves else None,
        }
    verdicts = {v.pair.left: {**vars(v.pair.improvement), "p": v.p, "apart": v.apart} for v in comparison.verdicts}
    return {
        "tasks": list(comparison.tasks),
        "curricula": rows,
        "baseline": comparison.baseline,
        "against_baseline": verdicts,
        "conclusions": conclusions(comparison),
        "notes": comparison.notes,
    }


def _section(part: str, comparison: Comparison, reached: str, pictures: Mapping[str, Figure], drawn: bool) -> str:
    runs, untrained = comparison.runs, [task for task in comparison.tasks if task not in comparison.trained]
    also = f" {', '.join(untrained)} {'is' if len(untrained) == 1 else 'are'} never trained on." if untrained else ""
    lines = [
        f"## {TITLES[part]}",
        "",
        f"{len(runs)} runs of {max(run.env_steps for run in runs):,} env steps, {len(comparison.tasks)} test tasks.{also}",
        f"The whole comparison: [{PAGE}]({part}/{PAGE}) (one file, to download and open), `{part}/*.csv`.",
        "",
        *(f"- {sentence}" for sentence in conclusions(comparison)),
        "",
        f"| curriculum | runs | area | tasks mastered | success | on {comparison.tasks[-1]} | worst tenth | forgotten |"
        f" steps to threshold on {comparison.trained[-1]} | reached |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for arm in comparison.arms:
        figures = comparison.figures[arm.name]
        cells = [_text(figures[key]) for key in ("area", "mastered", "success", "hardest", "worst", "forgotten")]
        steps = f"> {min(arm.ended):,.0f}" if arm.median_reached is None else f"{arm.median_reached:,.0f}"
        there = f"{sum(at is not None for at in arm.reached)} of {len(arm.runs)}"
        lines.append(f"| {arm.name} | {len(arm.runs)} | {' | '.join(cells)} | {steps} | {there} |")
    lines += ["", *(f"{sentence}\n" for sentence in (*map(_moves_on, comparison.arms), reached) if sentence)]
    for name, figure in pictures.items():
        lines += [f"![{figure.alt}]({part}/{name})", "", f"*{figure.title}. {figure.caption}*", ""]
    if drawn:
        lines += [f"![The top of the page]({part}/{SCREENSHOT})", ""]
    if comparison.notes:
        lines += [*(f"> {note}" for note in comparison.notes), ""]
    return "\n".join(lines)


def _moves_on(arm: Arm) -> str:
    """Of another learner that does not keep the window of its own that it was tuned with, what that does."""
    window, own = arm.runs[0].settings.get("advance_window"), PeerConfig().advance_window
    if not arm.learner or window in (None, own):
        return ""
    return (
        f"{arm.name} moves on by its last {window} episodes, as our agent does under `sequential`. It was tuned with {own}, with "
        "which it took fewer env steps to the last task, in the median ([results.md](../../results.md)): its row may be too low."
    )


def _pictures(comparison: Comparison, folder: Path) -> dict[str, Figure]:
    """The figures that the README shows, written as SVG."""
    threshold = comparison.settings.threshold
    mastered = band_figure(
        comparison, "mastered", "Tasks mastered", "share of test tasks",
        f"Share of test tasks with success of {threshold:g} or more: IQM over runs, in its bootstrap interval.",
    )  # fmt: skip
    figures: dict[str, Figure | None] = {"mastered.svg": mastered, "pairs.svg": pairs_figure(comparison)}
    figures |= {f"imagined{i or ''}.svg": figure for i, figure in enumerate(imagined_figures(comparison))}
    best = success_figures(comparison)[0]
    title = f"{best.title}, the largest area"
    figures["success.svg"] = Figure(best.uri, best.alt, "Success on held-out layouts, mean over runs.", title)
    found = {name: figure for name, figure in figures.items() if figure is not None}
    for name, figure in found.items():
        (folder / name).write_bytes(base64.b64decode(figure.uri.partition(",")[2]))
    return found


def _look(page: Path, picture: Path | None) -> dict[str, Any] | None:
    """What Chromium makes of the page, and its screenshot where one is wanted; None where there is no Chromium."""
    if chromium() is None:
        return None
    try:
        if picture is not None:
            screenshot(page, picture)
        seen, narrow = look(page), too_wide(page)
        return seen.as_data() | {"narrow": narrow, "sound": seen.sound and not narrow}
    except UserError as error:
        return {"error": str(error), "sound": False}


def too_wide(page: Path) -> list[str]:
    """Whatever Chromium says of a page on a phone and in print: above all that it is wider than these.

    Raises:
        UserError: there is no Chromium, or it does not answer.
    """
    text = page.read_text(encoding="utf-8")
    frames = ""
    for title, (width, medium) in WIDTHS.items():
        shown = escape(text.replace("@media print", "@media all") if medium == "print" else text)
        style = f"border: 0; width: {width}px; height: 900px"
        frames += f'<iframe name="{medium}" title="{title}" style="{style}" srcdoc="{shown}"></iframe>'
    with tempfile.TemporaryDirectory() as folder:
        framed = Path(folder) / page.name
        framed.write_text(f"<!doctype html><body>{frames}{MEASURE}</body>", encoding="utf-8")
        return list(look(framed).console)


def _score(half: int, arm: Arm) -> dict[str, float | None]:
    tally = Tally(np.sum(arm.halves, 0)[half])
    if not tally.episodes:
        return {"brier": None, "uninformed": None, "episodes": 0}
    return {"brier": tally.brier, "uninformed": tally.uninformed, "episodes": tally.episodes}


def _text(estimate: Estimate) -> str:
    return f"{estimate.value:.2f} ({estimate.low:.2f} to {estimate.high:.2f})"
