"""One of the dumps that make up a set: a pg_dump whose bytes are read as they pass."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import zstandard

from opskit.errors import BackupFailed
from opskit.postgres import client
from opskit.postgres.archive.reader import ArchiveReader
from opskit.postgres.snapshot import Weights

# What pg_dump says first once it has locked its tables and read all of the catalog.
_AFTER_LOCKS = b"pg_dump: saving encoding"
_FIRST_WORD_SECONDS_MAX = 20
_END_SECONDS = 1


class DumpStream:
    """A pg_dump under the snapshot, and what its bytes held once they were read."""

    def __init__(
        self, *, role: str, arguments: Sequence[str], environment: Mapping[str, str]
    ) -> None:
        self.role = role
        self.reader = ArchiveReader()
        self.dump_bytes = 0
        self._begun = self._begun_at = 0
        self._arguments = [*arguments, "--verbose"]
        self._environment = {**environment, **client.PLAIN_WORDS}
        self._program: client.Running | None = None
        self._settled = threading.Event()
        self._has_locks = self._has_ended = self._is_locked = False
        self._started = time.monotonic()
        self._is_silent = True

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Run the program while the block lasts.

        It cannot end, and give its locks back, before its bytes are read.
        """
        with client.running(
            self._arguments, self._environment, progress=self._hear, held=True
        ) as self._program:
            self._started = time.monotonic()
            yield

    def wait_for_locks(self, seconds: float) -> bool:
        """Wait a while for the locks of all its tables; return whether to wait longer.

        It does not wait for a program that has ended or prints nothing: its bytes will
        show why.

        Raises:
            BackupFailed: it failed.
        """
        self._settled.wait(seconds)
        self._running.require_well(_END_SECONDS if self._has_ended else 0)
        self._is_locked = self._has_locks
        waited_seconds = time.monotonic() - self._started
        is_silent = self._is_silent and waited_seconds > _FIRST_WORD_SECONDS_MAX
        return not self._settled.is_set() and not is_silent

    def blocks(self, idle: Callable[[], None] = lambda: None) -> Iterator[bytes]:
        """Yield the dump's bytes; `idle` is called while there is none.

        Raises:
            BackupFailed: pg_dump did not end well, or began without its locks.
            ArchiveError: what it wrote is no whole archive.
        """
        for block in self._running.blocks(idle):
            self.reader.feed(block)
            begun = len(self.reader.begun)
            if begun > self._begun:
                self._begun, self._begun_at = begun, self.dump_bytes
            self.dump_bytes += len(block)
            yield block
        self.reader.close()
        if not self._is_locked:
            raise BackupFailed(
                "pg_dump did not say that it had the locks of its tables",
                hint="Use PostgreSQL's own pg_dump; a wrapper must pass --verbose on.",
            )

    def bytes_passed(self, weights: Weights) -> int:
        """Return the weights of what has passed by, and a part of what does now."""
        if not self.reader.begun:
            return 0
        *done, current = self.reader.begun
        part = weights.part(
            current,
            rows=self.reader.rows_of_current,
            size_bytes=self.dump_bytes - self._begun_at,
        )
        return sum(map(weights.of, done)) + part

    def end(self) -> None:
        """End the program; callable from any thread."""
        self._running.end()

    @property
    def _running(self) -> client.Running:
        assert self._program is not None
        return self._program

    def _hear(self, line: bytes) -> None:
        self._is_silent = False
        self._has_ended = not line
        self._has_locks |= line.startswith(_AFTER_LOCKS)
        if self._has_ended or self._has_locks:
            self._settled.set()


LEVEL = 3
_THREADS_MAX = 4
_CHUNK_BYTES = 1024 * 1024
# Each thread holds a few jobs: the library's own 8 MiB take several times the memory.
# So that small ones compress as well, each knows half a window of what came before it.
_JOB_BYTES = 2 * 1024 * 1024
_OVERLAP_LOG = 8
# Of two of zstd's levels, the shortest match that is looked for. Rows are full of
# digits that match by chance for five bytes, which costs time and saves hardly a byte.
_MIN_MATCH = {3: 6, 4: 6}


def compressed(
    chunks: Iterable[bytes], level: int = LEVEL, *, streams: int = 1
) -> Iterator[bytes]:
    """Yield one zstd frame, checksum included, in chunks of about 1 MiB.

    `streams` is how many are compressed at once: they share the processors. A stream
    that has none to itself is compressed by its reader, without threads' buffers.

    Raises:
        BackupFailed: there is no memory, or no thread, to compress with.
    """
    threads = min(_THREADS_MAX, os.cpu_count() or 1) // streams
    parameters = zstandard.ZstdCompressionParameters.from_level(
        level,
        **({"min_match": _MIN_MATCH[level]} if level in _MIN_MATCH else {}),
        threads=threads if threads > 1 else 0,
        job_size=_JOB_BYTES,
        overlap_log=_OVERLAP_LOG,
        write_checksum=True,
    )
    compressor = zstandard.ZstdCompressor(compression_params=parameters)
    chunker = compressor.chunker(chunk_size=_CHUNK_BYTES)
    try:
        for chunk in chunks:
            yield from chunker.compress(chunk)
        yield from chunker.finish()  # type: ignore[no-untyped-call]  # its stub has no types
    except zstandard.ZstdError as error:
        raise BackupFailed(
            f"the dump cannot be compressed: {error}",
            hint="Free some memory, or raise the limit of processes (`ulimit -u`).",
        ) from error
