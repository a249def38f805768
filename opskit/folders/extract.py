"""Extracts the archive of a folder into a new one, and nowhere else."""

from __future__ import annotations

import contextlib
import errno
import os
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, BinaryIO

from opskit.catalog.file_record import ROOT, FileRecord, FileType, is_beneath, shown
from opskit.catalog.reader import HINT
from opskit.errors import IntegrityError, StoreError
from opskit.folders.tree import (
    BLOCK_BYTES,
    decoded,
    encoded,
    named,
    open_root,
    parent_of,
)

# Set-user-id and set-group-id: they must not give the rights of another owner.
LENDING_BITS = 0o6000
# Not root, or root in a container that has no such user.
_NOT_PERMITTED = (errno.EPERM, errno.EINVAL)


_ZEROS = bytes(64 * 1024)
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
_TYPES: dict[bytes, FileType] = {
    tarfile.REGTYPE: "file",
    tarfile.AREGTYPE: "file",
    tarfile.DIRTYPE: "directory",
    tarfile.SYMTYPE: "symlink",
    tarfile.LNKTYPE: "hardlink",
    tarfile.FIFOTYPE: "fifo",
}


def extract(tar_stream: BinaryIO, target: Path, records: Sequence[FileRecord]) -> None:
    """Extract an archive into a folder that exists and is empty.

    Everything comes from the archive; the records say what must be in it. Symbolic
    links are made last, and no path leads through one. Owners are set if this user may
    do that; set-user-id bits are dropped otherwise. The stream is read to its end.

    Raises:
        IntegrityError: the archive is cut short, or not what the records say, or would
            lead out of the directory.
        StoreError: the directory cannot be written, or the disk is full.
    """
    root = open_root(target)
    try:
        with _translated(target):
            _Extraction(root, records).run(tar_stream)
    finally:
        os.close(root)


@dataclass
class _Extraction:
    root: int
    records: Sequence[FileRecord]
    _left: dict[str, FileRecord] = field(init=False)
    _files: set[str] = field(default_factory=set)
    _directories: list[FileRecord] = field(default_factory=list)
    _links: list[FileRecord] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._left = {record.path: record for record in self.records}

    def run(self, stream: BinaryIO) -> None:
        with tarfile.open(
            fileobj=stream, mode="r|", encoding="utf-8", errors="surrogateescape"
        ) as archive:
            while (member := archive.next()) is not None:
                self._make(archive, member)
                archive.members = []  # type: ignore[attr-defined]  # it keeps them all
        while stream.read(BLOCK_BYTES):
            pass  # the stream checks its bytes at the end
        if self._left:
            raise _damaged(f"does not hold {shown(min(self._left))}")
        # From here on nothing is created in a place that a link could lead to.
        for link in self._links:
            with parent_of(self.root, link.path) as (parent, name):
                os.symlink(encoded(link.target), name, dir_fd=parent)
                _set_metadata(parent, name, link)
        for directory in reversed(self._directories):
            with parent_of(self.root, directory.path) as (parent, name):
                _set_metadata(parent, name, directory)

    def _make(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        path = ROOT if member.name in ("", ROOT) else member.name
        expected = self._left.pop(path, None)
        if expected is None or not is_beneath(path):
            raise _damaged(f"holds {shown(path)}, which the set does not name")
        record = _record(path, member)
        if record.type != expected.type or record.size_bytes != expected.size_bytes:
            raise _damaged(
                f"holds {shown(path)} as a {record.type} of {record.size_bytes} bytes"
            )
        if record.type == "directory":
            self._directories.append(record)
        if path == ROOT:
            if record.type != "directory":
                raise _damaged(f"holds a {record.type} in place of the directory")
            return
        if record.type == "symlink":
            self._links.append(record)
            return
        with parent_of(self.root, path) as (parent, name):
            if record.type == "directory":
                os.mkdir(name, 0o700, dir_fd=parent)
            elif record.type == "hardlink":
                self._link(parent, name, record)
            elif record.type == "fifo":
                os.mkfifo(name, 0o600, dir_fd=parent)
                _set_metadata(parent, name, record)
            else:
                self._write(archive, member, parent, name, expected)
                _set_metadata(parent, name, record)
                self._files.add(path)

    def _link(self, parent: int, name: bytes, record: FileRecord) -> None:
        if record.target not in self._files:
            raise _damaged(f"links {shown(record.path)} to {shown(record.target)}")
        with parent_of(self.root, record.target) as (other_parent, other):
            os.link(
                other,
                name,
                src_dir_fd=other_parent,
                dst_dir_fd=parent,
                follow_symlinks=False,
            )

    def _write(
        self,
        archive: tarfile.TarFile,
        member: tarfile.TarInfo,
        parent: int,
        name: bytes,
        expected: FileRecord,
    ) -> None:
        content = archive.extractfile(member)
        assert content is not None  # it is a file
        descriptor = os.open(name, _NEW, 0o600, dir_fd=parent)
        with content, open(descriptor, "wb", buffering=0) as file:
            for offset, block in _blocks(content, member.size):
                if expected.sparse and block == _ZEROS[: len(block)]:
                    continue
                file.seek(offset)
                _write_all(file, block)
            file.truncate(member.size)


def _blocks(content: IO[bytes], size_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Yield a file in pieces small enough to find holes in, and their places."""
    offset = 0
    while offset < size_bytes:
        block = content.read(min(len(_ZEROS), size_bytes - offset))
        if not block:
            raise _damaged("is cut short")
        yield offset, block
        offset += len(block)


def _write_all(file: IO[bytes], block: bytes) -> None:
    view = memoryview(block)
    while view:
        view = view[file.write(view) :]


def _record(path: str, member: tarfile.TarInfo) -> FileRecord:
    kind = _TYPES.get(member.type)
    if kind is None and member.sparse is not None:
        kind = "file"
    if kind is None:
        raise _damaged(f"holds {shown(path)} as neither file, directory nor link")
    return FileRecord.model_construct(
        path=path,
        type=kind,
        mode=member.mode & 0o7777,
        uid=member.uid,
        gid=member.gid,
        mtime_ns=_nanoseconds(member),
        size_bytes=member.size if kind == "file" else 0,
        target=member.linkname,
    )


def _nanoseconds(member: tarfile.TarInfo) -> int:
    text = member.pax_headers.get("mtime", str(int(member.mtime)))
    sign = -1 if text.startswith("-") else 1
    whole, _point, rest = text.lstrip("-").partition(".")
    return sign * (int(whole) * 10**9 + int(rest[:9].ljust(9, "0")))


def _set_metadata(parent: int, name: bytes, record: FileRecord) -> None:
    """Set owner, mode and time of an entry; of a folder once everything is in it."""
    with named(record.path):
        is_owned = _set_owner(parent, name, record)
        if record.type != "symlink":  # its mode means nothing
            mode = record.mode if is_owned else record.mode & ~LENDING_BITS
            os.chmod(name, mode, dir_fd=parent)
        times = (record.mtime_ns, record.mtime_ns)
        os.utime(name, ns=times, dir_fd=parent, follow_symlinks=False)


def _set_owner(parent: int, name: bytes, record: FileRecord) -> bool:
    """Give an entry to its owner; return whether this user may do that."""
    try:
        os.chown(name, record.uid, record.gid, dir_fd=parent, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NOT_PERMITTED:
            raise
        return False
    return True


def _damaged(how: str) -> IntegrityError:
    return IntegrityError(f"the archive {how}", hint=HINT)


@contextlib.contextmanager
def _translated(target: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, ValueError, EOFError, OverflowError) as error:
        raise _damaged(f"cannot be read: {error}") from error
    except OSError as error:
        place = error.filename or b""
        path = decoded(place) if isinstance(place, bytes) else str(place)
        raise StoreError(
            f"{shown(path or str(target))} cannot be written: {error.strerror}",
            hint="Check the rights and the free space there, then run it again.",
        ) from error
