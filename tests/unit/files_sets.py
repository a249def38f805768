"""Directories with every kind of entry, and archives made of directories."""

from __future__ import annotations

import io
import os
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from opskit.catalog.file_record import FileRecord
from opskit.folders.backup import FolderDump, FolderSource
from opskit.folders.copy import compare, extract
from opskit.folders.lock import ServiceLock
from opskit.folders.restore import OpenTar

IS_ROOT = os.geteuid() == 0
ODD_NAMES = (
    b"plain",
    b"-rf",
    b"new\nline",
    b"\xff\xfe",
    "é".encode(),
    b" spaces ",
    b"*",
    b"..hidden",
    b"12 hdrcharset=BINARY\n",
    b"x" * 255,
    b"d" * 200 + b"/" + b"\xff" * 100 + b"/deep",
)
MIB = 1024**2


@dataclass(frozen=True)
class Dumped:
    """An archive, its records, and what was warned of."""

    tar: bytes
    records: tuple[FileRecord, ...]
    warnings: tuple[str, ...]

    def record(self, path: str) -> FileRecord:
        """Return the record of a path."""
        return next(each for each in self.records if each.path == path)

    @property
    def paths(self) -> list[str]:
        """The paths of all records but the root's."""
        return [each.path for each in self.records if each.path != "."]

    @property
    def opener(self) -> OpenTar:
        """What opens the archive as a stream."""

        @contextmanager
        def opened() -> Iterator[BinaryIO]:
            yield io.BytesIO(self.tar)

        return opened


def now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


def source(path: Path, **options: Any) -> FolderSource:
    """Return a folder as a source; `lock_kind` and `lock_wait` are of its lock."""
    own = {
        name: options.pop(f"lock_{name}")
        for name in ("kind", "wait")
        if f"lock_{name}" in options
    }
    if "lock" in options:
        options["lock"] = ServiceLock(path=options["lock"], **own)
    return FolderSource(name="state", path=path, **options)


def dumping(path: Path, **options: Any) -> AbstractContextManager[FolderDump]:
    """Open a folder to be dumped."""
    return source(path, **options).opened(run_id="abc123", clock=now)


def dump(path: Path, **options: Any) -> Dumped:
    """Archive a directory."""
    with dumping(path, **options) as found:
        tar = b"".join(found.stream())
        assert len(tar) == found.tar_bytes
        return Dumped(tar, found.records, tuple(found.warnings))


def extracted(dumped: Dumped, target: Path) -> Path:
    """Extract an archive into a new directory."""
    target.mkdir(mode=0o700)
    extract(io.BytesIO(dumped.tar), target, dumped.records)
    return target


def differences(target: Path, dumped: Dumped) -> dict[str, str]:
    """Return what the comparison finds, by the name of the check."""
    return {
        each.name: each.detail
        for each in compare(target, dumped.records)
        if not each.passed
    }


def make_odd(folder: Path) -> Path:
    """Fill a new directory with every kind of entry that can be stored."""
    folder.mkdir()
    base = os.fsencode(folder)
    for number, name in enumerate(ODD_NAMES):
        place = os.path.join(base, name)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        with open(place, "wb") as file:
            file.write(name * number)
    os.symlink("/etc/passwd", folder / "absolute")
    os.symlink("../../outside", folder / "outward")
    os.symlink(b"\xff" * 150, folder / "dangling")
    os.symlink("loop", folder / "loop")
    os.symlink(".", folder / "itself")
    os.mkfifo(folder / "pipe", 0o640)
    os.link(folder / "plain", folder / "z hard link")
    (folder / "empty directory").mkdir()
    (folder / "empty file").touch()
    (folder / "large").write_bytes(bytes(range(256)) * (9 * MIB // 256))
    make_sparse(folder / "sparse", 64 * MIB)
    make_sparse(folder / "hole", 5 * MIB, data=b"")
    _mark(folder)
    return folder


def make_sparse(path: Path, size_bytes: int, *, data: bytes = b"data" * 1000) -> None:
    """Make a file with data in the middle and at its end, and holes around."""
    with path.open("wb") as file:
        if data:
            file.seek(size_bytes // 3)
            file.write(data)
            file.seek(size_bytes - 3)
            file.write(b"end")
        file.truncate(size_bytes)


def make_socket(path: Path, short: Path) -> None:
    """Make a socket; its path has to be short at first."""
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(short))
    short.rename(path)


def _mark(folder: Path) -> None:
    (folder / "plain").chmod(0o4755)
    (folder / "empty directory").chmod(0o2770)
    (folder / "-rf").chmod(0o000 if IS_ROOT else 0o400)
    if IS_ROOT:
        os.chown(folder / "large", 12345, 99_999_999)
        os.chown(folder / "loop", 12345, 23456, follow_symlinks=False)
    times = (0, 1_234_567_890_123_456_789)
    os.utime(folder / "large", ns=times)
    os.utime(folder / "loop", ns=times, follow_symlinks=False)
    os.utime(folder / "empty directory", ns=times)
    os.utime(folder / "empty file", ns=(0, -1_500_000_001))
    os.utime(folder, ns=(0, 987_654_321_012_345_678))
