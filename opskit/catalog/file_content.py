"""Reads the content of files in blocks, and digests it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator

BLOCK_BYTES = 1024 * 1024


def blocks(descriptor: int, size_bytes: int) -> Iterator[bytes]:
    """Yield an open file from its beginning; it may end before the size, never after.

    Raises:
        OSError: as the system says.
    """
    offset = 0
    while offset < size_bytes:
        block = os.pread(descriptor, min(BLOCK_BYTES, size_bytes - offset), offset)
        if not block:
            return
        yield block
        offset += len(block)


def sha256(descriptor: int, size_bytes: int) -> str:
    """Return the SHA-256 of an open file of a size; holes count as zeros.

    Raises:
        OSError: as the system says.
    """
    digest = hashlib.sha256()
    for block in blocks(descriptor, size_bytes):
        digest.update(block)
    return digest.hexdigest()
