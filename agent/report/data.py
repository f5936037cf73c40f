"""What a run folder holds, read for its report. Nothing here draws."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from agent.files import file_name
from agent.metrics_file import read_metrics

VIDEO_BYTES = 6_000_000  # of films in one page
THRESHOLD = 0.9  # the project's criterion of a mastered task, where the run's config does not say


@dataclass(frozen=True)
class Series:
    """One metric over env steps: the log steps that have it."""

    steps: list[float]
    values: list[float]

    @property
    def last(self) -> float:
        return self.values[-1]

    def thin(self, buckets: int = 400) -> Series:
        """At most two points a bucket, its lowest and its highest, so that no spike is lost; the last point stays."""
        count = len(self.steps)
        if count <= 2 * buckets:
            return self
        chosen = {count - 1}
        for bucket in range(buckets):
            span = range(bucket * count // buckets, (bucket + 1) * count // buckets)
            chosen |= {min(span, key=self.values.__getitem__), max(span, key=self.values.__getitem__)}
        order = sorted(chosen)
        return Series([self.steps[i] for i in order], [self.values[i] for i in order])


@dataclass(frozen=True)
class Picture:
    """A PNG or a GIF from `<run_folder>/media`, and what the JSON file of the same name says about it."""

    name: str
    title: str
    caption: str
    alt: str
    uri: str


@dataclass
class RunData:
    """One run, as far as its folder tells.

    Attributes:
        metrics: log steps, oldest first.
        summary: `summary.json`; empty where the run did not get so far.
        config: `config.yaml` as data; `config_text` as it was written.
        pictures: all but dreams.
        dreams: pictures of dreams, each followed by its film; that of the end of training first.
        videos: films of evaluation episodes, the hardest task's first; `videos_left_out`: files too large to hold.
        missing: sentences about what is not there.
    """

    name: str
    metrics: list[dict[str, float]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    config_text: str = ""
    pictures: list[Picture] = field(default_factory=list)
    dreams: list[Picture] = field(default_factory=list)
    videos: list[Picture] = field(default_factory=list)
    videos_left_out: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def series(self, key: str) -> Series | None:
        """The metric `key`, or None where it was never logged."""
        points = [(row["env_steps"], row[key]) for row in self.metrics if key in row]
        return Series([step for step, _ in points], [value for _, value in points]) if points else None

    def group(self, prefix: str) -> dict[str, Series]:
        """`{rest of the key: its series}` of every metric whose key starts with `prefix`, in the order they were logged."""
        keys = dict.fromkeys(key for row in self.metrics for key in row if key.startswith(prefix))
        found = {key.removeprefix(prefix): self.series(key) for key in keys}
        return {name: series for name, series in found.items() if series is not None}

    @property
    def trained(self) -> bool:
        """Whether the folder is that of a training run, not of pictures alone (`job=dream` in a folder of its own)."""
        return bool(self.metrics or self.config_text or self.summary or not self.dreams)

    @property
    def pretrained(self) -> bool:
        """Whether it is a pretraining: nothing was played, and `env_steps` counts updates."""
        job = self.config.get("job")
        return isinstance(job, dict) and job.get("name") == "pretrain"

    @property
    def axis(self) -> str:
        """What the steps of all series are."""
        return "updates" if self.pretrained else "env steps"

    @property
    def tasks(self) -> list[str]:
        """Every task, easy to hard: the curriculum's order where it is known, else the order they turned up in."""
        prefixes = ("curriculum/p/", "train/success/", "eval/success/")
        names = [name for prefix in prefixes for name in self.group(prefix)]
        reached = [*self.table("steps_to_threshold"), *self.table("tasks")]
        order = list(self.table("steps_to_threshold")) if set(names) <= set(reached) else []
        return list(dict.fromkeys([*order, *names, *reached]))

    @property
    def env_steps(self) -> int:
        last = self.metrics[-1]["env_steps"] if self.metrics else 0
        return int(self.summary.get("env_steps", last))

    @property
    def threshold(self) -> float:
        """Training success from which the run called a task mastered."""
        train = self.config.get("train")
        return float(train.get("mastery", THRESHOLD)) if isinstance(train, dict) else THRESHOLD

    def table(self, key: str) -> Mapping[str, Any]:
        """A nested part of the summary; empty where it is missing or no table."""
        value = self.summary.get(key)
        return value if isinstance(value, dict) else {}

    def full_from(self, task: str, episodes: int = 100) -> float:
        """Env steps of the first log step at which `task` had its full window of episodes; 0 where episodes were not counted."""
        series = self.series(f"train/episodes/{task}")
        if series is None:
            return 0.0
        return next((step for step, count in zip(series.steps, series.values, strict=True) if count >= episodes), float("inf"))

    def mastered(self) -> dict[str, float]:
        """`{task: env steps}` of the tasks that reached the threshold, in the order in which they did."""
        reached = {task: float(steps) for task, steps in self.table("steps_to_threshold").items() if steps is not None}
        return dict(sorted(reached.items(), key=lambda item: item[1]))

    def phases(self) -> dict[str, float]:
        """`{phase: cumulative seconds}`, longest first, with what no phase covers as 'everything else'."""
        seconds = {name: series.last for name, series in self.group("time/").items()}
        rest = float(self.summary.get("wall_seconds") or 0.0) - sum(seconds.values())
        ordered = dict(sorted(seconds.items(), key=lambda item: -item[1]))
        return {**ordered, "everything else": rest} if seconds and rest > 0 else ordered


def load_run(run_folder: Path) -> RunData:
    """Read a run folder. What is missing or broken is said in `missing`, not raised: a run that died deserves a report too."""
    run = RunData(run_folder.resolve().name, metrics=read_metrics(run_folder))
    if not run.metrics:
        run.missing.append("metrics.jsonl is missing or empty: the run ended before its first log step, so there are no curves.")
    try:
        run.config_text = (run_folder / "config.yaml").read_text(encoding="utf-8")
        loaded = yaml.safe_load(run.config_text)
        run.config = loaded if isinstance(loaded, dict) else {}
    except FileNotFoundError:
        run.missing.append("config.yaml is missing: what the run was asked to do is not known.")
    except yaml.YAMLError:
        run.missing.append("config.yaml cannot be parsed; it is shown as it is.")
    try:
        loaded = json.loads((run_folder / "summary.json").read_text(encoding="utf-8"))
        run.summary = loaded if isinstance(loaded, dict) else {}
    except FileNotFoundError:
        until = "end" if run.pretrained else "evaluation"
        run.missing.append(f"summary.json is missing: the run ended before its {until}, so only training figures are shown.")
    except ValueError:
        run.missing.append("summary.json cannot be parsed, so only training figures are shown.")
    if run.summary and not run.table("tasks") and not run.pretrained:
        run.missing.append("The run was stopped before its evaluation, so only training figures are shown.")
    media = run_folder / "media"
    dreams = sorted(media.glob("dream*.png"))
    run.pictures = [_picture(path) for path in sorted(media.glob("*.png")) if path not in dreams]
    _add_videos(run, sorted(media.glob("eval_*.gif")))
    _add_dreams(run, dreams)
    return run


def _add_videos(run: RunData, paths: list[Path]) -> None:
    """Hold the hardest tasks' films, as many as `VIDEO_BYTES` allow."""
    order = [f"eval_{file_name(task)}" for task in run.tasks]
    paths = sorted(paths, key=lambda path: order.index(path.stem) if path.stem in order else -1, reverse=True)
    room = VIDEO_BYTES
    for path in paths:
        room -= path.stat().st_size
        if room >= 0:
            run.videos.append(_picture(path))
        else:
            run.videos_left_out.append(path.name)


def _add_dreams(run: RunData, paths: list[Path]) -> None:
    """Hold pictures of dreams with their films, as many as `VIDEO_BYTES` allow."""
    room = VIDEO_BYTES
    for path in (file for png in paths for file in (png, png.with_suffix(".gif")) if file.exists()):
        room -= path.stat().st_size
        if room >= 0:
            run.dreams.append(_picture(path))
        else:
            run.videos_left_out.append(path.name)


def _picture(path: Path) -> Picture:
    try:
        text = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        text = {}
    caption = str(text.get("caption", ""))
    return Picture(
        name=path.stem,
        title=str(text.get("title", path.stem.replace("_", " ").capitalize())),
        caption=caption,
        alt=str(text.get("alt") or caption or f"The picture {path.name}; it came without a description."),
        uri=f"data:image/{path.suffix[1:]};base64," + base64.b64encode(path.read_bytes()).decode("ascii"),
    )
