"""Copies sets from one store to another, and reads them there before they are listed.

The order is what keeps a crash harmless. Objects first, read back in the target; then
what lies beside them, evidence too; last the manifest. So nothing that can look proven
is listed before the target has shown every byte of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from opskit.catalog import manifest as manifests
from opskit.catalog.manifest import MANIFEST_NAME, Manifest, StoredObject
from opskit.catalog.proof import parse_evidence
from opskit.catalog.verify import (
    BLOCK_BYTES,
    VerifyResult,
    checked,
    require_stored,
    verify_set,
)
from opskit.errors import (
    IntegrityError,
    ObjectExists,
    ObjectNotFound,
    ObjectUnreadable,
    OpskitError,
    StoreError,
)
from opskit.store import Store
from opskit.store.base import read_whole
from opskit.store.s3.challenge import is_challenge


@dataclass(frozen=True, kw_only=True)
class CopyResult:
    """What became of one set: copied, or found in the target already.

    `repaired` are the keys of objects that were damaged or missing in the target and
    were put anew, `added` those of what lies beside the set and was put now. `verified`
    is what reading the set in the target has found in the end.
    """

    backup_id: str
    copied: bool
    verified: VerifyResult
    repaired: tuple[str, ...] = ()
    added: tuple[str, ...] = ()


def copy_set(
    manifest: Manifest,
    source: Store,
    target: Store,
    *,
    require_held: Callable[[], None] = lambda: None,
) -> CopyResult:
    """Copy a set with all that lies beside it, and read it back in the target.

    What a killed copy left is removed first, so nobody else may be writing this set
    there: the caller holds the lock of its source, in the target too, and
    `require_held` raises if that was lost. A set that the target lists already is read
    there; what is damaged of it or missing is put anew, and so is what lies beside it
    in the source alone.

    Raises:
        IntegrityError: the source is damaged, the target does not give back what it
            was given, or it holds another manifest; nothing new is listed there.
        StoreError: one of the stores cannot be used; nothing new is listed there.
    """
    content = _manifest_of(manifest, source)
    known = _read(target, manifest.prefix + MANIFEST_NAME)
    if known is None:
        return _copy_new(manifest, content, source, target, require_held)
    if known != content:
        raise IntegrityError(
            f"store {target.name} holds another manifest of {manifest.backup_id} than "
            f"store {source.name}",
            hint="One of the two was altered after it was written; `inv verify` and "
            "its signature tell which. Nothing was changed.",
        )
    return _complete(manifest, content, source, target, require_held)


def _copy_new(
    manifest: Manifest,
    content: bytes,
    source: Store,
    target: Store,
    require_held: Callable[[], None],
) -> CopyResult:
    if any(target.list(manifest.prefix)) or any(target.unfinished(manifest.prefix)):
        target.discard(manifest.prefix)
    with _withdrawn_on_error(target, manifest.prefix):
        for each in manifest.objects:
            target.put(each.key, _blocks(source, each))
        verified = verify_set(manifest, target)
        if verified.not_read is not None:
            raise verified.not_read
        if verified.bad:
            raise _not_given_back(target, verified.bad[0].key, verified.bad[0].reason)
        added = _copy_beside(_beside(manifest, source), source, target)
        key = manifest.prefix + MANIFEST_NAME
        require_stored(manifest.objects, target)
        require_held()
        target.put(key, [content])
        if _read(target, key) != content:
            raise _not_given_back(target, key, "other bytes")
    return CopyResult(
        backup_id=manifest.backup_id, copied=True, added=added, verified=verified
    )


def _complete(
    manifest: Manifest,
    content: bytes,
    source: Store,
    target: Store,
    require_held: Callable[[], None],
) -> CopyResult:
    """Read a set in the target, repair it, and add what lies beside the source's."""
    verified = verify_set(manifest, target)
    bad = {each.key for each in verified.bad}
    damaged = [each for each in manifest.objects if each.key in bad]
    if damaged:
        _repair(manifest, damaged, content, source, target, require_held)
        verified = verify_set(manifest, target)
    if verified.not_read is not None:
        raise verified.not_read
    if verified.bad:
        raise _not_given_back(target, verified.bad[0].key, verified.bad[0].reason)
    there = {each.key for each in target.list(manifest.prefix)}
    missing = [key for key in _beside(manifest, source) if key not in there]
    return CopyResult(
        backup_id=manifest.backup_id,
        copied=False,
        verified=verified,
        repaired=tuple(each.key for each in damaged),
        added=_copy_beside(missing, source, target),
    )


def _repair(
    manifest: Manifest,
    damaged: Iterable[StoredObject],
    content: bytes,
    source: Store,
    target: Store,
    require_held: Callable[[], None],
) -> None:
    """Put damaged objects of a set anew; meanwhile the target does not list the set.

    Nothing is taken away before the source has shown that it holds what is needed. What
    a crash leaves is copied as a new set by the next run.
    """
    for each in damaged:
        for _ in _blocks(source, each):
            pass
    require_held()
    key = manifest.prefix + MANIFEST_NAME
    target.delete(key)
    for each in damaged:
        target.delete(each.key)
        target.put(each.key, _blocks(source, each))
    require_stored(manifest.objects, target)
    require_held()
    target.put(key, [content])


def _manifest_of(manifest: Manifest, source: Store) -> bytes:
    """Return a set's manifest byte by byte: fields that we do not know are its too."""
    key = manifest.prefix + MANIFEST_NAME
    content = _read(source, key)
    if content is None:
        raise ObjectNotFound(
            f"store {source.name} does not hold the set {manifest.backup_id}",
            hint="`invoke backups` lists the sets that exist.",
        )
    if manifests.parse(content, key=key) != manifest:
        raise IntegrityError(
            f"store {source.name} holds another manifest of {manifest.backup_id} than "
            "the one that is to be copied",
            hint="One of the two was altered after it was written.",
        )
    return content


def _blocks(source: Store, each: StoredObject) -> Iterator[bytes]:
    """Yield an object; damage is raised before its end, so that it is never stored."""
    try:
        with checked(source, each) as blocks:
            yield from blocks
    except (ObjectNotFound, ObjectUnreadable, IntegrityError) as error:
        raise IntegrityError(
            f"store {source.name}: {each.key} cannot be copied: {error.message}",
            hint="Copy the set from another store, or back up again.",
        ) from error


def _beside(manifest: Manifest, source: Store) -> list[str]:
    """Return the keys of what lies beside a set; the words of evidence come last.

    A signature is then there before what it signs. What a failed verification said is
    left out: it was said of the bytes in the source, and these are read again. So is
    what was put there to be destroyed.
    """
    own = {each.key for each in manifest.objects} | {manifest.prefix + MANIFEST_NAME}
    keys = [
        each.key
        for each in source.list(manifest.prefix)
        if each.key not in own and not is_challenge(each.key)
    ]
    prefix = manifest.prefix
    failed = []
    for key in keys:
        name = parse_evidence(key.removeprefix(prefix))
        if name is not None and name.kind == "verify" and not name.passed:
            failed.append(key.removesuffix(".json"))
    kept = [key for key in keys if not key.startswith(tuple(failed))]
    return sorted(
        kept, key=lambda key: parse_evidence(key.removeprefix(prefix)) is not None
    )


def _copy_beside(keys: Iterable[str], source: Store, target: Store) -> tuple[str, ...]:
    """Copy objects that no manifest names; each is read back at once."""
    added = []
    for key in keys:
        digest = hashlib.sha256()
        try:
            target.put(key, _digested(source, key, digest.update))
        except ObjectExists:
            continue  # another run has just added it
        back = hashlib.sha256()
        for _ in _digested(target, key, back.update):
            pass
        if back.digest() != digest.digest():
            raise _not_given_back(target, key, "other bytes")
        added.append(key)
    return tuple(added)


def _digested(
    store: Store, key: str, update: Callable[[bytes], None]
) -> Iterator[bytes]:
    with store.open(key) as file:
        while block := file.read(BLOCK_BYTES):
            update(block)
            yield block


def _not_given_back(target: Store, key: str, reason: str) -> IntegrityError:
    return IntegrityError(
        f"store {target.name} does not give back what it was given: {key}: {reason}",
        hint="Check that store's health, then copy again.",
    )


def _read(store: Store, key: str) -> bytes | None:
    try:
        return read_whole(store, key, bytes_max=manifests.BYTES_MAX)
    except ObjectNotFound:
        return None


@contextmanager
def _withdrawn_on_error(target: Store, prefix: str) -> Iterator[None]:
    """Take a set back whose copying failed; its manifest first, if it got that far."""
    try:
        yield
    except ObjectExists:
        raise  # somebody else writes this set: it is not ours to remove
    except (OpskitError, KeyboardInterrupt):
        with suppress(StoreError):  # what is left is removed by the next copy or prune
            target.delete(prefix + MANIFEST_NAME)
            target.discard(prefix)
        raise
