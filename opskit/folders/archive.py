"""The pax archive of a folder, entry by entry; holes are stored as GNU tar does.

Each file is read so that what is stored was the file at one moment.
"""

from __future__ import annotations

import contextlib
import errno
import grp
import hashlib
import os
import pwd
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import IO

from opskit.catalog.file_record import FileRecord, FileType, describe, file_type
from opskit.errors import BackupFailed
from opskit.folders import tree
from opskit.folders.tree import Entry, named

SPOOL_BYTES_MAX = 8 * 1024 * 1024
_PIECE_BYTES = 64 * 1024
_ZEROS = bytes(_PIECE_BYTES)
_SEGMENTS_MAX = 10_000
# The clock of a file system moves in steps of up to 10 ms: a file that was written less
# than a step ago could be written again without a trace.
_STEP_NS = 20_000_000
# What opening says of a link or a socket that has taken a file's place.
_REPLACED = (errno.ELOOP, errno.ENXIO)

State = tuple[int, ...]


class Changed(Exception):
    """The entry is not what it was a moment ago: read it again."""


@dataclass(frozen=True)
class Content:
    """A file as it was at one moment.

    `segments` are offset and length of what `spool` holds, one after the other; the
    rest of the file is zeros, which were holes.
    """

    stat: os.stat_result
    sha256: str
    segments: tuple[tuple[int, int], ...]
    spool: IO[bytes]
    has_attributes: bool

    @property
    def sparse(self) -> bool:
        """Whether parts of the file are left out."""
        return sum(length for _at, length in self.segments) < self.stat.st_size

    def blocks(self) -> Iterator[bytes]:
        self.spool.seek(0)
        while block := self.spool.read(tree.BLOCK_BYTES):
            yield block


@contextlib.contextmanager
def unchanged(
    entry: Entry, *, spool_dir: Path | None, is_locked: bool
) -> Iterator[Content]:
    """Read a file to its end and yield what it held.

    Up to 8 MiB are held in memory, more in an unnamed file in `spool_dir`. Unless
    `is_locked` says that a lock keeps its writers away, the file is read twice: a
    write through a memory mapping changes no time that could give it away.

    Raises:
        Changed: it was written to, or is no file any more.
        BackupFailed: there is no space to spool it.
        OSError: as the system says, with the path in the tree.
    """
    place = None if spool_dir is None else str(spool_dir)
    with (
        _opened(entry) as descriptor,
        tempfile.SpooledTemporaryFile(SPOOL_BYTES_MAX, dir=place) as spool,
    ):
        before = os.fstat(descriptor)
        if file_type(before.st_mode) != "file":
            raise Changed
        _settle(before)
        digest = hashlib.sha256()
        segments: list[tuple[int, int]] = []
        size_bytes = 0
        has_holes = before.st_blocks * 512 < before.st_size
        for block in _blocks(entry, descriptor, before.st_size):
            digest.update(block)
            with _spooling(spool_dir):
                if has_holes:
                    _keep(block, size_bytes, segments, spool)
                else:
                    spool.write(block)
            size_bytes += len(block)
        if not has_holes and size_bytes:
            segments = [(0, size_bytes)]
        has_attributes = bool(extended_attributes(descriptor))
        if size_bytes != before.st_size or not _same(before, os.fstat(descriptor)):
            raise Changed
        sha256 = digest.hexdigest()
        if not is_locked:
            with named(entry.path):
                if sha256 != tree.sha256(descriptor, size_bytes):
                    raise Changed
        yield Content(before, sha256, tuple(segments), spool, has_attributes)


@contextlib.contextmanager
def _opened(entry: Entry) -> Iterator[int]:
    with contextlib.ExitStack() as stack:
        try:
            opened = stack.enter_context(entry.opened())
        except OSError as error:
            if error.errno in _REPLACED:
                raise Changed from error
            raise
        yield opened


@contextlib.contextmanager
def _spooling(spool_dir: Path | None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        place = spool_dir or tempfile.gettempdir()
        raise BackupFailed(
            f"{place} cannot hold a file while it is read: {error.strerror}",
            hint="Free some space there, or set TMPDIR to a larger file system.",
        ) from error


def _blocks(entry: Entry, descriptor: int, size_bytes: int) -> Iterator[bytes]:
    with named(entry.path):
        yield from tree.blocks(descriptor, size_bytes)


def _keep(
    block: bytes, offset: int, segments: list[tuple[int, int]], spool: IO[bytes]
) -> None:
    """Spool what is not zeros; the system is not asked where holes are, but checked."""
    for start in range(0, len(block), _PIECE_BYTES):
        piece = block[start : start + _PIECE_BYTES]
        is_next = bool(segments) and sum(segments[-1]) == offset + start
        if piece == _ZEROS[: len(piece)] and len(segments) < _SEGMENTS_MAX:
            continue
        spool.write(piece)
        if is_next:
            segments[-1] = (segments[-1][0], segments[-1][1] + len(piece))
        else:
            segments.append((offset + start, len(piece)))


def _settle(found: os.stat_result) -> None:
    age_ns = time.time_ns() - found.st_ctime_ns
    if 0 <= age_ns < _STEP_NS:
        time.sleep((_STEP_NS - age_ns) / 1e9)


def _same(before: os.stat_result, after: os.stat_result) -> bool:
    """Return whether nobody has written to an open file, or changed its mode.

    A file that has lost its name, as when it is replaced by a rename, is whole.
    """
    if after.st_nlink < before.st_nlink:
        return state(before)[:-1] == state(after)[:-1]  # all but the time of that
    return state(before) == state(after)


def state(found: os.stat_result) -> State:
    """Return what any change of an entry changes."""
    return (
        found.st_dev,
        found.st_ino,
        found.st_mode,
        found.st_size,
        found.st_mtime_ns,
        found.st_ctime_ns,
    )


def extended_attributes(descriptor: int) -> tuple[str, ...]:
    """Return the names of attributes that somebody has set, as ACLs are."""
    if not hasattr(os, "listxattr"):
        return ()
    try:
        names = os.listxattr(descriptor)
    except OSError:
        return ()  # this file system has none
    return tuple(each for each in names if each != "security.selinux")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """An entry as it was at one moment; files alone have a content."""

    record: FileRecord
    state: State
    has_attributes: bool = False
    content: Content | None = None


@dataclass(kw_only=True)
class Links:
    """Files with several names, by the name that was read first."""

    _known: dict[tuple[int, int], tuple[str, State]] = field(default_factory=dict)

    def first(self, found: os.stat_result) -> str | None:
        """Return the name that a file was read by, if it is still as it was then."""
        path, then = self._known.get((found.st_dev, found.st_ino), (None, ()))
        return path if then == state(found) else None

    def add(self, path: str, found: os.stat_result) -> None:
        if found.st_nlink > 1:
            self._known[found.st_dev, found.st_ino] = (path, state(found))


@contextlib.contextmanager
def reading(
    entry: Entry, *, links: Links, spool_dir: Path | None, is_locked: bool
) -> Iterator[Reading | None]:
    """Read an entry; yield None for sockets and devices, which cannot be stored.

    `is_locked` says that a lock keeps the writers of files away.

    Raises:
        Changed: it changed while it was read.
        OSError: as the system says, with the path in the tree.
    """
    found = entry.look()
    kind = file_type(found.st_mode)
    first = links.first(found) if kind == "file" else None
    if kind is None:
        yield None
    elif first is not None:
        yield _reading(entry, found, target=first, is_hardlink=True)
    elif kind == "file":
        with unchanged(entry, spool_dir=spool_dir, is_locked=is_locked) as content:
            links.add(entry.path, content.stat)
            yield _reading(entry, content.stat, content)
    elif kind == "symlink":
        read = _reading(entry, found, target=_target(entry))
        if state(entry.look()) != read.state:
            raise Changed
        yield read
    else:
        is_labelled = kind == "directory" and extended_attributes(entry.directory)
        yield replace(_reading(entry, found), has_attributes=bool(is_labelled))


def _target(entry: Entry) -> str:
    try:
        return entry.read_link()
    except OSError as error:
        if error.errno == errno.EINVAL:  # no link any more
            raise Changed from error
        raise


def _reading(
    entry: Entry,
    found: os.stat_result,
    content: Content | None = None,
    *,
    target: str = "",
    is_hardlink: bool = False,
) -> Reading:
    record = describe(
        entry.path,
        found,
        sha256=content.sha256 if content else "",
        target=target,
        is_hardlink=is_hardlink,
        sparse=content is not None and content.sparse,
        owner=_owner(found.st_uid),
        group=_group(found.st_gid),
    )
    return Reading(
        record=record,
        state=state(found),
        has_attributes=content is not None and content.has_attributes,
        content=content,
    )


@cache
def _owner(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return ""


@cache
def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except (KeyError, OverflowError):
        return ""


# The header of a sparse member holds 12 digits in octal for the data that is stored.
_SPARSE_BYTES_MAX = 8 * 1024**3 - 1024**2
_TYPES: dict[FileType, bytes] = {
    "file": tarfile.REGTYPE,
    "directory": tarfile.DIRTYPE,
    "symlink": tarfile.SYMTYPE,
    "hardlink": tarfile.LNKTYPE,
    "fifo": tarfile.FIFOTYPE,
}


def member(record: FileRecord, content: Content | None = None) -> Iterator[bytes]:
    info = _header(record)
    if content is None:
        yield _written(info)
        return
    stored_bytes = sum(length for _at, length in content.segments)
    if not content.sparse or stored_bytes > _SPARSE_BYTES_MAX:
        info.size = record.size_bytes
        yield _written(info)
        yield from _filled(content)
        yield _padding(info.size)
        return
    the_map = _map(content)
    info.pax_headers = {
        **info.pax_headers,
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": record.path,
        "GNU.sparse.realsize": str(record.size_bytes),
    }
    # The name is for programs that know no sparse members; they cannot use the content.
    info.name = "GNUSparseFile.0/member"
    info.size = len(the_map) + stored_bytes
    yield _written(info)
    yield the_map
    yield from content.blocks()
    yield _padding(info.size)


def end(size_bytes: int) -> bytes:
    """Return what ends an archive that is as long as this, up to a full record."""
    zeros = 2 * tarfile.BLOCKSIZE
    return bytes(zeros + -(size_bytes + zeros) % tarfile.RECORDSIZE)


def _header(record: FileRecord) -> tarfile.TarInfo:
    info = tarfile.TarInfo(record.path)
    info.type = _TYPES[record.type]
    info.mode = record.mode
    info.uid, info.gid = record.uid, record.gid
    info.uname, info.gname = record.owner, record.group
    info.linkname = record.target
    # Exact, where the field of the header holds whole seconds.
    info.mtime = record.mtime_ns // 10**9
    info.pax_headers = {"mtime": _seconds(record.mtime_ns)}
    return info


def _seconds(nanoseconds: int) -> str:
    sign = "-" if nanoseconds < 0 else ""
    whole, rest = divmod(abs(nanoseconds), 10**9)
    return f"{sign}{whole}.{rest:09d}"


def _written(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.PAX_FORMAT, encoding="utf-8", errors="surrogateescape")


def _map(content: Content) -> bytes:
    """Return the list of segments in GNU's form 1.0, which ends where the file does."""
    segments = list(content.segments)
    if not segments or sum(segments[-1]) < content.stat.st_size:
        segments.append((content.stat.st_size, 0))
    numbers = [len(segments), *(number for each in segments for number in each)]
    text = "".join(f"{number}\n" for number in numbers).encode()
    return text + _padding(len(text))


def _filled(content: Content) -> Iterator[bytes]:
    """Yield the whole file, holes as zeros."""
    content.spool.seek(0)
    position = 0
    for offset, length in (*content.segments, (content.stat.st_size, 0)):
        yield from _zeros(offset - position)
        position = offset + length
        while length:
            block = content.spool.read(min(1024**2, length))
            assert block, "the spool is shorter than its segments"
            length -= len(block)
            yield block


def _zeros(size_bytes: int) -> Iterator[bytes]:
    while size_bytes > 0:
        yield bytes(min(1024**2, size_bytes))
        size_bytes -= 1024**2


def _padding(size_bytes: int) -> bytes:
    return bytes(-size_bytes % tarfile.BLOCKSIZE)
