"""Unpacks the dump of a set into one archive that pg_restore reads in any order."""

from __future__ import annotations

import functools
import io
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import zstandard

from opskit import workspace
from opskit.catalog.manifest import StoredObject, of_database
from opskit.catalog.reader import HINT, SetReader, with_checksum
from opskit.crypto.keys import NoMatchingIdentity
from opskit.errors import ArchiveError, DatabaseError, IntegrityError
from opskit.postgres.archive.places import ArchivePlaces, JoinedHead, Part
from opskit.threads import Feed, together
from opskit.workspace import Limits

if TYPE_CHECKING:
    from typing_extensions import Buffer

_QUEUED_BLOCKS_MAX = 8


class WriteBehind(Feed):
    """Writes blocks in a thread of its own; when the block ends all are written.

    Raises:
        OSError: something could not be written.
    """

    def __init__(self, write: Callable[[bytes], object]) -> None:
        def work(blocks: Iterator[bytes]) -> None:
            for block in blocks:
                write(block)

        super().__init__(work, name="writer", blocks_max=_QUEUED_BLOCKS_MAX)

    def __enter__(self) -> WriteBehind:
        return self

    def __exit__(self, kind: object, *_error: object) -> None:
        if kind is not None:
            self.abandon()
        else:
            self.finish()
            self._require_well()

    def write(self, block: bytes) -> None:
        """Hand on a block; waits while the file is behind."""
        self._require_well()
        self.put(block)

    def _require_well(self) -> None:
        if self.error is not None:
            raise self.error


# For the heads of the others: a store that gives nothing at all fails before that.
_HEADS_SECONDS_MAX = 900.0


class JoinedFile:
    """Lays the dumps out once all heads have come, so that none is written twice.

    Args:
        path: an empty file.
        sizes: bytes of each dump, the catch-all first.
    """

    def __init__(self, path: Path, sizes: Sequence[int]) -> None:
        self._path, self._sizes = path, sizes
        self._places = [ArchivePlaces() for _ in sizes]
        self._heads: dict[int, Part] = {}
        self._joined: JoinedHead | None = None
        self._starts: list[int] = []
        self._is_abandoned = False
        self._changed = threading.Condition()

    @contextmanager
    def part(self, number: int) -> Iterator[PartOfFile]:
        """Yield what takes the bytes of one dump; each needs a thread of its own."""
        with self._path.open("r+b") as file, WriteBehind(file.write) as behind:
            yield PartOfFile(
                file,
                behind,
                places=self._places[number],
                size_bytes=self._sizes[number],
                arrive=lambda part: self._arrive(number, part),
            )

    def abandon(self) -> None:
        with self._changed:
            self._is_abandoned = True
            self._changed.notify_all()

    def finish(self) -> None:
        """Write the head, once every part has been written."""
        assert self._joined is not None
        with self._path.open("r+b") as file:
            try:
                self._joined.write(
                    file,
                    starts=self._starts,
                    offsets=[each.offsets for each in self._places],
                )
            except ArchiveError as error:
                raise _damaged(error) from error

    def _arrive(self, number: int, part: Part) -> int:
        """Take a head, wait for the others, and return where the data goes."""
        with self._changed:
            self._heads[number] = part
            if len(self._heads) == len(self._sizes):
                self._lay_out()
                self._changed.notify_all()
            self._changed.wait_for(
                lambda: self._starts or self._is_abandoned, _HEADS_SECONDS_MAX
            )
            if not self._starts:
                raise IntegrityError("the set's other dumps cannot be read", hint=HINT)
            return self._starts[number]

    def _lay_out(self) -> None:
        parts = [self._heads[number] for number in range(len(self._sizes))]
        try:
            self._joined = JoinedHead(parts)
        except ArchiveError as error:
            raise _damaged(error) from error
        start = self._joined.size_bytes
        for part, size_bytes in zip(parts, self._sizes, strict=True):
            self._starts.append(start)
            start += size_bytes - part.contents.data_offset


class PartOfFile(io.RawIOBase):
    def __init__(
        self,
        file: BinaryIO,
        behind: WriteBehind,
        *,
        places: ArchivePlaces,
        size_bytes: int,
        arrive: Callable[[Part], int],
    ) -> None:
        self._file, self._behind = file, behind
        self._places = places
        self._size_bytes = size_bytes
        self._arrive = arrive
        self._taken_bytes = 0
        self._held: bytearray | None = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Buffer, /) -> int:
        """Take the next bytes; waits for the heads of the others behind its own."""
        block = bytes(data)
        self._taken_bytes += len(block)
        if self._taken_bytes > self._size_bytes:
            raise IntegrityError(
                f"it unpacks to more than the {self._size_bytes} bytes that the "
                "manifest says",
                hint=HINT,
            )
        self._places.feed(block)
        if self._held is None:
            self._behind.write(block)
        else:
            self._held += block
            self._begin(self._held)
        return len(block)

    def finish(self, name: str) -> None:
        """Check that all bytes have come, of what the message calls `name`."""
        if self._taken_bytes != self._size_bytes:
            raise IntegrityError(
                f"{name} unpacks to {self._taken_bytes} bytes where the manifest says "
                f"{self._size_bytes}",
                hint=HINT,
            )
        self._places.close()
        if self._held is not None:
            self._begin(self._held)

    def _begin(self, held: bytearray) -> None:
        contents = self._places.contents
        if contents is not None:
            head, rest = held[: contents.data_offset], held[contents.data_offset :]
            self._file.seek(self._arrive(Part(head=bytes(head), contents=contents)))
            self._behind.write(bytes(rest))
            self._held = None
        elif self._places.is_lost:
            raise IntegrityError("it is no archive that pg_dump wrote", hint=HINT)


def _damaged(error: ArchiveError) -> IntegrityError:
    return IntegrityError(f"the dumps of the set do not fit: {error}", hint=HINT)


# Of what is unpacked, at once.
_UNPACKED_BYTES = 512 * 1024


def unpack_dump(reader: SetReader, target: Path) -> None:
    """Write a set's archive to a file, uncompressed, the places of its data filled in.

    The dumps of a set that has several are read at once, and joined.

    Raises:
        IntegrityError: an object is missing, or not what the manifest says.
        DatabaseError: the disk does not take it.
    """
    manifest = of_database(reader.manifest)
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
    with target.open("wb") as file:

        def write(block: bytes) -> None:
            # In the thread that writes, beside the one that unpacks and digests.
            places.feed(block)
            file.write(block)

        with WriteBehind(write) as behind:
            limited = _Behind(behind, reader.manifest.dump_bytes)
            _unpack_into(reader, stored, limited)
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
    sizes = of_database(reader.manifest).dump_bytes_of
    joined = JoinedFile(target, [sizes[each.role] for each in dumps])

    def unpack(number: int) -> None:
        with joined.part(number) as part:
            _unpack_into(reader, dumps[number], part)
            part.finish(dumps[number].key)

    jobs = [functools.partial(unpack, number) for number in range(len(dumps))]
    try:
        together(jobs, stop=joined.abandon)
    except NoMatchingIdentity:
        # Damage looks the same, and is reported whichever dump it is in.
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


class _Behind(io.RawIOBase):
    """What zstd takes for a file; it takes no more bytes than the manifest says."""

    def __init__(self, behind: WriteBehind, bytes_max: int) -> None:
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


KIND = "restore"


@contextmanager
def folder(limits: Limits, needed_bytes: int = 0) -> Iterator[Path]:
    """Sweep what killed runs left, then yield a private folder for an unpacked dump.

    Raises:
        DatabaseError: there is not enough room for `needed_bytes` and what else the
            limits name.
    """
    workspace.sweep(KIND, base=limits.work_dir)
    with workspace.throwaway(KIND, base=limits.work_dir) as path:
        _require_room(path, needed_bytes + limits.room_bytes)
        yield path


def _require_room(path: Path, needed_bytes: int) -> None:
    """Refuse early what would fill the disk half-way."""
    free_bytes = shutil.disk_usage(path).free
    if free_bytes < needed_bytes:
        raise DatabaseError(
            f"{path} has {free_bytes // 2**20} MiB free, the restore needs about "
            f"{needed_bytes // 2**20} MiB",
            hint="Free some space, or set [drill] work_dir to a larger file system.",
        )
