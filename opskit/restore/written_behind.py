"""A file that is written by a thread of its own, while the next bytes are made."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from queue import Queue
from typing import Protocol

_QUEUED_BLOCKS_MAX = 8


class Writable(Protocol):
    """As much of a file as is needed."""

    def write(self, block: bytes, /) -> object:
        """Write a block.

        Raises:
            OSError: it could not be written.
        """


class WrittenBehind:
    """Takes blocks for a file; see `written_behind`."""

    def __init__(self, file: Writable) -> None:
        self._file = file
        self._blocks: Queue[bytes | None] = Queue(_QUEUED_BLOCKS_MAX)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    def write(self, block: bytes) -> None:
        """Hand on a block; waits while the file is behind.

        Raises:
            OSError: an earlier one could not be written.
        """
        if self._error is not None:
            raise self._error
        self._blocks.put(block)

    def finish(self) -> None:
        """Wait until everything is written.

        Raises:
            OSError: something could not be.
        """
        self._blocks.put(None)
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while (block := self._blocks.get()) is not None:
            if self._error is None:
                try:
                    self._file.write(block)
                except BaseException as error:  # noqa: BLE001 - raised by whoever waits
                    self._error = error


@contextlib.contextmanager
def written_behind(file: Writable) -> Iterator[WrittenBehind]:
    """Yield what takes blocks for a file; after the block all of them are written.

    Raises:
        OSError: something could not be written.
    """
    writer = WrittenBehind(file)
    try:
        yield writer
    except BaseException:
        # What went wrong first is what must be told.
        with contextlib.suppress(OSError):
            writer.finish()
        raise
    writer.finish()
