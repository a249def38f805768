"""The pax archive of a folder, entry by entry; holes are stored as GNU tar does."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator

from opskit.catalog.file_record import FileRecord, FileType
from opskit.folders.reading import Content

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
    """Yield header and content of a member."""
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
    if not content.sparse:
        yield from content.blocks()
        return
    content.spool.seek(0)
    position = 0
    for offset, length in content.segments:
        yield from _zeros(offset - position)
        left = length
        while left:
            block = content.spool.read(min(1024**2, left))
            assert block, "the spool is shorter than its segments"
            left -= len(block)
            yield block
        position = offset + length
    yield from _zeros(content.stat.st_size - position)


def _zeros(size_bytes: int) -> Iterator[bytes]:
    while size_bytes > 0:
        yield bytes(min(1024**2, size_bytes))
        size_bytes -= 1024**2


def _padding(size_bytes: int) -> bytes:
    return bytes(-size_bytes % tarfile.BLOCKSIZE)
