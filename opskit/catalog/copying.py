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
from typing import Any

from opskit.catalog import manifest as manifests
from opskit.catalog.documents import parse_evidence
from opskit.catalog.manifest import MANIFEST_NAME, Manifest, StoredObject
from opskit.catalog.places import attempt_in
from opskit.catalog.reader import (
    BLOCK_BYTES,
    VerifyResult,
    checked,
    require_stored,
    stored_manifest,
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
from opskit.store.s3.trial import is_challenge


@dataclass(frozen=True, kw_only=True)
class CopyResult:
    """What became of one set: copied, or already in the target.

    `repaired` are the keys of objects that were damaged or missing in the target and
    were stored again, `added` those of what lies beside the set and was stored now.
    `verified` is the outcome of reading the set in the target in the end.
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
    there; what is damaged of it or missing is stored again, and so is what lies beside
    it in the source alone.

    Raises:
        IntegrityError: the source is damaged, the target does not give back what it
            was given, or it holds another manifest; nothing new is listed there.
        StoreError: one of the stores cannot be used; nothing new is listed there.
    """
    content = _manifest_of(manifest, source)
    known = stored_manifest(target, manifest.prefix)
    copying = _Copying(manifest, content, source, target, require_held)
    if known is None:
        return copying.copy()
    if known != content:
        raise IntegrityError(
            f"store {target.name} holds another manifest of {manifest.backup_id} than "
            f"store {source.name}",
            hint="One of the two was altered after it was written; `inv verify` and "
            "its signature tell which. Nothing was changed.",
        )
    return copying.complete()


@dataclass(frozen=True)
class _Copying:
    """One set on its way; `content` is its manifest byte by byte."""

    manifest: Manifest
    content: bytes
    source: Store
    target: Store
    require_held: Callable[[], None]

    @property
    def key(self) -> str:
        return self.manifest.prefix + MANIFEST_NAME

    def copy(self) -> CopyResult:
        """Copy a set that the target does not list."""
        prefix, target = self.manifest.prefix, self.target
        if any(target.list(prefix)) or any(target.unfinished(prefix)):
            target.discard(prefix)
        with _withdrawn_on_error(target, prefix):
            for each in self.manifest.objects:
                target.put(each.key, _blocks(self.source, each))
            verified = self._require_whole(verify_set(self.manifest, target))
            added = self._copy_beside(_beside(self.manifest, self.source))
            self._put_manifest()
            if stored_manifest(target, prefix) != self.content:
                raise self._not_given_back(self.key, "other bytes")
        return self._result(verified, copied=True, added=added)

    def complete(self) -> CopyResult:
        """Verify a set in the target, repair it, and add what lies beside it."""
        verified = verify_set(self.manifest, self.target)
        bad = {each.key for each in verified.bad}
        damaged = [each for each in self.manifest.objects if each.key in bad]
        if damaged:
            self._repair(damaged)
            verified = verify_set(self.manifest, self.target)
        self._require_whole(verified)
        present = {each.key for each in self.target.list(self.manifest.prefix)}
        beside = _beside(self.manifest, self.source)
        return self._result(
            verified,
            copied=False,
            repaired=tuple(each.key for each in damaged),
            added=self._copy_beside(key for key in beside if key not in present),
        )

    def _result(self, verified: VerifyResult, **more: Any) -> CopyResult:
        return CopyResult(backup_id=self.manifest.backup_id, verified=verified, **more)

    def _repair(self, damaged: Iterable[StoredObject]) -> None:
        """Store damaged objects again; meanwhile the target does not list the set.

        Nothing is deleted before the source has shown that it holds what is needed.
        What a crash leaves is copied as a new set by the next run.
        """
        for each in damaged:
            for _ in _blocks(self.source, each):
                pass
        self.require_held()
        self.target.delete(self.key)
        for each in damaged:
            self.target.delete(each.key)
            self.target.put(each.key, _blocks(self.source, each))
        self._put_manifest()

    def _put_manifest(self) -> None:
        require_stored(self.manifest.objects, self.target)
        self.require_held()
        self.target.put(self.key, [self.content])

    def _copy_beside(self, keys: Iterable[str]) -> tuple[str, ...]:
        """Copy objects that no manifest names; each is read back at once."""
        added = []
        for key in keys:
            sent, stored = hashlib.sha256(), hashlib.sha256()
            try:
                self.target.put(key, _digested(self.source, key, sent.update))
            except ObjectExists:
                continue  # another run has just added it
            for _ in _digested(self.target, key, stored.update):
                pass
            if stored.digest() != sent.digest():
                raise self._not_given_back(key, "other bytes")
            added.append(key)
        return tuple(added)

    def _require_whole(self, verified: VerifyResult) -> VerifyResult:
        if verified.not_read is not None:
            raise verified.not_read
        if verified.bad:
            raise self._not_given_back(verified.bad[0].key, verified.bad[0].reason)
        return verified

    def _not_given_back(self, key: str, reason: str) -> IntegrityError:
        return IntegrityError(
            f"store {self.target.name} does not give back what it was given: {key}: "
            f"{reason}",
            hint="Check that store's health, then copy again.",
        )


def _manifest_of(manifest: Manifest, source: Store) -> bytes:
    """Return a set's manifest byte by byte: it may hold fields of a later version."""
    key = manifest.prefix + MANIFEST_NAME
    content = stored_manifest(source, manifest.prefix)
    if content is None:
        raise ObjectNotFound(
            f"store {source.name} does not hold the set {manifest.backup_id}",
            hint="`inv backups` lists the sets that exist.",
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
    """Return the keys of what lies beside a set; evidence comes last.

    A signature is then stored before what it signs. Evidence of a failed verification
    is left out: it is about the bytes in the source, and these are read again. So are
    objects that a drill made to try to destroy them, and what other runs left that did
    not make the set.
    """
    prefix = manifest.prefix
    own = {each.key for each in manifest.objects} | {prefix + MANIFEST_NAME}
    keys = [
        each.key
        for each in source.list(prefix)
        if each.key not in own
        and not is_challenge(each.key)
        and attempt_in(each.key.removeprefix(prefix)) in ("", manifest.attempt)
    ]
    failed = []
    for key in keys:
        name = parse_evidence(key.removeprefix(prefix))
        if name is not None and name.kind == "verify" and not name.passed:
            failed.append(key.removesuffix(".json"))
    kept = [key for key in keys if not key.startswith(tuple(failed))]
    return sorted(
        kept, key=lambda key: parse_evidence(key.removeprefix(prefix)) is not None
    )


def _digested(
    store: Store, key: str, update: Callable[[bytes], None]
) -> Iterator[bytes]:
    with store.open(key) as file:
        while block := file.read(BLOCK_BYTES):
            update(block)
            yield block


@contextmanager
def _withdrawn_on_error(target: Store, prefix: str) -> Iterator[None]:
    """Remove a set whose copying failed; its manifest first, if it got that far."""
    try:
        yield
    except ObjectExists:
        raise  # somebody else writes this set: it is not ours to remove
    except (OpskitError, KeyboardInterrupt):
        with suppress(StoreError):  # what is left is removed by the next copy or prune
            target.delete(prefix + MANIFEST_NAME)
            target.discard(prefix)
        raise
