"""Reads the head of an archive whose bytes come in pieces."""

from __future__ import annotations

from opskit.errors import ArchiveError
from opskit.postgres.archive import toc
from opskit.postgres.archive.toc import Contents
from opskit.postgres.archive_cursor import NeedMore

CUT_SHORT = "the archive ends before its proper end"


# From one try to the next: enough to be worth it, and no more than may be held for
# nothing where the guess was wrong.
_GROWTH = (1.25, 8)


class HeadReader:
    """Fed until the head has come as a whole."""

    def __init__(self) -> None:
        self._contents: Contents | None = None
        self._bytes = bytearray()
        self._target = 1

    @property
    def is_done(self) -> bool:
        """Whether the head has come by as a whole."""
        return self._contents is not None

    @property
    def contents(self) -> Contents:
        """The head.

        Raises:
            ArchiveError: the bytes fed so far do not reach its end.
        """
        if self._contents is None:
            raise ArchiveError(CUT_SHORT)
        return self._contents

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes; return those that came behind the head's end.

        Reading starts over each time a good part more has come, so that even a head of
        many megabytes costs only a small multiple of its size.

        Raises:
            ArchiveError: they are not what the format allows here.
        """
        self._bytes += data
        return self._read() if len(self._bytes) >= self._target else b""

    def close(self) -> bytes:
        """Read what has come if that was not yet done; returns what `feed` does."""
        return b"" if self.is_done else self._read()

    def _read(self) -> bytes:
        try:
            self._contents = toc.parse(self._bytes)
        except NeedMore as need:
            least, most = (int(len(self._bytes) * each) + 1 for each in _GROWTH)
            self._target = min(max(least, need.needed_bytes), most)
            return b""
        rest = bytes(self._bytes[self._contents.data_offset :])
        self._bytes = bytearray()
        return rest
