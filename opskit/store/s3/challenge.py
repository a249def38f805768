"""Tries to destroy an object with the running credentials: it must not succeed."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable
from typing import Any

from opskit.checks import Check
from opskit.errors import ObjectNotFound, StoreError
from opskit.store.base import Store
from opskit.store.s3 import errors
from opskit.store.s3.client import Bucket
from opskit.store.s3.store import S3Store
from opskit.store.s3.upload import content_md5, md5
from opskit.store.wrappers import unwrapped

_NAME = "challenge-"
_EXPECTED = "refused, or the bytes are still there"
_HINT = (
    "Set object_lock_days on a bucket with object lock, or run backups with "
    "credentials that may not delete."
)


def is_challenge(key: str) -> bool:
    """Return whether a key is that of an object that was put to be destroyed."""
    return key.rpartition("/")[2].startswith(_NAME)


def challenge(store: Store, key_prefix: str) -> list[Check]:
    """Put a small object as a backup would, try to destroy it, and read it again.

    What the store refuses to delete stays below `key_prefix` until its lock ends. A
    store that has no requests of its own to try, such as a folder, is tried through
    the protocol.

    Raises:
        StoreError: the store cannot be used, so nothing was tried.
    """
    inner = unwrapped(store)
    victim: _Victim
    if isinstance(inner, S3Store):
        victim = _InBucket(inner, key_prefix)
    else:
        victim = _Victim(store, key_prefix)
    try:
        return [victim.check(name, attempt) for name, attempt in victim.attempts()]
    finally:
        victim.remove()


class _Victim:
    """An object that nobody needs, in any store."""

    def __init__(self, store: Store, key_prefix: str) -> None:
        self._store, self._prefix = store, key_prefix
        self._content = secrets.token_bytes(64)
        self._key, self._gone = "", False
        self.put()

    def attempts(self) -> list[tuple[str, Callable[[], None]]]:
        """Return what to try, by name; the object is there before each."""
        return [("delete", self._delete), ("overwrite", self._overwrite)]

    def check(self, name: str, attempt: Callable[[], None]) -> Check:
        """Try it and return what came of it."""
        if self._gone:
            self.remove()
            self.put()
        observed = "taken"
        try:
            attempt()
        except StoreError as error:
            if not self.refused(error):
                raise
            observed = "refused"
        kept = self.is_there()
        if observed == "taken":
            observed = self.taken() if kept else "the bytes are gone"
        elif not kept:
            observed = "refused, but the bytes are gone"
        self._gone = not kept
        return Check(
            name=f"store {self._store.name}: {name} with the running credentials",
            passed=kept,
            expected=_EXPECTED,
            observed=observed,
            detail="" if kept else _HINT,
        )

    def refused(self, error: StoreError) -> bool:
        """Return whether it is the store's own refusal."""
        return error.exit_code == StoreError.exit_code

    def is_there(self) -> bool:
        """Return whether the original bytes can be read."""
        try:
            with self._store.open(self._key) as file:
                return file.read() == self._content
        except ObjectNotFound:
            return False

    def taken(self) -> str:
        """Say where the bytes are after an attempt that was not refused."""
        return "not refused, but the bytes are still there"

    def put(self) -> None:
        """Put the object under a new key: an old one may be taken, and stay so."""
        self._key = f"{self._prefix}{_NAME}{secrets.token_hex(8)}"
        self._store.put(self._key, [self._content])

    def remove(self) -> None:
        """Delete what may be deleted."""
        with contextlib.suppress(StoreError):
            self._store.delete(self._key)

    def _delete(self) -> None:
        self._store.delete(self._key)

    def _overwrite(self) -> None:
        # The protocol never writes over a key; whoever may delete still can.
        self._store.delete(self._key)
        self._store.put(self._key, [b"overwritten"])


class _InBucket(_Victim):
    """One in a bucket, where versions may outlive what is done to their key."""

    def __init__(self, store: S3Store, key_prefix: str) -> None:
        self._bucket = Bucket(store.name, store.settings)
        self._version = ""
        self._added: list[str] = []
        super().__init__(store, key_prefix)

    def attempts(self) -> list[tuple[str, Callable[[], None]]]:
        attempts = super().attempts()
        if not self._version:
            return attempts
        return [
            *attempts,
            ("delete of the version", self._delete_version),
            ("delete of the version in spite of governance", self._bypass),
        ]

    def refused(self, error: StoreError) -> bool:
        return errors.is_refused(error.__cause__)

    def is_there(self) -> bool:
        try:
            content = self._bucket.read(self._key, **self._which())
        except ObjectNotFound:
            return False
        except StoreError as error:
            # What some servers say of a version that is gone.
            if errors.code_of(error.__cause__) in ("NoSuchVersion", "405"):
                return False
            raise
        return content == self._content

    def taken(self) -> str:
        if self._version:
            return f"not refused, but the bytes are kept as version {self._version}"
        return super().taken()

    def put(self) -> None:
        super().put()
        self._added = []
        self._version = str(self._on("head_object").get("VersionId", ""))

    def remove(self) -> None:
        added = [{"VersionId": version} for version in self._added]
        for each in [*added, self._which()]:
            with contextlib.suppress(StoreError):
                self._on("delete_object", **each)

    def _delete(self) -> None:
        self._remember(self._on("delete_object"))

    def _delete_version(self) -> None:
        self._on("delete_object", **self._which())

    def _bypass(self) -> None:
        self._on("delete_object", **self._which(), BypassGovernanceRetention=True)

    def _overwrite(self) -> None:
        self._remember(
            self._on(
                "put_object",
                Body=b"other",
                ContentMD5=content_md5(md5(b"other")),
            )
        )

    def _remember(self, answer: dict[str, Any]) -> None:
        version = answer.get("VersionId")
        if version and version != self._version:
            self._added.append(version)

    def _which(self) -> dict[str, str]:
        return {"VersionId": self._version} if self._version else {}

    def _on(self, operation: str, **parameters: Any) -> Any:
        return self._bucket.on(operation, self._key, **parameters)
