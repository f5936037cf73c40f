"""Shards in a folder elsewhere: an object store, another machine, whatever fsspec reaches (filesystem-spec.readthedocs.io)."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from agent.files import publish, sync
from envs.errors import UserError

log = logging.getLogger(__name__)


def is_remote(name: str) -> bool:
    """Whether a folder's name is a URL: `s3://bucket/run`, `memory://run`."""
    return "://" in name


class RemoteShards:
    """The shards of a remote folder. They are copied whole: what reads them reads local files.

    Raises:
        UserError: fsspec is not installed, does not know such a URL, or cannot reach it.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        try:
            from fsspec.core import url_to_fs
        except ImportError:
            raise UserError(f"{url} is a remote folder, which needs fsspec: pip install -e '.[remote]'") from None
        with self._reached():
            self._files, self._root = url_to_fs(self.url)
        self._unsent: list[Path] = []

    def names(self) -> list[str]:
        """File names of its shards, in no order."""
        with self._reached():
            if not self._files.exists(self._root):
                return []
            return [str(path).rpartition("/")[2] for path in self._files.ls(self._root, detail=False)]

    def fetch(self, name: str, folder: Path) -> Path:
        """Copy a shard into a local folder, where it appears whole, also where several processes fetch the same."""
        temporary = folder / f".{name}.{uuid4().hex}.fetched"
        try:
            with self._reached():
                self._files.get_file(f"{self._root}/{name}", str(temporary))
            sync(temporary)
            publish(temporary, folder / name)
        finally:
            temporary.unlink(missing_ok=True)
        return folder / name

    @property
    def unsent(self) -> int:
        """How many shards wait to be sent."""
        return len(self._unsent)

    def owe(self, paths: Sequence[Path]) -> None:
        """Have local shards that are not there sent with the next one: an earlier run could not send them."""
        there = set(self.names()) if paths else set()
        self._unsent += [path for path in paths if path.name not in there]

    def send(self, path: Path) -> None:
        """Copy a local shard there, under another name first; what cannot be sent now is sent with the next one."""
        self._unsent.append(path)
        try:
            self.send_rest()
        except UserError as error:
            log.warning("%d shards wait to be sent: %s", len(self._unsent), error)

    def send_rest(self) -> None:
        """Send what could not be sent before."""
        while self._unsent:
            path = self._unsent[0]
            with self._reached():
                self._files.makedirs(self._root, exist_ok=True)
                self._files.put_file(str(path), f"{self._root}/.{path.name}.tmp")
                self._files.mv(f"{self._root}/.{path.name}.tmp", f"{self._root}/{path.name}")
            self._unsent.pop(0)

    def set_aside(self, late: Sequence[str]) -> None:
        """Rename shards to `*.orphan`; what has such a name already is kept."""
        there = set(self.names()) if late else set()
        for name in late:
            target = f"{name}.orphan"
            while target in there:
                target += ".orphan"
            there.add(target)
            with self._reached():
                self._files.mv(f"{self._root}/{name}", f"{self._root}/{target}")

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # every kind of store raises errors of its own
            why = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(f"the remote folder {self.url} cannot be used ({why}): mend it, or give another one") from error


def local_file(folder: Path, name: str, remote: RemoteShards | None = None) -> Path:
    """Where a shard is, fetched from the `remote` folder if it is only there.

    Raises:
        UserError: it is nowhere, or would be somewhere else.
    """
    if Path(name).name != name:
        raise UserError(f"Replay shard {name!r} is no name of a file in {folder}: resume from another checkpoint.")
    path = folder / name
    if path.is_file():
        return path
    if remote is None:
        raise UserError(f"Replay shard {path} is missing: restore it, or resume from another checkpoint.")
    folder.mkdir(parents=True, exist_ok=True)
    return remote.fetch(name, folder)
