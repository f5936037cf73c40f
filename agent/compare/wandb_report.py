"""A comparison as a W&B report: saved where one is logged in, else its spec as a file."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from agent.compare.comparison import Comparison
from agent.compare.page import findings_of
from agent.loggers import LoggerConfig
from agent.run_folder import write_text

SPEC = "wandb_report.json"
TITLE = "Curricula compared"
MOST_TASKS = 12  # of which panels are drawn
GROUP = "curriculum.name"  # of the runs' configs


def write_wandb_report(comparison: Comparison, config: LoggerConfig, folder: Path) -> str:
    """Save the report with `logger.wandb=online`, and write its spec to `wandb_report.json` else; answers a sentence on what came
    of it. Runs are grouped by curriculum over env steps; the figures computed here stand there as a table.
    """
    mode = config.wandb_mode()
    if mode == "off":
        return "W&B report: none, as logger.wandb=off"
    try:
        reports: Any = import_module("wandb_workspaces.reports.v2")
    except ImportError:
        return "W&B report: none, as it needs a package: pip install 'strata-rl[reports]'"
    failure = ""
    if mode == "online":
        try:
            entity = config.entity or import_module("wandb").Api().default_entity
            report = build_report(reports, comparison, config.project, entity)
            report.save()
            return f"W&B report: {report.url}"
        except Exception as error:  # a network, a login: what is computed here is not lost by it
            failure = f", as it could not be saved ({' '.join(str(error).split())[:200]})"
    spec = build_report(reports, comparison, config.project, config.entity or "entity")._to_model()
    write_text(folder / SPEC, spec.model_dump_json(by_alias=True, exclude_none=True, indent=1) + "\n")
    how = "" if failure else "; logger=online saves it in W&B, once the runs are there (`wandb sync`)"
    return f"W&B report: its spec is {folder / SPEC}{failure}{how}"


def build_report(reports: Any, comparison: Comparison, project: str, entity: str) -> Any:
    """The report; asks no server."""
    runs = reports.Runset(name="runs", groupby=[f"config.{GROUP}"])  # of this project, as no other is named
    curves = {
        "Success": [f"eval/success/{task}" for task in comparison.tasks[-MOST_TASKS:]],
        "Probability of being played": [f"train/probability/{task}" for task in comparison.trained[-MOST_TASKS:]],
        "Training success": [f"train/success/{task}" for task in comparison.trained[-MOST_TASKS:]],
    }
    blocks = [
        reports.P(f"{len(comparison.runs)} runs of {len(comparison.arms)} curricula. The table was computed from run folders.")
    ]
    blocks += [reports.UnorderedList(items=findings_of(comparison))] if comparison.verdicts else []
    blocks += [reports.MarkdownBlock(text=_table(comparison))]
    for title, keys in curves.items():
        panels = [
            reports.LinePlot(
                title=key, x="env_steps", y=[key], groupby=GROUP, groupby_aggfunc="mean", groupby_rangefunc="minmax",
                layout=reports.Layout(x=8 * (i % 3), y=6 * (i // 3), w=8, h=6),
            )
            for i, key in enumerate(keys)
        ]  # fmt: skip
        blocks += [reports.H2(title), reports.PanelGrid(runsets=[runs], panels=panels)]
    return reports.Report(project=project, entity=entity, title=TITLE, blocks=blocks, width="fluid")


def _table(comparison: Comparison) -> str:
    """The primary figures, in Markdown."""
    lines = [
        "| curriculum | runs | area under tasks mastered | tasks mastered at the end | worst tenth |",
        "|---|---|---|---|---|",
    ]
    for arm in comparison.arms:
        figures = comparison.figures[arm.name]
        cells = [f"{f.value:.2f} ({f.low:.2f} to {f.high:.2f})" for f in (figures[k] for k in ("area", "mastered", "worst"))]
        lines.append(f"| {_plain(arm.name)} | {len(arm.runs)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _plain(name: str) -> str:
    """A name that Markdown takes as it is."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]()<>#|!" else c for c in name)
