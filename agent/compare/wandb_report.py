"""A comparison as a W&B report: saved where one is logged in, else its spec as a file.

What was computed from run folders stands in it as tables, and as the figures of the page, which a W&B run of the comparison's own
holds as media. The curves beside them W&B draws itself, from the runs compared and no others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from html import escape
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from agent.compare.comparison import Arm, Comparison, Estimate
from agent.compare.figures import (
    band_figure,
    imagined_figures,
    mean_probability,
    pairs_figure,
    probability_figures,
    reached_figure,
    success_figures,
)
from agent.compare.page import costs_of, findings_of, foretold_of
from agent.compare.runs import Run, matters
from agent.loggers import LoggerConfig, WandbSink, wandb_id
from agent.report.figures import Figure, thousands
from agent.run_folder import write_text

SPEC = "wandb_report.json"
TITLE = "Curricula compared"
MOST_TASKS = 12  # of which panels are drawn, and rows of tables written
MOST_POINTS = 8  # of a curve in a table
TENTHS = (0, 2, 4, 6, 9)  # of a run, at which a table tells how likely each task was
FIGURES = {
    "area": "area under tasks mastered",
    "mastered": "tasks mastered at the end",
    "success": "success",
    "hardest": "success on the hardest",
    "worst": "worst tenth",
    "forgotten": "forgotten",
}


@dataclass(frozen=True)
class Section:
    """A part of the report: computed figures and a table, and metrics that W&B draws from the runs.

    Attributes:
        key: of its figures in W&B, `KEY/0` and so on.
        table: in Markdown, or sentences.
    """

    title: str
    key: str
    table: str
    figures: Sequence[Figure] = ()
    metrics: Sequence[str] = ()


def write_wandb_report(comparison: Comparison, config: LoggerConfig, folder: Path) -> str:
    """Save the report with `logger.wandb=online`, and write its spec to `wandb_report.json` else; answers a sentence on what came
    of it. Its figures are logged to a W&B run in `folder`, offline for a later `wandb sync`.
    """
    mode = config.wandb_mode()
    if mode == "off":
        return "W&B report: none, as logger.wandb=off"
    try:
        reports: Any = import_module("wandb_workspaces.reports.v2")
    except ImportError:
        return "W&B report: none, as it needs a package: pip install -e '.[reports]'"
    sections, pictures, failure = sections_of(comparison), None, ""
    try:
        online = mode == "online"
        entity = (config.entity or import_module("wandb").Api().default_entity) if online else config.entity or "entity"
        pictures = log_figures(sections, config, mode, folder)
        report = build_report(reports, comparison, config.project, entity, sections, pictures)
        if online:
            report.save()
            return f"W&B report: {report.url}"
    except Exception as error:  # a network, a login: what is computed here is not lost by it
        failure = f", as W&B failed ({' '.join(str(error).split())[:200]})"
        report = build_report(reports, comparison, config.project, config.entity or "entity", sections, pictures)
    spec = report._to_model()
    write_text(folder / SPEC, spec.model_dump_json(by_alias=True, exclude_none=True, indent=1) + "\n")
    how = "" if failure else "; logger=online saves it in W&B, once the runs are there (`wandb sync`)"
    return f"W&B report: its spec is {folder / SPEC}{failure}{how}"


def log_figures(sections: Sequence[Section], config: LoggerConfig, mode: str, folder: Path) -> str:
    """Log the figures of all sections to a W&B run of their own, kept in `folder`; answers its id."""
    own = replace(config, group=None, tags=[*config.tags, "comparison"])
    sink = WandbSink(own, mode, folder, {"comparison": TITLE})
    try:
        for section in sections:
            for i, figure in enumerate(section.figures):
                sink.html(f"{section.key}/{i}", _page(figure))
    finally:
        sink.close()
    return sink.id


def build_report(
    reports: Any, comparison: Comparison, project: str, entity: str, sections: Sequence[Section], pictures: str | None
) -> Any:
    """The report; asks no server. `pictures`: the id of the W&B run that holds the figures, None where there is none."""
    ids = [found for run in comparison.runs if (found := wandb_id(run.folder)) is not None]
    runs, count = _runset(reports, "runs", ids, grouping(comparison.runs)), len(comparison.runs)
    blocks = [reports.P(f"{count} runs of {len(comparison.arms)} curricula. Figures and tables were computed from run folders.")]
    known = f"Curves drawn by W&B are those of the {len(ids)} of {count} runs that were logged to it, in the project {project}."
    blocks += [reports.P(known if ids else "None of these runs was logged to W&B, so it draws no curves of them.")]
    blocks += [reports.UnorderedList(items=list(comparison.notes))] if comparison.notes else []
    blocks += [reports.UnorderedList(items=findings_of(comparison))] if comparison.verdicts else []
    for section in sections:
        blocks += [reports.H2(section.title)]
        if section.figures and pictures:
            panels = [
                reports.MediaBrowser(
                    title=figure.title, media_keys=[f"{section.key}/{i}"], num_columns=1, layout=_place(reports, i, 2, 10)
                )
                for i, figure in enumerate(section.figures)
            ]  # fmt: skip
            blocks += [reports.PanelGrid(runsets=[_runset(reports, "comparison", [pictures])], panels=panels)]
        blocks += [reports.MarkdownBlock(text=section.table)] if section.table else []
        if section.metrics and ids:
            panels = [
                reports.LinePlot(
                    title=key, x="env_steps", y=[key], groupby_aggfunc="mean", groupby_rangefunc="minmax",
                    max_runs_to_show=len(comparison.arms), layout=_place(reports, i, 3, 6),
                )
                for i, key in enumerate(section.metrics)
            ]  # fmt: skip
            blocks += [reports.PanelGrid(runsets=[runs], panels=panels)]
    if ids:
        tables = ("tables/evaluation", "tables/training")
        panels = [
            reports.WeavePanelSummaryTable(table_name=name, layout=_place(reports, i, 2, 10)) for i, name in enumerate(tables)
        ]
        blocks += [reports.H2("Every run"), reports.PanelGrid(runsets=[runs], panels=panels)]
    return reports.Report(project=project, entity=entity, title=TITLE, blocks=blocks, width="fluid")


def grouping(runs: Sequence[Run]) -> list[str]:
    """Keys of the runs' configs that keep curricula apart as their labels do: the name, and what varies under one name.

    For runs of `sequential (revisit=0)` and `sequential (revisit=0.2)` the second key is `curriculum.revisit`.
    """
    first: dict[str, Run] = {}
    apart: dict[str, None] = {}
    for run in runs:
        other = first.setdefault(f"{run.learner} {run.settings.get('curriculum.name')}", run)
        keys = [key for key in {**other.settings, **run.settings} if matters(key, run)]
        apart |= dict.fromkeys(key for key in keys if str(other.settings.get(key)) != str(run.settings.get(key)))
    return [*(["learner"] if any(run.learner for run in runs) else []), "curriculum.name", *apart]


def sections_of(comparison: Comparison) -> list[Section]:
    """What the page holds, part by part."""
    tasks, trained = comparison.tasks[-MOST_TASKS:], comparison.trained[-MOST_TASKS:]
    curves = [
        band_figure(comparison, "mastered", "Tasks mastered", "share of test tasks", "IQM over runs; band: bootstrap interval."),
        band_figure(comparison, "success", "Success", "success", "IQM over runs and test tasks; band: bootstrap interval."),
        reached_figure(comparison),
    ]
    pairs = pairs_figure(comparison)
    success = [f"eval/success/{task}" for task in tasks]
    chances = [f"train/{figure}/{task}" for figure in ("probability", "success") for task in trained]
    return [
        Section("Results", "results", _results(comparison)),
        Section("Tasks mastered", "curves", _bands(comparison), curves),
        Section("Probability of improvement", "pairs", _pairs(comparison), [pairs] if pairs else []),
        Section("What was played when", "played", _played(comparison), probability_figures(comparison), chances),
        Section("What was learned when", "learned", _learned(comparison), success_figures(comparison), success),
        *_foretold(comparison),
        Section("What it cost", "cost", _cost(comparison)),
    ]


def _results(comparison: Comparison) -> str:
    head = ["curriculum", "runs", *FIGURES.values(), "median env steps to the threshold", "runs that reached it"]
    rows = [
        [
            arm.name, len(arm.runs), *(_estimate(comparison.figures[arm.name][name]) for name in FIGURES),
            f"{arm.median_reached:,.0f}" if arm.median_reached is not None else f"> {min(arm.ended):,.0f}",
            sum(steps is not None for steps in arm.reached),
        ]
        for arm in comparison.arms
    ]  # fmt: skip
    return _table(head, rows)


def _bands(comparison: Comparison) -> str:
    """The share of tasks mastered, with its band, at some of the evaluations."""
    chosen = _spread(comparison.arms[0])
    rows = []
    for arm in comparison.arms:
        curve = zip(*comparison.bands[arm.name]["mastered"], strict=True)
        points = [_estimate(Estimate(*map(float, point))) for point in curve]
        rows.append([arm.name, *(points[i] for i in chosen)])
    return _table(["curriculum", *(f"at {thousands(comparison.arms[0].steps[i])}" for i in chosen)], rows)


def _pairs(comparison: Comparison) -> str:
    rows = [[p.left, p.right, _estimate(p.improvement), f"{p.p:.3f}"] for p in comparison.pairs]
    return _table(["curriculum", "over", "probability of improvement", "p, not corrected"], rows) if rows else ""


def _played(comparison: Comparison) -> str:
    """How likely each task was to be played next, in some tenths of the runs."""
    means = {arm.name: mean for arm in comparison.arms if (mean := mean_probability(arm, 10)) is not None}
    rows = [
        [name, task, *(f"{mean[i, column]:.2f}" for i in TENTHS)]
        for name, mean in means.items()
        for column, task in list(enumerate(comparison.trained))[-MOST_TASKS:]
    ]
    return _table(["curriculum", "probability of", *(f"at {10 * i + 5} % of the steps" for i in TENTHS)], rows) if rows else ""


def _learned(comparison: Comparison) -> str:
    """Success on each task, mean over runs, at some of the evaluations."""
    chosen = _spread(comparison.arms[0])
    rows = [
        [arm.name, task, *(f"{arm.success[:, i, column].mean():.2f}" for i in chosen)]
        for arm in comparison.arms
        for column, task in list(enumerate(comparison.tasks))[-MOST_TASKS:]
    ]
    return _table(["curriculum", "success on", *(f"at {thousands(comparison.arms[0].steps[i])}" for i in chosen)], rows)


def _foretold(comparison: Comparison) -> list[Section]:
    """The page's sentences and figures."""
    said = foretold_of(comparison)
    found = Section("Did imagination foretell it?", "foretold", "\n\n".join(map(_plain, said)), imagined_figures(comparison))
    return [found] if said else []


def _cost(comparison: Comparison) -> str:
    """The page's table."""
    costs = costs_of(comparison)
    columns = {"name": "curriculum, mean of a run", "env_steps": "env steps"}
    columns |= {"judged": "of which judged, not learned from"} if costs["judged"] else {}
    columns |= {"updates": "updates", "wall": "training time"}
    columns |= {"own": "of which the curriculum's own"} if costs["own"] else {}
    columns["evaluation"] = "evaluations on the way"
    tasks = [f"episodes of {task}" for task in comparison.trained[-MOST_TASKS:]]
    rows = [[*(row[key] for key in columns), *row["episodes"][-MOST_TASKS:]] for row in costs["rows"]]
    return _table([*columns.values(), *tasks], rows)


def _runset(reports: Any, name: str, ids: Sequence[str], groups: Sequence[str] = ()) -> Any:
    """Runs of the report's project by their ids: naming the project would ask the server for it."""
    return reports.Runset(name=name, filters=f"Metric('ID') in {list(ids)}", groupby=[f"config.{key}" for key in groups])


def _place(reports: Any, i: int, columns: int, height: int) -> Any:
    """Where panel `i` stands on a grid that is 24 wide."""
    width = 24 // columns
    return reports.Layout(x=width * (i % columns), y=height * (i // columns), w=width, h=height)


def _page(figure: Figure) -> str:
    """A figure as a page of its own: it is an SVG, which W&B takes for no image."""
    picture = f'<img src="{figure.uri}" alt="{escape(figure.alt)}" style="max-width: 100%">'
    caption = f"<figcaption>{escape(figure.caption)}</figcaption>" if figure.caption else ""
    style = "margin: 0; font: 14px sans-serif; background: white"
    return f'<!doctype html><meta charset="utf-8"><body style="{style}"><figure>{picture}{caption}</figure></body>'


def _spread(arm: Arm) -> list[int]:
    """Evaluations that a table has room for, the first and the last among them."""
    last = len(arm.steps) - 1
    return sorted({round(i) for i in np.linspace(0, last, MOST_POINTS)})


def _estimate(estimate: Estimate) -> str:
    return f"{estimate.value:.2f} ({estimate.low:.2f} to {estimate.high:.2f})"


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [[_plain(str(cell)) for cell in line] for line in (head, *rows)]
    lines.insert(1, ["---"] * len(head))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(name: str) -> str:
    """A name that Markdown takes as it is."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>#|!" else c for c in name)
