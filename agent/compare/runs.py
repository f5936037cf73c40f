"""Run folders, read for a comparison. They may come from anywhere: what is broken is named in one sentence and left out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from agent.compare.statistics import Floats
from agent.metrics_file import NAME as METRICS
from agent.metrics_file import read_metrics
from agent.report.imagined import tallied_halves
from agent.run_folder import CONFIG
from curriculum import CURRICULA

SUMMARY = "summary.json"
DEPTH = 3  # folders below one that is given in which runs are looked for
MOST_BYTES = {CONFIG: 2**20, SUMMARY: 2**24, METRICS: 2**29}
LONGEST_NAME = 120  # characters of a task or a curriculum
MOST_KEYS = 10_000  # of a config
LARGEST = 1e15  # of a number
PREFIX = "curriculum."
# What may differ in a fair comparison: the curriculum, and what changes nothing that is learned.
FREE = (PREFIX, "seed", "logger.", "job.", "device", "resume", "checkpoint", "dream.", "compare.", "train.threads")


@dataclass(frozen=True)
class Run:
    """One finished run.

    Attributes:
        curriculum: its scheduler's name, with the settings in which it differs from others of that name.
        trained: tasks that were trained on, easy to hard.
        tasks: tasks evaluated: these, then harder ones never trained on.
        steps: (points,) env steps of its evaluations, the last at the end of the run.
        success: (points, tasks) of these evaluations.
        probability: (lines, trained tasks) of being played next, at `probability_steps` (lines,); none where it was not logged.
        wall_seconds: of training, without `evaluation_seconds`, those of evaluations on the way.
        episodes: training episodes of every task.
        settings: its config's keys, dotted.
        halves: (2, bins, 4) how well imagined success foretold real success (`agent.report.imagined`); None where it was not.
        learner: of a run of another learner than ours, shown for scale, its name; `curriculum` begins with it.
        curriculum_seconds: of `wall_seconds`, those that the curriculum itself computed; None where they were not measured.
        judged_steps: env steps of episodes that were judged and not learned from; None where they were not counted.
    """

    folder: Path
    curriculum: str
    seed: int
    trained: tuple[str, ...]
    tasks: tuple[str, ...]
    steps: Floats
    success: Floats
    probability_steps: Floats
    probability: Floats
    env_steps: int
    updates: int
    wall_seconds: float
    evaluation_seconds: float
    episodes: Mapping[str, int]
    settings: Mapping[str, Any]
    halves: Floats | None = None
    learner: str = ""
    curriculum_seconds: float | None = None
    judged_steps: float | None = None

    def reached(self, threshold: float) -> float | None:
        """Env steps of the first evaluation with such success on the hardest task trained on."""
        there = np.flatnonzero(self.success[:, len(self.trained) - 1] >= threshold - 1e-9)
        return float(self.steps[there[0]]) if len(there) else None


class BrokenRunError(ValueError):
    """What is wrong with a run folder, as the end of a sentence that begins with its name."""


def find_folders(paths: Sequence[str | Path]) -> tuple[list[Path], list[str]]:
    """Run folders among `paths` and in the folders below them; and a sentence on every path without one."""
    found: list[Path] = []
    notes = []
    for path in map(Path, paths):
        below = list(_runs_below(path, DEPTH)) if path.is_dir() else []
        if not below:
            notes.append(f"{path} holds no run." if path.is_dir() else f"{path} is not there.")
        found += below
    return list({folder.resolve(): folder for folder in found}.values()), notes


def _runs_below(folder: Path, depth: int) -> Iterator[Path]:
    if any((folder / name).is_file() for name in MOST_BYTES):
        yield folder
    elif depth:
        for child in sorted(folder.iterdir()):
            if child.is_dir() and not child.is_symlink():
                yield from _runs_below(child, depth - 1)


def load_runs(folders: Sequence[Path]) -> tuple[list[Run], list[str]]:
    """The runs that can be compared with each other, and a sentence on each that cannot.

    Those evaluated on other tasks than most are left out, and a second run of the same curriculum and seed.
    """
    runs, notes = [], []
    for folder in folders:
        try:
            runs.append(load_run(folder))
        except BrokenRunError as error:
            notes.append(f"{folder} is left out: {error}.")
    if not runs:
        return [], notes
    runs = _labelled(runs)
    ((usual, _),) = Counter((run.trained, run.tasks) for run in runs).most_common(1)
    chosen: dict[tuple[str, int], Run] = {}
    for run in runs:
        if (run.trained, run.tasks) != usual:
            notes.append(f"{run.folder} is left out: it was trained or evaluated on other tasks ({', '.join(run.tasks)}).")
        elif (run.curriculum, run.seed) in chosen:
            other = chosen[run.curriculum, run.seed]
            apart = ", ".join([*differences([other, run])][:3])
            same = f"{other.folder} is of the same curriculum and seed, {run.curriculum} {run.seed}"
            notes.append(f"{run.folder} is left out: {same}{f', and of another {apart}' if apart else ''}.")
        else:
            chosen[run.curriculum, run.seed] = run
    return list(chosen.values()), notes


def load_run(folder: Path) -> Run:
    """One run.

    Raises:
        BrokenRunError: files that are missing, too large or hold something else; a run that is not finished.
    """
    for name, most in MOST_BYTES.items():
        path = folder / name
        if not path.is_file():
            unfinished = "; the run is not finished" if name == SUMMARY else ""
            raise BrokenRunError(f"it has no {name}{unfinished}")
        if path.stat().st_size > most:
            raise BrokenRunError(f"its {name} is larger than {most >> 20} MiB")
    try:
        config = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        rows = read_metrics(folder)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise BrokenRunError(f"it cannot be read ({' '.join(str(error).split())[:200]})") from error
    if not isinstance(config, dict) or not isinstance(summary, dict):
        raise BrokenRunError(f"its {CONFIG} and {SUMMARY} have to hold keys")
    settings = dotted(config)
    tasks = {_name(task): row for task, row in _table(summary, "tasks").items()}
    if not tasks:
        raise BrokenRunError("it was not evaluated: the run is not finished")
    trained = tuple(_name(task) for task in _table(summary, "training") or tasks)
    if not set(trained) <= set(tasks):
        raise BrokenRunError("tasks that it was trained on were not evaluated")
    episodes = {task: int(_number(row, "episodes")) for task, row in _table(summary, "training").items()}
    env_steps = int(_number(summary, "env_steps"))
    sane = [{key: value for key, value in row.items() if 0 <= value < LARGEST} for row in rows if 0 <= row["env_steps"] < LARGEST]
    final = [_share(row, "success") for row in tasks.values()]
    steps, success = _curve(rows, [f"eval/success/{task}" for task in tasks], env_steps, final)
    lines = next(filter(len, (_lines(rows, [f"{prefix}{task}" for task in trained]) for prefix in PROBABILITY)), [])
    learner = _name(settings["learner"]) if "learner" in settings else ""
    curriculum = _name(settings.get("curriculum.name"))
    return Run(
        folder,
        f"{learner} ({curriculum})" if learner else curriculum,
        int(_number(config, "seed")),
        trained,
        tuple(tasks),
        steps,
        success,
        np.array([line[0] for line in lines]),
        np.array([line[1:] for line in lines]).reshape(-1, len(trained)),
        env_steps,
        int(_number(summary, "updates")),
        _number(summary, "wall_seconds"),
        _number({"evaluation_seconds": 0.0} | summary, "evaluation_seconds"),
        episodes,
        settings,
        tallied_halves(sane, env_steps),
        learner,
        _newest(sane, CURRICULUM_SECONDS),
        _newest(sane, JUDGED_STEPS),
    )


PROBABILITY = ("train/probability/", "curriculum/p/")
CURRICULUM_SECONDS, JUDGED_STEPS = "time/curriculum", "curriculum/judged_steps"  # both only grow


def differences(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Settings beyond curriculum and seed in which the runs differ, and their values: where there are any, it is not fair.

    Other learners have settings of their own.
    """
    runs = [run for run in runs if not run.learner]
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    found = {}
    for key in keys:
        values = list(dict.fromkeys(str(run.settings.get(key)) for run in runs))
        if len(values) > 1 and not any(key == free or (free.endswith(".") and key.startswith(free)) for free in FREE):
            found[key] = values
    return found


def dotted(config: Mapping[Any, Any]) -> dict[str, Any]:
    """A config's keys, dotted, and their values."""
    return dict(_leaves(config))


def _labelled(runs: Sequence[Run]) -> list[Run]:
    """Names of schedulers, with the settings in which those of one name differ: `sequential (revisit=0.0)`."""
    labelled = []
    for run in runs:
        same = [_curriculum(other) for other in runs if other.curriculum == run.curriculum]
        own = _curriculum(run)
        apart = [key for key in own if any(other.get(key) != own[key] for other in same)]
        said = ", ".join(f"{key}={own[key]}" for key in apart)[:LONGEST_NAME]
        labelled.append(replace(run, curriculum=f"{run.curriculum} ({said})") if said else run)
    return labelled


def _curriculum(run: Run) -> dict[str, str]:
    keys = (key for key in run.settings if matters(key, run))
    return {key.removeprefix(PREFIX): str(run.settings[key]) for key in keys}


def matters(key: str, run: Run) -> bool:
    """Whether a dotted key is of the curriculum's settings, and one that the run's scheduler reads. Of one that is not ours all
    may be."""
    scheduler = CURRICULA.get(str(run.settings.get("curriculum.name")))
    group = key.removeprefix(PREFIX).partition(".")[0]
    return key.startswith(PREFIX) and (scheduler is None or scheduler.reads is None or group in scheduler.reads)


def _curve(
    rows: Sequence[Mapping[str, float]], keys: Sequence[str], env_steps: int, final: Sequence[float]
) -> tuple[Floats, Floats]:
    """Evaluations on the way, then the one at the end, which takes the place of one at the same step."""
    lines = {line[0]: line[1:] for line in _lines(rows, keys) if 0 <= line[0] < env_steps} | {env_steps: list(final)}
    success = np.array([lines[step] for step in sorted(lines)], float)
    if ((success < 0) | (success > 1)).any():
        raise BrokenRunError(f"its {METRICS} has a success that is none: from 0 to 1 it has to be")
    return np.array(sorted(lines), float), success


def _lines(rows: Sequence[Mapping[str, float]], keys: Sequence[str]) -> list[list[float]]:
    """Env steps and the values of `keys`, of the rows that have all of them."""
    lines = [[row[key] for key in ("env_steps", *keys)] for row in rows if all(key in row for key in keys)]
    return [line for line in lines if all(abs(value) < LARGEST for value in line)]


def _newest(rows: Sequence[Mapping[str, float]], key: str) -> float | None:
    """The last value that was logged; None where none was."""
    return next((float(row[key]) for row in reversed(rows) if key in row), None)


def _leaves(data: Mapping[Any, Any], prefix: str = "", left: list[int] | None = None) -> Iterator[tuple[str, Any]]:
    left = left if left is not None else [MOST_KEYS]
    for key, value in data.items():
        left[0] -= 1
        if left[0] < 0:
            raise BrokenRunError(f"its {CONFIG} holds more than {MOST_KEYS} keys")
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.", left)
        else:
            yield f"{prefix}{key}", _plain(value)


def _plain(value: Any) -> Any:
    """A list by its first elements: an anchor of YAML can make one endless."""
    return (
        [str(item)[:LONGEST_NAME] for item in value[:100] if not isinstance(item, list | dict)]
        if isinstance(value, list)
        else value
    )


def _table(data: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = data.get(key)
    if not isinstance(value, dict):
        raise BrokenRunError(f"its {SUMMARY} has no table '{key}'")
    return value


def _number(data: Any, key: str) -> float:
    value = data.get(key) if isinstance(data, dict) else None
    if not isinstance(value, int | float) or not 0 <= value < LARGEST:
        raise BrokenRunError(f"its '{key}' is no number")
    return float(value)


def _share(data: Any, key: str) -> float:
    value = _number(data, key)
    if value > 1:
        raise BrokenRunError(f"its '{key}' is no share: {value:g}")
    return value


def _name(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_NAME or not value.isprintable():
        raise BrokenRunError(f"its tasks and its curriculum need names of at most {LONGEST_NAME} characters")
    return value
