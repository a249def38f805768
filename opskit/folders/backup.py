"""A folder of state files as a source: one archive, and a record of each entry."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from opskit import progress
from opskit.backup.guide import authenticity, checksums, decryption
from opskit.backup.stream import compressed
from opskit.catalog.file_record import ROOT, FileRecord, file_type, listed, shown
from opskit.catalog.manifest import FolderInventory, StoredObject
from opskit.catalog.writer import SetWriter
from opskit.crypto import age
from opskit.errors import BackupFailed, ConfigurationError
from opskit.folders import archive
from opskit.folders.archive import Changed, Links, Reading, State, reading, state
from opskit.folders.lock import ServiceLock, held
from opskit.folders.tree import Entry, open_root, walk
from opskit.log import logger


def render(
    *,
    backup_id: str,
    path: Path,
    entries: int,
    content_bytes: int,
    snapshot_at: datetime,
    objects: Sequence[StoredObject],
    encrypted: bool = False,
    signed: bool = False,
) -> str:
    """Return the guide as Markdown; the commands run in the folder of the set.

    `content_bytes` is the size of all files. A test runs the commands: see the rule in
    `backup/guide.py`.
    """
    stored = [each.key.rpartition("/")[2] for each in objects]
    archive = next(
        each.key.rpartition("/")[2].removesuffix(age.SUFFIX)
        for each in objects
        if each.role == "files"
    )
    sums = checksums(objects)
    return f"""\
# Restore {backup_id} with stock tools

This is the folder {_code(str(path))} with {entries} entries, as it was
at {snapshot_at:%Y-%m-%dT%H:%M:%SZ}.

{_needs(content_bytes, encrypted=encrypted)}

Run the commands in the folder that holds the files of the set.

## 1. Check that every file is what was stored
{authenticity(backup_id, objects) if signed else ""}
```sh
sha256sum --check <<'SUMS'
{sums}
SUMS
```
{decryption(stored) if encrypted else ""}
{_steps(archive, path, encrypted=encrypted)}
"""


def _needs(content_bytes: int, *, encrypted: bool) -> str:
    age_needed = "`age` with the private key, " if encrypted else ""
    return f"""\
You need:

- {age_needed}`zstd`, `sha256sum` and GNU tar (`bsdtar` reads the archive, too),
- about {max(1, round(content_bytes / 1024**2))} MiB of free space, on a file system
  that keeps owners, modes and links,
- to be root, if the files are to belong to whom they did: what another user unpacks is
  that user's."""


def _steps(archive: str, path: Path, *, encrypted: bool) -> str:
    digests = "" if encrypted else ", with the SHA-256 of each file"
    leftover = " Delete the decrypted files afterwards." if encrypted else ""
    place = shlex.quote(shown(str(path)))
    return f"""\
## 2. Unpack it into a new folder

Names are taken as the bytes that they are, owners as numbers. If tar says nothing and
ends well, the archive was whole.

```sh
mkdir -m 0700 restored
zstd --decompress --stdout {archive} |
    LC_ALL=C tar --extract --file=- --directory=restored --preserve-permissions \\
        --same-owner --numeric-owner --delay-directory-restore \\
        --warning=no-unknown-keyword --warning=no-timestamp
```

As an ordinary user, leave `--same-owner` out.

## 3. Look at it

`manifest.json` lists every entry{digests}.

```sh
find restored | wc -l
du -s restored
```

Then stop the service, move its folder aside and give this one the name:

    mv {place} {place}.before && mv restored {place}

The folder holds the data.{leftover}"""


def _code(text: str) -> str:
    text = shown(text)
    return f"`` {text} ``" if "`" in text else f"`{text}`"


# The first time, and three more.
_READS_MAX = 4


@dataclass(frozen=True, kw_only=True)
class FolderSource:
    """Which folder to back up, the lock of the service that writes there, if it has
    one, and patterns of what to leave out.

    Large files are spooled in `spool_dir`, by default the system's temporary folder.
    """

    name: str
    path: Path
    lock: ServiceLock | None = None
    exclude: Sequence[str] = ()
    spool_dir: Path | None = None
    compression_level: int = 3

    def leaves_out(self, path: str) -> bool:
        """Return whether a path is excluded; what is below it is then, too.

        A pattern without a slash is for names, one with a slash for whole paths.
        """
        name = path.rpartition("/")[2]
        return any(
            fnmatchcase(path if "/" in pattern else name, pattern)
            for pattern in self.exclude
        )

    @contextlib.contextmanager
    def opened(
        self, *, run_id: str, clock: Callable[[], datetime]
    ) -> Iterator[FolderDump]:
        """See `Source.opened`: the service's lock is held while the block lasts."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._root())  # before a lock is made beside it
            is_new = self.lock is not None and stack.enter_context(held(self.lock))
            # Opened again: whoever had the lock may have swapped the folder.
            dump = FolderDump(self, stack.enter_context(self._root()), clock())
            if self.lock is not None and is_new:
                dump.warnings.append(
                    f"the lock {self.lock.path} did not exist and was made: check that "
                    "it is the one that the service takes"
                )
            yield dump

    @contextlib.contextmanager
    def _root(self) -> Iterator[int]:
        with contextlib.ExitStack() as stack:
            try:
                root = stack.enter_context(open_root(self.path))
            except NotADirectoryError as error:
                raise ConfigurationError(
                    f"{self.path} is not a folder",
                    hint=f"Name a folder in [files.{self.name}] path.",
                ) from error
            except OSError as error:
                raise BackupFailed(
                    f"{self.path} cannot be read: {error.strerror}",
                    hint="Check the path and that this user may read it.",
                ) from error
            yield root


class FolderDump:
    """A folder that is read as an archive, and what the archive holds afterwards."""

    def __init__(self, source: FolderSource, root: int, snapshot_at: datetime) -> None:
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
        """What the archive holds, in its order, once it was read to the end."""
        return tuple(self._records)

    def write(self, writer: SetWriter) -> dict[str, Any]:
        source = self._source
        logger().info("reading files", source=source.name)
        total = _size_bytes(source.path) if progress.is_shown() else None
        title = f"backing up {source.name}"
        with progress.measured(title, total, lambda: self.tar_bytes):
            stream = compressed(self.stream(), source.compression_level)
            writer.put("files.tar.zst", "files", stream)
        return {
            "kind": "files",
            "snapshot_at": self.snapshot_at,
            "dump_bytes": self.tar_bytes,
            "files": self.records,
            "exclude_files": tuple(source.exclude),
            "warnings": tuple(self.warnings),
            "inventory": FolderInventory(path=str(source.path)),
        }

    def guide(
        self,
        backup_id: str,
        objects: Sequence[StoredObject],
        *,
        encrypted: bool,
        signed: bool,
    ) -> str:
        return render(
            backup_id=backup_id,
            path=self._source.path,
            entries=len(self._records),
            content_bytes=sum(record.size_bytes for record in self._records),
            snapshot_at=self.snapshot_at,
            objects=objects,
            encrypted=encrypted,
            signed=signed,
        )

    def require_held(self) -> None:
        """See `OpenSource.require_held`; an OS lock is never lost while it is held."""

    def stream(self) -> Iterator[bytes]:
        """Yield the archive's bytes.

        Raises:
            BackupFailed: a file changed each time it was read, something may not be
                read, or the folder vanished.
        """
        with self._translated():
            for entry in walk(
                self._root, leave_out=self._source.leaves_out, gone=self._gone.append
            ):
                for block in self._member(entry):
                    self.tar_bytes += len(block)
                    yield block
            ending = archive.end(self.tar_bytes)
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
        yield from archive.member(found.record, found.content)

    def _look_again(self) -> None:
        """Warn of everything that the archive does not hold as it is."""
        if self._gone:
            self._warn(f"vanished before it could be read: {listed(self._gone)}")
        if self._labelled:
            self._warn(
                "extended attributes and access control lists are not stored, "
                f"as of {listed(self._labelled)}"
            )
        if changed := self._changes():
            self._warn(
                f"changed while the rest was read: {listed(changed)}. {self._advice()}"
            )
        if len(self._records) == 1:
            self._warn(f"{self._source.path} is empty")

    def _changes(self) -> list[str]:
        """Return the paths that were added, removed or changed since they were read.

        A directory is named only where nothing in it is: it changes with its entries.
        """
        try:
            now = self._source.path.stat()
        except FileNotFoundError as error:
            raise BackupFailed(
                f"{self._source.path} vanished while it was read",
                hint="Run the backup again, when it is back.",
            ) from error
        found: set[str] = set()
        directories: set[str] = set()
        left = set(self._seen)
        for entry in walk(self._root, leave_out=self._is_left_out):
            left.discard(entry.path)
            if self._seen.get(entry.path) == state(entry.stat):
                continue
            is_known = entry.path in self._seen
            is_directory = file_type(entry.stat.st_mode) == "directory"
            (directories if is_known and is_directory else found).add(entry.path)
        found |= left
        explained = {path.rpartition("/")[0] or ROOT for path in found}
        if not os.path.samestat(now, os.fstat(self._root)):
            found.add(ROOT)
        return sorted(found | (directories - explained))

    def _is_left_out(self, path: str) -> bool:
        return path in self._left_out or self._source.leaves_out(path)

    def _advice(self) -> str:
        lock = self._source.lock
        if lock is None:
            return f"Name the lock of its service in [files.{self._source.name}] lock"
        return f"Check that who writes there takes the lock {lock.path} ({lock.kind})"

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


def _size_bytes(folder: Path) -> int:
    """Return about how large a folder is; what cannot be asked is left out."""
    return sum(
        os.lstat(os.path.join(path, name)).st_size
        for path, _folders, names in os.walk(folder)
        for name in names
        if os.path.lexists(os.path.join(path, name))
    )
