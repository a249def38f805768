"""A directory of state files as a source: one archive, and a record of each entry."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path

from opskit.backup import files_tar
from opskit.backup.files_changes import changes
from opskit.backup.files_entry import Links, Reading, reading
from opskit.catalog.file_record import ROOT, FileRecord, listed, shown
from opskit.errors import BackupFailed, ConfigurationError
from opskit.folders.lock import LockKind, ServiceLock, held
from opskit.folders.reading import Changed, State
from opskit.folders.tree import Entry, open_root, walk
from opskit.log import logger

# The first time, and three more.
_READS_MAX = 4


@dataclass(frozen=True, kw_only=True)
class FilesSource:
    """Which directory to back up, the lock of the service that writes it, if it has
    one, and patterns of what to leave out.

    Large files are spooled in `spool_dir`, by default the system's temporary folder.
    """

    name: str
    path: Path
    lock: Path | None = None
    lock_kind: LockKind = "flock"
    lock_wait: timedelta = timedelta(seconds=30)
    exclude: Sequence[str] = ()
    spool_dir: Path | None = None
    compression_level: int = 3

    @property
    def service_lock(self) -> ServiceLock | None:
        """The service's lock, if one is named."""
        if self.lock is None:
            return None
        return ServiceLock(path=self.lock, kind=self.lock_kind, wait=self.lock_wait)

    def leaves_out(self, path: str) -> bool:
        """Return whether a path is excluded; what is below it is then, too.

        A pattern without a slash is for names, one with a slash for whole paths.
        """
        name = path.rpartition("/")[2]
        return any(
            fnmatchcase(path if "/" in pattern else name, pattern)
            for pattern in self.exclude
        )


class FilesDump:
    """A directory: streams it as a pax archive, and says afterwards what went by."""

    def __init__(self, source: FilesSource, root: int, snapshot_at: datetime) -> None:
        self._source, self._root = source, root
        self._links = Links()
        self._records: list[FileRecord] = []
        self._seen: dict[str, State] = {}
        self._left_out: set[str] = set()
        self._gone: list[str] = []
        self._labelled: list[str] = []
        self.snapshot_at = snapshot_at
        self.warnings: list[str] = []
        self.tar_bytes = 0

    @property
    def records(self) -> tuple[FileRecord, ...]:
        """What the archive holds, in its order, once it has gone by as a whole."""
        return tuple(self._records)

    @property
    def content_bytes(self) -> int:
        """The size of all files, holes included."""
        return sum(record.size_bytes for record in self._records)

    def stream(self) -> Iterator[bytes]:
        """Yield the archive's bytes.

        Raises:
            BackupFailed: a file changed each time it was read, something may not be
                read, or the directory vanished.
        """
        with self._translated():
            for entry in walk(
                self._root, leave_out=self._source.leaves_out, gone=self._gone.append
            ):
                for block in self._member(entry):
                    self.tar_bytes += len(block)
                    yield block
            ending = files_tar.end(self.tar_bytes)
            self.tar_bytes += len(ending)
            yield ending
            self._look_again()

    def _member(self, entry: Entry) -> Iterator[bytes]:
        """Yield one entry; read again what changes meanwhile."""
        for _number in range(_READS_MAX):
            try:
                with reading(
                    entry,
                    links=self._links,
                    spool_dir=self._source.spool_dir,
                    is_locked=self._source.lock is not None,
                ) as found:
                    yield from self._stored(entry, found)
                return
            except Changed:
                continue
            except FileNotFoundError:
                self._gone.append(entry.path)
                return
        raise BackupFailed(
            f"{shown(entry.path)} in {self._source.path} changed each of the "
            f"{_READS_MAX} times that it was read",
            hint=f"{self._advice()}, or leave the file out with exclude.",
        )

    def _stored(self, entry: Entry, found: Reading | None) -> Iterator[bytes]:
        if found is None:
            self._left_out.add(entry.path)
            self._warn(f"{shown(entry.path)} is a socket or a device: not stored")
            return
        self._records.append(found.record)
        self._seen[entry.path] = found.state
        if found.has_attributes:
            self._labelled.append(entry.path)
        yield from files_tar.member(found.record, found.content)

    def _look_again(self) -> None:
        """Warn of everything that the archive does not hold as it is."""
        if self._gone:
            self._warn(f"vanished before it could be read: {listed(self._gone)}")
        if self._labelled:
            self._warn(
                "extended attributes and access control lists are not stored, "
                f"as of {listed(self._labelled)}"
            )
        changed = self._changes()
        if changed:
            self._warn(
                f"changed while the rest was read: {listed(changed)}. {self._advice()}"
            )
        if len(self._records) == 1:
            self._warn(f"{self._source.path} is empty")

    def _changes(self) -> list[str]:
        try:
            now = self._source.path.stat()
        except FileNotFoundError as error:
            raise BackupFailed(
                f"{self._source.path} vanished while it was read",
                hint="Run the backup again, when it is back.",
            ) from error
        found = changes(
            self._root,
            self._seen,
            lambda path: path in self._left_out or self._source.leaves_out(path),
        )
        is_replaced = not os.path.samestat(now, os.fstat(self._root))
        return [ROOT, *found] if is_replaced and ROOT not in found else found

    def _advice(self) -> str:
        if self._source.lock is None:
            return f"Name the lock of its service in [files.{self._source.name}] lock"
        return (
            f"Check that who writes there takes the lock {self._source.lock} "
            f"({self._source.lock_kind})"
        )

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise BackupFailed(
                f"{shown(str(error.filename))} in {self._source.path} cannot be "
                f"read: {error.strerror}",
                hint="Run the backup as a user who may read it, or leave it out with "
                "exclude.",
            ) from error

    def _warn(self, message: str) -> None:
        self.warnings.append(message)
        logger().warning(message, source=self._source.name)


@contextlib.contextmanager
def open_files(
    source: FilesSource, *, clock: Callable[[], datetime]
) -> Iterator[FilesDump]:
    """Take the service's lock and yield the dump of the directory, not yet begun.

    The lock is held for the length of the block.

    Raises:
        ConfigurationError: the path is no directory, or the lock cannot be one.
        BackupFailed: the directory is not there, or not for this user.
        LockHeld: the service did not release its lock in time.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(_directory(source))  # before a lock is made beside it
        is_new = source.service_lock is not None and stack.enter_context(
            held(source.service_lock)
        )
        # Opened again, for it may have been swapped by who had the lock.
        root = stack.enter_context(_directory(source))
        dump = FilesDump(source, root, clock())
        if is_new:
            dump.warnings.append(
                f"the lock {source.lock} did not exist and was made: check that it is "
                "the one that the service takes"
            )
        yield dump


@contextlib.contextmanager
def _directory(source: FilesSource) -> Iterator[int]:
    try:
        root = open_root(source.path)
    except NotADirectoryError as error:
        raise ConfigurationError(
            f"{source.path} is not a directory",
            hint=f"Name a directory in [files.{source.name}] path.",
        ) from error
    except OSError as error:
        raise BackupFailed(
            f"{source.path} cannot be read: {error.strerror}",
            hint="Check the path and that this user may read it.",
        ) from error
    try:
        yield root
    finally:
        os.close(root)
