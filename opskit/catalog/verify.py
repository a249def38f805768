"""Verify: reads every object of a set again and compares size and digest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

from opskit.catalog.manifest import Manifest, StoredObject
from opskit.errors import IntegrityError, ObjectNotFound
from opskit.store import Store

BLOCK_BYTES = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class BadObject:
    """An object that is not what its manifest says."""

    key: str
    reason: str
    missing: bool = False


@dataclass(frozen=True, kw_only=True)
class VerifyResult:
    """What was read of a set, and what was wrong with it."""

    objects: int
    size_bytes: int
    bad: tuple[BadObject, ...]


def verify_set(manifest: Manifest, store: Store) -> VerifyResult:
    """Read all objects of a set in one store.

    Raises:
        StoreError: the store cannot be read; a missing object is a finding instead.
    """
    size_bytes = 0
    bad = []
    for expected in manifest.objects:
        try:
            with checked(store, expected) as blocks:
                for block in blocks:
                    size_bytes += len(block)
        except ObjectNotFound:
            bad.append(BadObject(key=expected.key, reason="missing", missing=True))
        except IntegrityError as error:
            bad.append(BadObject(key=expected.key, reason=error.message))
    return VerifyResult(
        objects=len(manifest.objects), size_bytes=size_bytes, bad=tuple(bad)
    )


@contextmanager
def checked(store: Store, expected: StoredObject) -> Iterator[Iterator[bytes]]:
    """Yield an object's blocks; leaving the block checks that they were the right ones.

    The reader must not act on the bytes before it has left the block.

    Raises:
        ObjectNotFound: there is no such object.
        IntegrityError: size or digest is not the manifest's.
    """
    digest = hashlib.sha256()
    size_bytes = 0

    def blocks(file: BinaryIO) -> Iterator[bytes]:
        nonlocal size_bytes
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
            size_bytes += len(block)
            yield block

    with store.open(expected.key) as file:
        stream = blocks(file)
        yield stream
        for _ in stream:
            pass  # what a reader did not want is still part of the proof
    if size_bytes != expected.size_bytes:
        raise IntegrityError(
            f"{size_bytes} bytes are stored where the manifest says "
            f"{expected.size_bytes}"
        )
    if digest.hexdigest() != expected.sha256:
        raise IntegrityError(
            f"its SHA-256 is {digest.hexdigest()} where the manifest says "
            f"{expected.sha256}"
        )
