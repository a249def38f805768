"""A file that several dumps are unpacked into at once, as one archive."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from opskit.catalog.reader import HINT
from opskit.errors import ArchiveError, IntegrityError
from opskit.postgres.archive.places import ArchivePlaces
from opskit.postgres.archive_joined import JoinedHead, Part
from opskit.restore.written_behind import WrittenBehind, written_behind

if TYPE_CHECKING:
    from typing_extensions import Buffer

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
        """Yield what takes the bytes of one dump; each needs a thread of its own.

        Raises:
            IntegrityError: the dump is not what the others, or its size, say.
            OSError: the disk does not take it.
        """
        with self._path.open("r+b") as file, written_behind(file) as behind:
            yield PartOfFile(
                file,
                behind,
                places=self._places[number],
                size_bytes=self._sizes[number],
                arrive=lambda part: self._arrive(number, part),
            )

    def abandon(self) -> None:
        """Let nobody wait for heads any longer."""
        with self._changed:
            self._is_abandoned = True
            self._changed.notify_all()

    def finish(self) -> None:
        """Write the head, once every part has been written.

        Raises:
            IntegrityError: data that the heads promise did not come.
            OSError: the disk does not take it.
        """
        assert self._joined is not None
        with self._path.open("r+b") as file:
            try:
                self._joined.write(
                    file,
                    starts=self._starts,
                    found=[each.found for each in self._places],
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
    """Takes the bytes of one dump."""

    def __init__(
        self,
        file: BinaryIO,
        behind: WrittenBehind,
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
        """See `io.RawIOBase.writable`."""
        return True

    def write(self, data: Buffer, /) -> int:
        """Take the next bytes; waits for the heads of the others behind its own.

        Raises:
            IntegrityError: they are more than there should be, or no archive.
            OSError: earlier ones could not be written.
        """
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
        """Check that all bytes have come, of what the message calls `name`.

        Raises:
            IntegrityError: some are missing, or it is no archive.
        """
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
