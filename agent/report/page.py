"""Puts a run's figures, tables and pictures on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from agent.files import publish, sync
from agent.report.data import RunData, load_run
from agent.report.figures import (
    Figure,
    curriculum_figure,
    duration,
    lines_figure,
    pair_figure,
    reliability_figures,
    small_figures,
    success_figure,
    time_figure,
    validation_figure,
)
from agent.report.goals import goal_notes, goal_rows
from agent.report.imagined import imagined_figure, tallied_halves
from envs.errors import UserError

DASH = "–"


class Losses(NamedTuple):
    """Small figures under one heading."""

    title: str
    figures: list[Figure]
    more: int


def write_report(run_folder: Path) -> Path:
    """Write `<run_folder>/report.html` from what the folder holds and answer its path.

    The page needs no other file and no network. It is replaced in one piece; what the run did not leave is said on the page.

    Raises:
        UserError: there is no such folder.
    """
    run_folder = Path(run_folder)
    if not run_folder.is_dir():
        raise UserError(f"There is no run folder {run_folder} to report on: give the hydra.run.dir of a run.")
    html = render(load_run(run_folder))
    path = run_folder / "report.html"
    temporary = path.with_suffix(".tmp")
    temporary.write_text(html, encoding="utf-8")
    sync(temporary)
    publish(temporary, path)
    return path


def render(run: RunData) -> str:
    """The page as HTML."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return templates.get_template("report.html.j2").render(
        run=run,
        subtitle=_subtitle(run),
        tiles=_tiles(run),
        rows=_rows(run),
        goals=goal_rows(run),
        goal_notes=goal_notes(run),
        success=success_figure(run),
        returns=lines_figure(
            run, "train/return/", "Return", "return", "Mean undiscounted return of a task's last 100 training episodes."
        ),
        lengths=lines_figure(
            run, "train/length/", "Episode length", "env steps", "Mean length of a task's last 100 training episodes."
        ),
        pair=pair_figure(run),
        validation=validation_figure(run),
        curriculum=curriculum_figure(run) if len(run.tasks) > 1 else None,
        time=time_figure(run),
        reliability=[*reliability_figures(run), *_imagined(run)],
        novelty=_novelty(run),
        losses=_losses(run),
        pictures=run.pictures,
    )


def _imagined(run: RunData) -> list[Figure]:
    """How reliably imagination foretold success, where a curriculum goes by it."""
    halves = tallied_halves(run.metrics, run.env_steps)
    figure = None if halves is None else imagined_figure(halves, "Imagined success")
    return [figure] if figure is not None else []


def _novelty(run: RunData) -> list[str]:
    """How much of what a task shows is unlike what was trained on."""
    found = {task: row.get("unlike") for task, row in run.table("novelty").items() if isinstance(row, dict)}
    return [f"{task}: {100 * share:.1f} %" for task, share in found.items() if isinstance(share, int | float)]


def _subtitle(run: RunData) -> str:
    """What was run, as far as the config tells."""
    parts = []
    for key in ("env", "model", "hierarchy", "curriculum", "sharding"):
        group = run.config.get(key)
        if isinstance(group, dict):
            name = group.get("name") or group.get("id") or group.get("suite")
            parts += [f"{key} {name}"] if name else []
    parts += [f"seed {run.config['seed']}"] if "seed" in run.config else []
    return " · ".join(parts)


def _tiles(run: RunData) -> list[tuple[str, str]]:
    """The figures at the top of the page: `(what, how much)`."""
    tiles = [] if run.pretrained else [("env steps", f"{run.env_steps:,}")]
    seconds = run.summary.get("wall_seconds")
    if "updates" in run.summary:
        tiles.append(("updates", f"{run.summary['updates']:,}"))
    if seconds:
        tiles.append(("wall time", duration(seconds)))
        if not run.pretrained:
            tiles.append(("env steps/s overall", f"{run.env_steps / seconds:,.0f}"))
    data, lowest = run.table("data"), run.table("lowest_validation")
    if data:
        tiles.append(("stored episodes, held out", f"{data['episodes']:,}, {data['held_out']:,}"))
    if lowest:
        tiles.append(("lowest loss on held-out episodes", f"{lowest['loss']:.3g} after {lowest['updates']:,} updates"))
    if run.tasks:
        hardest = run.tasks[-1]
        reached = run.table("steps_to_threshold").get(hardest)
        tiles.append((f"steps to {run.threshold:g} on {hardest}", f"{reached:,}" if reached is not None else "not reached"))
        evaluated = run.table("tasks").get(hardest, {}).get("success")
        tiles.append((f"evaluation success on {hardest}", f"{evaluated:.2f}" if evaluated is not None else "not evaluated"))
    return tiles


def _rows(run: RunData) -> list[dict[str, str]]:
    """The results table: one row a task."""
    training, episodes = run.group("train/success/"), run.group("train/episodes/")
    rows = []
    for task in run.tasks:
        evaluated: dict[str, Any] = run.table("tasks").get(task, {})
        rows.append(
            {
                "task": task,
                "success": _number(evaluated.get("success")),
                "greedy": _number(evaluated.get("success_greedy")),
                "return": _number(evaluated.get("return"), 3),
                "episodes": _number(evaluated.get("episodes"), 0),
                "training": _number(training[task].last) if task in training else DASH,
                "training_episodes": _number(episodes[task].last, 0) if task in episodes else DASH,
                "steps": _number(run.table("steps_to_threshold").get(task), 0),
                "seconds": _seconds(run.table("seconds_to_threshold").get(task)),
            }
        )
    return rows


def _losses(run: RunData) -> list[Losses]:
    titles = {
        "model/": "World model",
        "validation/": "World model on held-out episodes",
        "policy/": "Policy",
        "manager/": "Manager",
        "worker/": "Worker",
        "explorer/": "Explorer",
        "goal/": "Goals",
        "given/": "Goals that came in replay",
        "gradients/": "Gradient norms",
        "codes/": "Use of learned codes",
    }
    groups = [Losses(title, *small_figures(run, prefix)) for prefix, title in titles.items()]
    return [group for group in groups if group.figures]


def _number(value: float | None, digits: int = 2) -> str:
    return DASH if value is None else f"{value:,.{digits}f}"


def _seconds(value: float | None) -> str:
    return DASH if value is None else duration(value)


__all__ = ["render", "write_report"]
