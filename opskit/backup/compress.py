"""zstd around a stream: outside pg_dump, whose builds often lack it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

import zstandard

from opskit.errors import BackupFailed

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
    that has none to itself is compressed by whoever reads it, without threads' buffers.

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
