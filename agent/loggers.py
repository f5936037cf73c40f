"""Where metrics go: `metrics.jsonl` always; console, W&B and TensorBoard by config."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import uuid4

from agent.metrics_file import MetricsFile
from envs.errors import UserError

log = logging.getLogger(__name__)

RUN_ID, LOGGED = "run_id", "logged"  # files in `<run_folder>/wandb`
CONSOLE_KEYS = ("train/return/*", "model/total", "policy/imagined_return", "policy/real_return", "policy/entropy")


@dataclass
class LoggerConfig:
    """The `logger` config group."""

    console: bool = True  # one line a log step, of the metrics that match console_keys
    console_keys: list[str] = field(default_factory=lambda: list(CONSOLE_KEYS))
    progress: bool = True  # the live progress bar; plain lines where stdout is no terminal
    wandb: str = "offline"  # off | offline | online
    project: str = "strata"
    entity: str | None = None
    group: str | None = None
    name: str | None = None  # of the run in W&B; the run folder's by default
    tags: list[str] = field(default_factory=list)
    tensorboard: bool = False
    report: bool = True  # write report.html when the run ends

    def wandb_mode(self) -> str:
        """`off`, `offline` or `online`; YAML reads a bare `off` as false, which means the same."""
        mode = {"false": "off", "disabled": "off"}.get(self.wandb.lower(), self.wandb.lower())
        if mode not in ("off", "offline", "online"):
            raise UserError(f"logger.wandb={self.wandb!r} is none of off, offline, online.")
        return mode


class Sink:
    """One place that metrics go to; what it has no use for, it lets pass."""

    def log(self, env_steps: int, values: Mapping[str, float]) -> None: ...

    def image(self, env_steps: int, name: str, path: Path, caption: str) -> None: ...

    def video(self, env_steps: int, name: str, path: Path, caption: str) -> None: ...

    def table(self, env_steps: int, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None: ...

    def summary(self, values: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...


class MetricLogger:
    """Sends every log step to `metrics.jsonl` and to whatever the config adds.

    What the config adds is a convenience: if it fails in the middle of a run (a network, a full quota), the run says so once
    and goes on without it. `metrics.jsonl` is the record: if that cannot be written, the error is raised.

    Args:
        run_folder: where `metrics.jsonl`, `wandb/` and `tensorboard/` are kept.
        run_config: the whole config of the run, shown in W&B.
        resumed_env_steps: env steps of the checkpoint the run goes on from; None for a new run.
        write: prints one console line.

    Raises:
        UserError: a new run in a folder that holds metrics already; a logger that was asked for and cannot start.
    """

    def __init__(
        self,
        config: LoggerConfig,
        run_folder: Path,
        run_config: Mapping[str, Any] | None = None,
        resumed_env_steps: int | None = None,
        write: Callable[[str], None] = print,
    ) -> None:
        mode = config.wandb_mode()
        self.config = config
        try:
            self._file = MetricsFile(run_folder, resumed_env_steps)
        except FileExistsError as error:
            raise UserError(
                f"{error.args[0]} belongs to another run: "
                f"go on with that run by resume={run_folder}, or start anew in another hydra.run.dir."
            ) from None
        self._sinks: list[Sink] = []
        if config.console:
            self._sinks.append(ConsoleSink(config.console_keys, write))
        if config.tensorboard:
            self._sinks.append(TensorBoardSink(run_folder, resumed_env_steps))
        if mode != "off":
            self._start_wandb(mode, run_folder, run_config or {}, resumed_env_steps)

    def log(self, env_steps: int, values: Mapping[str, float]) -> None:
        """Write one log step."""
        numbers = {name: float(value) for name, value in values.items()}
        self._file.log(env_steps, numbers)
        self._each(lambda sink: sink.log(env_steps, numbers))

    def image(self, env_steps: int, name: str, path: Path, caption: str = "") -> None:
        """Show a PNG of the run (a dream, decoded goals) where images can be shown."""
        self._each(lambda sink: sink.image(env_steps, name, path, caption))

    def video(self, env_steps: int, name: str, path: Path, caption: str = "") -> None:
        """Show an animated GIF of the run where films can be shown."""
        self._each(lambda sink: sink.video(env_steps, name, path, caption))

    def table(self, env_steps: int, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Show a table, each row by its columns, where tables can be shown. Entries that are tables themselves are left out."""
        plain = (str, int, float, type(None))
        columns = list(dict.fromkeys(key for row in rows for key, value in row.items() if isinstance(value, plain)))
        cells = [[row.get(column) for column in columns] for row in rows]
        self._each(lambda sink: sink.table(env_steps, name, columns, cells))

    def summary(self, values: Mapping[str, Any]) -> None:
        """Hand over what `summary.json` holds, for the loggers that compare runs by it."""
        self._each(lambda sink: sink.summary(values))

    def close(self) -> None:
        """Finish every logger; later calls do nothing."""
        self._each(lambda sink: sink.close())
        self._sinks = []
        self._file.close()

    def _each(self, call: Callable[[Sink], None]) -> None:
        for sink in list(self._sinks):
            try:
                call(sink)
            except Exception as error:
                self._sinks.remove(sink)
                log.warning("%s failed and is left out from here on: %s", type(sink).__name__, error)

    def _start_wandb(self, mode: str, run_folder: Path, run_config: Mapping[str, Any], resumed_env_steps: int | None) -> None:
        try:
            self._sinks.append(WandbSink(self.config, mode, run_folder, run_config, resumed_env_steps))
        except Exception as error:
            if mode == "online":
                self.close()
                raise UserError(
                    f"logger.wandb=online cannot start ({error}): log in with `wandb login`, or choose logger.wandb=offline."
                ) from error
            log.warning("W&B cannot start and is left out: %s", error)


class ConsoleSink(Sink):
    """One line a log step: `12,000 steps | model/total 1.234 | policy/entropy 0.71`."""

    def __init__(self, keys: list[str], write: Callable[[str], None]) -> None:
        self._keys, self._write = keys, write

    def log(self, env_steps: int, values: Mapping[str, float]) -> None:
        chosen = [name for key in self._keys for name in values if fnmatchcase(name, key)]
        if chosen:
            self._write(" | ".join([f"{env_steps:,} steps", *(f"{name} {values[name]:.3g}" for name in dict.fromkeys(chosen))]))


class TensorBoardSink(Sink):
    """Event files in `<run_folder>/tensorboard`; the step axis is env steps."""

    def __init__(self, run_folder: Path, resumed_env_steps: int | None) -> None:
        try:
            module = import_module("torch.utils.tensorboard")
        except ImportError as error:
            raise UserError("logger.tensorboard=true needs a package: pip install -e '.[reports]'.") from error
        # Events of steps that will be played again are hidden.
        purge = None if resumed_env_steps is None else resumed_env_steps + 1
        self._writer = module.SummaryWriter(str(run_folder / "tensorboard"), purge_step=purge)

    def log(self, env_steps: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, env_steps)

    def image(self, env_steps: int, name: str, path: Path, caption: str) -> None:
        from matplotlib.image import imread

        self._writer.add_image(name, imread(path)[..., :3], env_steps, dataformats="HWC")

    def video(self, env_steps: int, name: str, path: Path, caption: str) -> None:
        from PIL import Image

        summary = import_module("tensorboard.compat.proto.summary_pb2").Summary
        with Image.open(path) as film:  # an image of TensorBoard may be animated
            image = summary.Image(height=film.height, width=film.width, colorspace=3, encoded_image_string=path.read_bytes())
        self._writer.file_writer.add_summary(summary(value=[summary.Value(tag=name, image=image)]), env_steps)

    def table(self, env_steps: int, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        lines = [columns, ["---"] * len(columns), *([_cell(value) for value in row] for row in rows)]
        self._writer.add_text(name, "\n".join(f"| {' | '.join(line)} |" for line in lines), env_steps)  # it reads Markdown

    def close(self) -> None:
        self._writer.close()


class WandbSink(Sink):
    """A W&B run in `<run_folder>/wandb`, its x axis env steps, so that runs of any speed and batch size compare.

    A resumed run keeps its id: online it goes on in place, offline its parts carry the same id for `wandb sync`. What it plays
    again, from its checkpoint up to the last row logged before, W&B has and is not told twice: curves would turn back.

    Args:
        resumed_env_steps: env steps of the checkpoint the run goes on from; None for a new run.

    Attributes:
        id: of the run in W&B, kept in `wandb/run_id`; beside it, in `wandb/logged`, are the env steps of its last row.
    """

    def __init__(
        self,
        config: LoggerConfig,
        mode: str,
        run_folder: Path,
        run_config: Mapping[str, Any],
        resumed_env_steps: int | None = None,
    ) -> None:
        import wandb

        self._wandb: Any = wandb
        known = wandb_id(run_folder) if resumed_env_steps is not None else None
        self.id = known or uuid4().hex[:12]
        self._logged = run_folder / "wandb" / LOGGED
        self._logged.parent.mkdir(parents=True, exist_ok=True)
        if known is None:
            self._logged.unlink(missing_ok=True)
            (run_folder / "wandb" / RUN_ID).write_text(self.id)
        since, last = resumed_env_steps or 0, _number(self._logged)
        # Where nothing came after the checkpoint's own row, an evaluation may still be owed to that one.
        self._again = range(since, last + 1) if last > since else range(0)
        self._run = self._wandb.init(
            mode=mode,
            id=self.id,
            dir=str(run_folder),
            project=config.project,
            entity=config.entity,
            group=config.group,
            name=config.name or run_folder.name,
            tags=list(config.tags),
            config=dict(run_config),
            resume="allow" if resumed_env_steps is not None and mode == "online" else None,
            # Its capture of stdout would break the progress bar, and git and stdout are in the run folder already.
            settings=self._wandb.Settings(console="off", silent=True),
        )
        self._run.define_metric("env_steps", hidden=True)
        self._run.define_metric("*", step_metric="env_steps")

    def log(self, env_steps: int, values: Mapping[str, float]) -> None:
        if env_steps in self._again:
            return
        self._run.log({"env_steps": env_steps, **values})
        temporary = self._logged.with_suffix(".tmp")
        temporary.write_text(str(env_steps))
        temporary.replace(self._logged)

    def image(self, env_steps: int, name: str, path: Path, caption: str) -> None:
        self._run.log({"env_steps": env_steps, name: self._wandb.Image(str(path), caption=caption)})

    def video(self, env_steps: int, name: str, path: Path, caption: str) -> None:
        self._run.log({"env_steps": env_steps, name: self._wandb.Video(str(path), caption=caption, format="gif")})

    def table(self, env_steps: int, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        self._run.log({"env_steps": env_steps, name: self._wandb.Table(list(columns), [list(row) for row in rows])})

    def html(self, name: str, page: str) -> None:
        """Show a page that needs no other file."""
        self._run.log({name: self._wandb.Html(page, inject=False, data_is_not_path=True)})

    def summary(self, values: Mapping[str, Any]) -> None:
        self._run.summary.update({"summary": dict(values)})

    def close(self) -> None:
        self._run.finish()


def wandb_id(run_folder: Path) -> str | None:
    """The id in W&B of a folder's run; None where it has none, or something else stands there: folders come from anywhere."""
    try:
        with (run_folder / "wandb" / RUN_ID).open(encoding="utf-8") as file:
            found = file.read(100).strip()
    except (OSError, ValueError):
        return None
    return found if re.fullmatch(r"[A-Za-z0-9_-]{1,64}", found) else None


def _number(path: Path) -> int:
    """What stands in a file; 0 where it is no number."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
