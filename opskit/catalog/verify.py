"""Verify: reads every object of a set again and compares size and digest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

from opskit.catalog.manifest import Manifest, StoredObject
from opskit.errors import (
    IntegrityError,
    ObjectNotFound,
    ObjectUnreadable,
    StoreError,
)
from opskit.progress import advance
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
    """What was read of a set, and what was wrong with it.

    `not_read` is why the store did not give the rest of it: that says nothing about the
    set, which is neither whole nor damaged as far as one knows.
    """

    objects: int
    size_bytes: int
    bad: tuple[BadObject, ...]
    not_read: StoreError | None = None

    @property
    def is_whole(self) -> bool:
        """Whether every object was read and is what the manifest says."""
        return not self.bad and self.not_read is None


def verify_set(manifest: Manifest, store: Store) -> VerifyResult:
    """Read all objects of a set in one store.

    An object that is missing or cannot be read is a finding about the set.

    Raises:
        StoreError: the store cannot be reached.
    """
    size_bytes = 0
    bad = []
    not_read = None
    for expected in manifest.objects:
        try:
            with checked(store, expected) as blocks:
                for block in blocks:
                    size_bytes += len(block)
        except ObjectNotFound:
            bad.append(BadObject(key=expected.key, reason="missing", missing=True))
        except ObjectUnreadable as error:
            bad.append(
                BadObject(key=expected.key, reason=f"unreadable: {error.message}")
            )
        except IntegrityError as error:
            bad.append(BadObject(key=expected.key, reason=error.message))
        except StoreError as error:
            any(store.list(manifest.prefix))  # raises if it is the store as a whole
            not_read = error
            break
    return VerifyResult(
        objects=len(manifest.objects),
        size_bytes=size_bytes,
        bad=tuple(bad),
        not_read=not_read,
    )


def is_gone(store: Store, key: str) -> bool:
    """Return whether another run has deleted an object meanwhile."""
    try:
        store.stat(key)
    except ObjectNotFound:
        return True
    except StoreError:
        pass  # then it is not known, and the result stands
    return False


def require_stored(objects: Iterable[StoredObject], store: Store) -> None:
    """Look at every object of a set once more, before its manifest makes it one.

    Raises:
        StoreError: one of them is missing or of another size, or cannot be looked at.
    """
    for each in objects:
        size_bytes = store.stat(each.key).size_bytes
        if size_bytes != each.size_bytes:
            raise StoreError(
                f"store {store.name} holds {size_bytes} bytes of {each.key} where "
                f"{each.size_bytes} were sent",
                hint="See who else writes to this store, and check its health.",
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
            if size_bytes > expected.size_bytes:
                raise IntegrityError(
                    f"more bytes are stored than the {expected.size_bytes} that the "
                    "manifest says"
                )
            advance(len(block))
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
