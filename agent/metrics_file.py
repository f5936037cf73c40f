"""`metrics.jsonl`: one JSON object a log step, first key `env_steps`; safe to read, and to go on with, after a kill."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from agent.files import publish, sync

NAME = "metrics.jsonl"


class MetricsFile:
    """Appends log steps to `<run_folder>/metrics.jsonl`; every line is handed to the operating system when it is whole.

    Args:
        resumed_env_steps: env steps of the checkpoint a run goes on from; later lines, which it will write again, are cut.

    Raises:
        FileExistsError: a new run (`resumed_env_steps=None`) in a folder that holds another run's metrics.
    """

    def __init__(self, run_folder: Path, resumed_env_steps: int | None = None) -> None:
        self.path = run_folder / NAME
        run_folder.mkdir(parents=True, exist_ok=True)
        if resumed_env_steps is not None:
            cut_metrics(run_folder, resumed_env_steps)
        elif self.path.exists() and self.path.stat().st_size > 0:
            raise FileExistsError(self.path)
        self._file = self.path.open("a", buffering=1, encoding="utf-8")

    def log(self, env_steps: int, values: Mapping[str, float]) -> None:
        """Write one line. JSON has no NaN and no infinity: both become null."""
        row: dict[str, float | int | None] = {"env_steps": int(env_steps)}
        for name, value in values.items():
            number = float(value)
            row[name] = number if math.isfinite(number) else None
        self._file.write(json.dumps(row, allow_nan=False) + "\n")

    def close(self) -> None:
        if not self._file.closed:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()

    def __enter__(self) -> MetricsFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def read_metrics(run_folder: Path) -> list[dict[str, float]]:
    """The log steps of a run, oldest first, nulls left out; empty without a file.

    A line that a kill left half-written is passed over.
    """
    return [row for _, row in _whole_lines(run_folder)]


def cut_metrics(run_folder: Path, env_steps: int) -> int:
    """Drop torn lines and those beyond `env_steps`; answers how many. The file is replaced in one piece, or not at all."""
    path = run_folder / NAME
    if not path.exists():
        return 0
    kept = [line for line, row in _whole_lines(run_folder) if row["env_steps"] <= env_steps]
    before = path.read_bytes()
    after = b"".join(line + b"\n" for line in kept)
    if after == before:
        return 0
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(after)
    sync(temporary)
    publish(temporary, path)
    return len(before.splitlines()) - len(kept)


def _whole_lines(run_folder: Path) -> list[tuple[bytes, dict[str, float]]]:
    path = run_folder / NAME
    if not path.exists():
        return []
    lines = []
    for line in path.read_bytes().split(b"\n"):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("env_steps"), int | float):
            lines.append((line, {name: value for name, value in row.items() if isinstance(value, int | float)}))
    return lines
