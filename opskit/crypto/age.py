"""age encryption of streams, such as the stock `age` program reads and writes."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from typing import Any

from opskit.crypto import keys as crypto_keys
from opskit.crypto.keys import Identities, NoMatchingIdentity
from opskit.errors import ConfigurationError, IntegrityError
from opskit.threads import Feed

BLOCK_BYTES = 1024 * 1024
_QUEUED_BLOCKS_MAX = 2


class BlockReader:
    """Blocks as a file that is only read."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._block = b""
        self._at = 0

    def read(self, size_bytes: int) -> bytes:
        """Return at most so many bytes, none at the end only."""
        while self._at == len(self._block):
            block = next(self._blocks, None)
            if block is None:
                return b""
            self._block, self._at = block, 0
        piece = self._block[self._at : self._at + size_bytes]
        self._at += len(piece)
        return piece


class BlockWriter:
    """The file that the call writes."""

    def __init__(self) -> None:
        # Without a bound: it never holds more than the call makes of the blocks that
        # are queued for it, because it is emptied after each block that is fed.
        self._ready: queue.SimpleQueue[bytes] = queue.SimpleQueue()
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
            self._ready.put(b"".join(self._held))
        self._held, self._held_bytes = [], 0

    def ready(self) -> Iterator[bytes]:
        """Yield the blocks that have been written so far."""
        with contextlib.suppress(queue.Empty):
            while True:
                yield self._ready.get_nowait()


Work = Callable[[BlockReader, BlockWriter], None]


def streamed(work: Work, chunks: Iterable[bytes], *, name: str) -> Generator[bytes]:
    """Yield in blocks of about 1 MiB what the call makes of the chunks.

    An error of the source or of the call comes through as it is. However the stream
    ends, also when it is closed early, the thread has ended by then and a source that
    is a generator is closed. The memory needed does not grow with the stream.
    """
    writer = BlockWriter()

    def call(blocks: Iterator[bytes]) -> None:
        reader = BlockReader(blocks)
        try:
            work(reader, writer)
        finally:
            writer.flush()
        if reader.read(1):
            raise IntegrityError(
                "there are bytes behind the end of the encrypted stream",
                hint="Use another set or another store.",
            )

    with contextlib.ExitStack() as stack:
        if isinstance(chunks, Generator):
            stack.callback(chunks.close)
        feed = Feed(call, name=name, blocks_max=_QUEUED_BLOCKS_MAX)
        # What is queued is worked off in no time, and nobody gets it.
        stack.callback(feed.finish)
        for block in stack.enter_context(closing(_blocks(chunks))):
            feed.put(block)
            error = feed.error  # before it, all that was good was written
            yield from writer.ready()
            if error is not None:
                raise error
        feed.finish()
        yield from writer.ready()
        if feed.error is not None:
            raise feed.error


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
        ConfigurationError: there is no recipient, or one is not valid; at once.
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
        return crypto_keys.recipient(text)[1]
    except ValueError as error:
        raise ConfigurationError(
            str(error), hint="Correct it in [encryption] recipients."
        ) from error
