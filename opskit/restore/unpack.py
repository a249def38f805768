"""Unpacks the dump of a set into one archive that pg_restore reads in any order."""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import zstandard

from opskit.catalog.manifest import StoredObject
from opskit.catalog.reader import HINT, SetReader, with_checksum
from opskit.crypto.keys import NoMatchingIdentity
from opskit.errors import DatabaseError, IntegrityError
from opskit.postgres.archive.places import ArchivePlaces
from opskit.restore.joined_file import JoinedFile
from opskit.restore.written_behind import WrittenBehind, written_behind
from opskit.threads import together

if TYPE_CHECKING:
    from typing_extensions import Buffer

# Of what is unpacked, at once.
_UNPACKED_BYTES = 512 * 1024


def unpack_dump(reader: SetReader, target: Path) -> None:
    """Write a set's archive to a file, uncompressed, the places of its data filled in.

    The dumps of a set that has several are read at once, and joined.

    Raises:
        IntegrityError: an object is missing, or not what the manifest says.
        DatabaseError: the disk does not take it.
    """
    manifest = reader.manifest
    dumps = [manifest.object(role) for role in manifest.dump_bytes_of]
    try:
        target.write_bytes(b"")
        if len(dumps) == 1:
            _unpack_one(reader, dumps[0], target)
        else:
            _unpack_all(reader, dumps, target)
    except OSError as error:
        raise DatabaseError(
            f"the dump cannot be unpacked to {target}: {error.strerror}",
            hint="Free some space, or set work_dir in [drill] to a larger one.",
        ) from error


def _unpack_one(reader: SetReader, stored: StoredObject, target: Path) -> None:
    places = ArchivePlaces()
    with (
        target.open("wb") as file,
        # In the thread that writes, beside the one that unpacks and digests.
        written_behind(_LookedThrough(file, places)) as behind,
    ):
        _unpack_into(reader, stored, _Behind(behind, reader.manifest.dump_bytes))
    places.close()
    places.write(target)
    size_bytes = target.stat().st_size
    if size_bytes != reader.manifest.dump_bytes:
        raise IntegrityError(
            f"{stored.key} unpacks to {size_bytes} bytes where the manifest says "
            f"{reader.manifest.dump_bytes}",
            hint=HINT,
        )


def _unpack_all(reader: SetReader, dumps: Sequence[StoredObject], target: Path) -> None:
    sizes = reader.manifest.dump_bytes_of
    joined = JoinedFile(target, [sizes[each.role] for each in dumps])

    def unpack(number: int) -> None:
        with joined.part(number) as part:
            _unpack_into(reader, dumps[number], part)
            part.finish(dumps[number].key)

    jobs = [functools.partial(unpack, number) for number in range(len(dumps))]
    try:
        together(jobs, stop=joined.abandon)
    except NoMatchingIdentity:
        # Damage looks the same, and has to be told whichever dump it is in.
        for each in dumps:
            reader.check(each)
        raise
    joined.finish()


def _unpack_into(reader: SetReader, stored: StoredObject, file: io.RawIOBase) -> None:
    with reader.plain(stored) as blocks:
        writer = zstandard.ZstdDecompressor().stream_writer(
            cast(BinaryIO, file), write_size=_UNPACKED_BYTES, closefd=False
        )
        for block in with_checksum(blocks):
            writer.write(block)
        writer.flush()  # type: ignore[no-untyped-call]  # its stub has no types


class _LookedThrough:
    """A file for an archive; what is written to it is looked through for places."""

    def __init__(self, file: BinaryIO, places: ArchivePlaces) -> None:
        self._file, self._places = file, places

    def write(self, block: bytes) -> object:
        self._places.feed(block)
        return self._file.write(block)


class _Behind(io.RawIOBase):
    """What zstd takes for a file; it takes no more bytes than the manifest says."""

    def __init__(self, behind: WrittenBehind, bytes_max: int) -> None:
        self._behind, self._left = behind, bytes_max

    def writable(self) -> bool:
        return True

    def write(self, data: Buffer, /) -> int:
        block = bytes(data)
        self._left -= len(block)
        if self._left < 0:
            raise IntegrityError(
                "it unpacks to more bytes than the manifest says", hint=HINT
            )
        self._behind.write(block)
        return len(block)
