"""The copy of a folder: extracted from its archive, compared with the set's records."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, BinaryIO

from opskit.catalog.file_record import (
    ROOT,
    FileRecord,
    FileType,
    describe,
    file_type,
    is_beneath,
    listed,
    shown,
)
from opskit.catalog.reader import HINT
from opskit.checks import Check
from opskit.errors import IntegrityError, StoreError
from opskit.folders.tree import (
    BLOCK_BYTES,
    Entry,
    decoded,
    encoded,
    named,
    open_root,
    parent_of,
    sha256,
    walk,
)

# Set-user-id and set-group-id: they must not give the rights of another owner.
LENDING_BITS = 0o6000
# Not root, or root in a container that has no such user or lacks the right.
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
    with open_root(target) as root, _translated(target):
        _Extraction(root, records).run(tar_stream)


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
        offset = 0
        with content, open(descriptor, "wb", buffering=0) as file:
            while offset < member.size:
                # In pieces small enough to find holes in.
                block = content.read(min(len(_ZEROS), member.size - offset))
                if not block:
                    raise _damaged("is cut short")
                if not (expected.sparse and block == _ZEROS[: len(block)]):
                    file.seek(offset)
                    _write_all(file, block)
                offset += len(block)
            file.truncate(member.size)


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


def may_give(uid: int, gid: int) -> bool:
    """Return whether this user may give entries to an owner.

    Even root may not everywhere: a container may have no such user, or root in it no
    right to do that. So it is tried.
    """
    return os.geteuid() == 0 and _can_give(uid, gid)


@functools.cache
def _can_give(uid: int, gid: int) -> bool:
    with tempfile.TemporaryFile() as file:
        try:
            os.fchown(file.fileno(), uid, gid)
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


NAME = "files"
_SHOWN_MAX = 100
_FIELDS = ("type", "mode", "mtime_ns", "size_bytes", "sha256", "target")


def compare(
    target: Path,
    records: Sequence[FileRecord],
    *,
    known: Mapping[str, str] | None = None,
) -> list[Check]:
    """Return a check of the whole, and a failed one for each entry that differs.

    Names, types, modes, owners, times, contents and links are compared; an owner that
    this user may not set is only listed. At most 100 entries that differ
    have a check of their own. `known` holds digests, by path, of files that need not be
    read again.

    Raises:
        StoreError: the directory cannot be read.
    """
    left = {record.path: record for record in records}
    differing: dict[str, str] = {}
    foreign: list[str] = []
    links: dict[tuple[int, int], str] = {}
    with _unreadable(target), open_root(target) as root:
        for entry in walk(root):
            record = left.pop(entry.path, None)
            if record is None:
                differing[entry.path] = "is not in the set"
                continue
            observed = _observe(entry, links, known or {})
            if observed is not None and _is_foreign(record, observed):
                foreign.append(entry.path)
            if difference := _differences(record, observed):
                differing[entry.path] = difference
    differing |= dict.fromkeys(left, "is missing")
    return _checks(len(records), differing, foreign)


@contextlib.contextmanager
def _unreadable(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        within = shown(str(error.filename))
        what = target if within == str(target) else f"{within} in {target}"
        raise StoreError(
            f"{what} cannot be read: {error.strerror}",
            hint="Run this as a user who may read the copy, such as root.",
        ) from error


def _observe(
    entry: Entry, links: dict[tuple[int, int], str], known: Mapping[str, str]
) -> FileRecord | None:
    """Return the record of an entry as it is; None for sockets and devices."""
    status = entry.stat
    kind = file_type(status.st_mode)
    if kind is None:
        return None
    if kind == "symlink":
        return describe(entry.path, status, target=entry.read_link())
    if kind != "file":
        return describe(entry.path, status)
    first = links.setdefault((status.st_dev, status.st_ino), entry.path)
    if first != entry.path:
        return describe(entry.path, status, target=first, is_hardlink=True)
    digest = known.get(entry.path) or _digest(entry)
    return describe(entry.path, status, sha256=digest)


def _digest(entry: Entry) -> str:
    with entry.opened() as descriptor, named(entry.path):
        return sha256(descriptor, entry.stat.st_size)


def _is_foreign(record: FileRecord, observed: FileRecord) -> bool:
    """Return whether the owner is another, and this user could not make it right."""
    owners = (observed.uid, observed.gid) == (record.uid, record.gid)
    return not owners and not may_give(record.uid, record.gid)


def _differences(record: FileRecord, observed: FileRecord | None) -> str:
    if observed is None:
        return f"type: a {record.type} is expected, a socket or a device is there"
    names = [name for name in _FIELDS if name != "mode"]
    if record.type != "symlink":  # its mode means nothing
        names.append("mode")
    if not _is_foreign(record, observed):
        names += ["uid", "gid"]
    else:
        record = record.model_copy(update={"mode": record.mode & ~LENDING_BITS})
    return "; ".join(
        f"{name}: {_value(record, name)} is expected, {_value(observed, name)} is there"
        for name in names
        if getattr(record, name) != getattr(observed, name)
    )


def _value(record: FileRecord, name: str) -> str:
    value = getattr(record, name)
    if name == "mode":
        return f"{value:04o}"
    return shown(str(value)) or "none"


def _checks(
    number: int, differing: Mapping[str, str], foreign: list[str]
) -> list[Check]:
    details = ["names, types, modes, owners, times, contents, links"]
    if foreign:
        details.append(
            "this user may not set the owner, which was not compared: "
            f"{listed(foreign)}"
        )
    if not number:
        details.append("the set names no entry at all")
    equal, paths = f"{number} equal entries", sorted(differing)
    whole = Check(
        name=NAME,
        passed=not differing and number > 0,
        expected=equal if number else "at least the folder",
        observed=f"{len(paths)} differ" if paths else equal,
        detail="; ".join(details),
    )
    return [
        whole,
        *(
            Check(
                name=f"file {shown(path)}",
                passed=False,
                expected="as in the set",
                observed="different",
                detail=differing[path],
            )
            for path in paths[:_SHOWN_MAX]
        ),
    ]
