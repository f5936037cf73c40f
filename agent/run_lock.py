"""One training at a time in a run's folder: what two wrote there at once could not be told apart."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TextIO

from envs.errors import UserError

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

NAME = ".lock"


class RunLock:
    """Held by the process that trains in a folder, and let go by the system however that process ends.

    A POSIX record lock: processes that this one starts do not inherit it, and file systems over a network have it too. Where a
    file system has no locks, nothing is refused.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file: TextIO | None = None

    def acquire(self) -> None:
        """Take the lock; nothing where this holds it already.

        Raises:
            UserError: another process has it.
        """
        if self._file is not None or fcntl is None:
            return
        path = self.folder / NAME
        file = path.open("a+", encoding="utf-8")
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.seek(0)
            who = file.read().strip() or "unknown"
            file.close()
            raise UserError(
                f"{self.folder} is being trained in by another process ({who}): stop that one first, or choose another folder"
            ) from None
        except OSError:  # no locks here
            file.close()
            return
        file.truncate(0)
        file.write(f"process {os.getpid()} of {socket.gethostname()}\n")
        file.flush()
        self._file = file

    def __enter__(self) -> RunLock:
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()

    def release(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
