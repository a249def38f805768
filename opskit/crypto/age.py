"""age encryption of streams, such as the stock `age` program reads and writes."""

from __future__ import annotations

import queue
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from typing import Any

from opskit.crypto import public
from opskit.crypto.keys import Identities, NoMatchingIdentity
from opskit.errors import ConfigurationError, IntegrityError
from opskit.threads import Thread

BLOCK_BYTES = 1024 * 1024
_QUEUED_BLOCKS_MAX = 2


class _Outcome:
    """How the call ended: after the last block."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class BlockReader:
    """The file that the call reads."""

    def __init__(self) -> None:
        self._queue: queue.Queue[bytes | None] = queue.Queue(_QUEUED_BLOCKS_MAX)
        self._block = b""
        self._at = 0
        self._ended = False

    def feed(self, block: bytes | None) -> None:
        """Hand on a block, None for the end; waits while the call is behind."""
        # Never for long: the call never waits for anything but this queue, and when
        # it has ended the queue is emptied by `discard`.
        self._queue.put(block)

    def read(self, size_bytes: int) -> bytes:
        """Return at most so many bytes, none at the end only."""
        while self._at == len(self._block):
            if self._ended:
                return b""
            block = self._queue.get()
            self._ended = block is None
            self._block, self._at = block or b"", 0
        piece = self._block[self._at : self._at + size_bytes]
        self._at += len(piece)
        return piece

    def discard(self) -> None:
        """Take what is still handed on, so that the feeder is not held up."""
        self._block = b""
        while not self._ended:
            self._ended = self._queue.get() is None


class BlockWriter:
    """The file that the call writes."""

    def __init__(self) -> None:
        # Without a bound: it never holds more than the call makes of the blocks that
        # are queued for it, because it is emptied after each block that is fed.
        self.queue: queue.SimpleQueue[bytes | _Outcome] = queue.SimpleQueue()
        self._held: list[bytes] = []
        self._held_bytes = 0

    def write(self, data: bytes) -> int:
        """Take some bytes, and hand them on when they make a block."""
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes >= BLOCK_BYTES:
            self.flush()
        return len(data)

    def flush(self) -> None:
        """Hand on what is held."""
        if self._held_bytes:
            self.queue.put(b"".join(self._held))
        self._held, self._held_bytes = [], 0


Work = Callable[[BlockReader, BlockWriter], None]


class _Worker:
    """Runs the call in a thread."""

    def __init__(self, work: Work, name: str) -> None:
        self.outcome: _Outcome | None = None
        self._work = work
        self._reader = BlockReader()
        self._writer = BlockWriter()
        self._end_fed = False
        self._thread: Thread | None = None
        self._name = name

    def start(self) -> None:
        self._thread = Thread(self._run, name=self._name)

    def feed(self, block: bytes | None) -> None:
        self._reader.feed(block)
        self._end_fed = block is None

    def ready(self, *, to_the_end: bool = False) -> Iterator[bytes]:
        """Yield what has been written so far, or all the rest."""
        while self.outcome is None:
            try:
                item = self._writer.queue.get(block=to_the_end)
            except queue.Empty:
                return
            if isinstance(item, bytes):
                yield item
                continue
            self.outcome = item
            if item.error is not None:
                raise item.error

    def stop(self) -> None:
        """End the thread, wherever it is."""
        if self._thread is None:
            return
        # What is queued is worked off in no time, and nobody gets it.
        if not self._end_fed:
            self._reader.feed(None)
        self._thread.join()

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            self._work(self._reader, self._writer)
            if self._reader.read(1):
                raise IntegrityError(
                    "there are bytes behind the end of the encrypted stream",
                    hint="Use another set or another store.",
                )
        except BaseException as raised:  # noqa: BLE001 - raised again by `ready`
            error = raised
        self._writer.flush()
        self._writer.queue.put(_Outcome(error))
        self._reader.discard()


def streamed(work: Work, chunks: Iterable[bytes], *, name: str) -> Generator[bytes]:
    """Yield in blocks of about 1 MiB what the call makes of the chunks.

    An error of the source or of the call comes through as it is. However the stream
    ends, also when it is closed early, the thread has ended by then and a source that
    is a generator is closed. The memory needed does not grow with the stream.
    """
    worker = _Worker(work, name)
    try:
        worker.start()
        with closing(_blocks(chunks)) as blocks:
            for block in blocks:
                worker.feed(block)
                yield from worker.ready()
        worker.feed(None)
        yield from worker.ready(to_the_end=True)
    finally:
        try:
            worker.stop()
        finally:
            if isinstance(chunks, Generator):
                chunks.close()


def _blocks(chunks: Iterable[bytes]) -> Generator[bytes]:
    """Yield the same bytes in blocks of 1 to 2 MiB, none of them empty."""
    held: list[bytes] = []
    held_bytes = 0
    for chunk in chunks:
        for start in range(0, len(chunk), BLOCK_BYTES):
            piece = chunk[start : start + BLOCK_BYTES]
            held.append(piece)
            held_bytes += len(piece)
            if held_bytes >= BLOCK_BYTES:
                yield b"".join(held)
                held, held_bytes = [], 0
    if held:
        yield b"".join(held)


SUFFIX = ".age"
# What pyrage says where no stanza of the head is for one of the identities.
_NO_MATCH = "No matching keys found"


def encrypted(chunks: Iterable[bytes], recipients: Sequence[str]) -> Generator[bytes]:
    """Yield the stream encrypted to every one of the recipients.

    In blocks of about 1 MiB, with constant memory. An error of the source comes
    through as it is, and then what was yielded is not a whole age file. Closing the
    iterator closes the source.

    Raises:
        ConfigurationError: there is no recipient, or one is none; at once.
    """
    if not recipients:
        raise ConfigurationError(
            "there is no recipient to encrypt to",
            hint="Name at least one in [encryption] recipients.",
        )
    keys = [_recipient(text) for text in dict.fromkeys(recipients)]

    def work(reader: BlockReader, writer: BlockWriter) -> None:
        import pyrage  # type: ignore[import-untyped]

        pyrage.encrypt_io(reader, writer, keys)

    return streamed(work, chunks, name="age-encrypt")


def decrypted(chunks: Iterable[bytes], identities: Identities) -> Generator[bytes]:
    """Yield the plain stream; each block that is yielded is authentic.

    It is whole only when the iterator has come to its end without an error.

    Raises:
        IntegrityError: the stream is damaged, cut, or goes on behind its end; raised
            where that shows.
        NoMatchingIdentity: it is not for any of the identities. Age does not say whom
            it is for, so a damaged head may look the same: compare the digest first.
    """

    def work(reader: BlockReader, writer: BlockWriter) -> None:
        import pyrage

        try:
            pyrage.decrypt_io(reader, writer, list(identities.opaque))
        except (pyrage.DecryptError, OSError) as error:
            if str(error) == _NO_MATCH:
                raise NoMatchingIdentity(
                    f"no identity in {identities.path} opens this",
                    hint="Name the identity file of one of the recipients that it "
                    "was encrypted to.",
                ) from error
            raise IntegrityError(
                "the encrypted stream is damaged or cut: " + str(error).splitlines()[0],
                hint="Use another set or another store.",
            ) from error

    return streamed(work, chunks, name="age-decrypt")


def _recipient(text: str) -> Any:
    try:
        return public.recipient(text)[1]
    except ValueError as error:
        raise ConfigurationError(
            str(error), hint="Correct it in [encryption] recipients."
        ) from error
