"""A folder of state files as the content of a set: one archive, and its list."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from opskit import progress
from opskit.backup.compress import compressed
from opskit.backup.writer import SetWriter
from opskit.catalog.manifest import LargeObjectsRecord, StoredObject
from opskit.folders import guide as folders_guide
from opskit.folders.backup import FilesDump, FilesSource, open_files
from opskit.log import logger

_ARCHIVE_NAME = "files.tar.zst"
_NO_LARGE_OBJECTS = LargeObjectsRecord(count=0, size_bytes=0, digest="0" * 32)


@dataclass(frozen=True)
class FolderBackup:
    """A folder to back up, under the lock of the service that writes there."""

    source: FilesSource

    @property
    def name(self) -> str:
        """See `Source.name`."""
        return self.source.name

    @contextlib.contextmanager
    def opened(
        self, *, run_id: str, clock: Callable[[], datetime]
    ) -> Iterator[OpenFolder]:
        """See `Source.opened`: the service's lock is held for the length of the block.

        Raises:
            ConfigurationError: the path is no directory.
        """
        with open_files(self.source, clock=clock) as dump:
            logger().info("reading files", source=self.name, run=run_id)
            yield OpenFolder(self.source, dump)


class OpenFolder:
    """A folder whose service is locked out, if it has a lock."""

    def __init__(self, source: FilesSource, dump: FilesDump) -> None:
        self._source, self._dump = source, dump

    def write(self, writer: SetWriter) -> dict[str, Any]:
        """See `OpenSource.write`."""
        dump = self._dump
        total = _size_bytes(self._source.path) if progress.is_shown() else None
        title = f"backing up {self._source.name}"
        with progress.measured(title, total, lambda: dump.tar_bytes):
            stream = compressed(dump.stream(), self._source.compression_level)
            writer.put(_ARCHIVE_NAME, "files", stream)
        return {
            "kind": "files",
            "snapshot": "",
            "snapshot_at": dump.snapshot_at,
            "server_version": "",
            "client_version": "",
            "dump_bytes": dump.tar_bytes,
            "tables": (),
            "sequences": (),
            "large_objects": _NO_LARGE_OBJECTS,
            "files": dump.records,
            "exclude_files": tuple(self._source.exclude),
            "warnings": tuple(dump.warnings),
            "inventory": {"path": str(self._source.path)},
        }

    def guide(
        self,
        backup_id: str,
        objects: Sequence[StoredObject],
        *,
        encrypted: bool,
        signed: bool,
    ) -> str:
        """See `OpenSource.guide`."""
        return folders_guide.render(
            backup_id=backup_id,
            path=self._source.path,
            entries=len(self._dump.records),
            content_bytes=self._dump.content_bytes,
            snapshot_at=self._dump.snapshot_at,
            objects=objects,
            encrypted=encrypted,
            signed=signed,
            role="files",
        )

    def require_held(self) -> None:
        """See `OpenSource.require_held`; an OS lock is never lost while it is held."""


def _size_bytes(folder: Path) -> int:
    """Return about how large a folder is; what cannot be asked is left out."""
    return sum(
        os.lstat(os.path.join(path, name)).st_size
        for path, _folders, names in os.walk(folder)
        for name in names
        if os.path.lexists(os.path.join(path, name))
    )
