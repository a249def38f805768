"""Trials of what an S3 server does, and of whether stored objects can be destroyed."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from opskit.checks import Check
from opskit.errors import ObjectNotFound, StoreError, StoreUnavailable
from opskit.store.base import Store
from opskit.store.s3 import errors
from opskit.store.s3.store import S3Store
from opskit.store.s3.upload import content_md5, md5
from opskit.store.wrappers import unwrapped

PART_BYTES = 5 * 1024**2
BATCH_MAX = 1000
_TIMEOUT = timedelta(seconds=5)
_NOT_FOUND = 404
_AGAIN_SECONDS = 0.5
_NAME = "challenge-"
_EXPECTED = "refused, or the bytes are still there"
_HINT = (
    "Set object_lock_days on a bucket with object lock, or run backups with "
    "credentials that may not delete."
)
_T = TypeVar("_T")


def hasty(store: S3Store) -> S3Store:
    """Return a store in the same place that soon gives up and locks nothing."""
    changes = {
        "attempts": 1,
        "timeout": min(store.settings.timeout, _TIMEOUT),
        "part_size_bytes": PART_BYTES,
        "object_lock_days": 0,
    }
    return S3Store(store.name, store.settings.model_copy(update=changes))


def unanswered(error: StoreError) -> bool:
    """Return whether nothing came back: to ask for more would only take more time."""
    return isinstance(error, StoreUnavailable) and not errors.status_of(error.__cause__)


def denied(error: StoreError) -> bool:
    """Return whether the server said that the credentials lack the right."""
    return errors.is_denied(error.__cause__)


def not_implemented(error: StoreError) -> bool:
    """Return whether the server said that it lacks what it was asked for."""
    cause = error.__cause__
    return errors.is_not_implemented(cause) or errors.status_of(cause) == 405


class Scratch:
    """Requests below one prefix, as a server gets them: nothing is looked up before.

    They are not long waited for, and tried a second time only where the server answered
    that it is overloaded. All raise `StoreError`.

    Args:
        prefix: of keys, ending in a slash.
    """

    def __init__(self, store: S3Store, prefix: str) -> None:
        self.store = hasty(store)
        self.prefix = prefix
        self.bucket = self.store.bucket
        self.locked_until = 0.0  # by time.monotonic()
        self.versioned = False

    def server_time(self) -> datetime | None:
        """Return the time on the server's answer, whatever else it says.

        Raises:
            StoreError: nothing answers, or there is no such bucket: some servers would
                make one of any name as soon as something is put into it.
        """
        try:
            answer = self.bucket.call("head_bucket")
        except StoreError as error:
            if errors.status_of(error.__cause__) == _NOT_FOUND:
                raise StoreError(
                    f"store {self.store.name}: there is no such bucket",
                    hint="Look at the url of the store, or create the bucket; nothing "
                    "was tried or created.",
                ) from error
            answer = getattr(error.__cause__, "response", None)
            if answer is None:
                raise
        date = answer["ResponseMetadata"].get("HTTPHeaders", {}).get("date", "")
        with contextlib.suppress(ValueError):
            return parsedate_to_datetime(date).astimezone(UTC)
        return None

    def put(self, name: str, content: bytes = b"x", **options: object) -> Any:
        """Put a small object, whatever is there."""
        answer = self.on(
            "put_object",
            name,
            Body=content,
            ContentMD5=content_md5(md5(content)),
            **options,
        )
        self.versioned |= "VersionId" in answer
        return answer

    def remove(self) -> None:
        """Take away everything below the prefix, and the versions of it.

        Raises:
            StoreError: something is left.
        """
        self.store.discard(self.prefix)
        if self._has_versions():
            time.sleep(max(0.0, self.locked_until - time.monotonic()))
            self._remove_versions()

    def left(self) -> int:
        """Return how many objects, or versions of them, are below the prefix."""
        if self._has_versions():
            with contextlib.suppress(StoreError):
                return len([*self.versions()])
        return len([*self.store.list(self.prefix)])

    def versions(self) -> Iterator[dict[str, str]]:
        """Yield the versions and delete markers below the prefix."""
        for field in ("Versions", "DeleteMarkers"):
            for each in self.bucket.pages("list_object_versions", field, self.prefix):
                yield {"Key": each["Key"], "VersionId": each["VersionId"]}

    def _has_versions(self) -> bool:
        with contextlib.suppress(StoreError):
            return self.versioned or bool(self.store.versioning())
        return False

    def _remove_versions(self) -> None:
        versions = [*self.versions()]
        for at in range(0, len(versions), BATCH_MAX):
            wanted = {"Objects": versions[at : at + BATCH_MAX], "Quiet": True}
            refused = self.call("delete_objects", Delete=wanted).get("Errors", [])
            if refused:
                raise StoreError(
                    f"{len(refused)} versions cannot be deleted: "
                    f"{refused[0].get('Code')}",
                    hint="Delete them by hand, or let a lifecycle rule do it.",
                )

    def begin(self, name: str) -> str:
        """Begin an upload in parts and return its ID."""
        return str(self.on("create_multipart_upload", name)["UploadId"])

    def part(
        self, name: str, upload_id: str, content: bytes, *, digest: bytes = b""
    ) -> Any:
        """Send the first part, with another content's MD5 if there is one."""
        return self.on(
            "upload_part",
            name,
            UploadId=upload_id,
            PartNumber=1,
            Body=content,
            ContentMD5=content_md5(digest or md5(content)),
        )

    def complete(self, name: str, upload_id: str, part: Any, **options: object) -> None:
        """Make an object of an upload and its one part."""
        self.on(
            "complete_multipart_upload",
            name,
            UploadId=upload_id,
            MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
            **options,
        )

    def abort(self, name: str, upload_id: str) -> None:
        """Drop an upload."""
        self.on("abort_multipart_upload", name, UploadId=upload_id)

    @contextlib.contextmanager
    def upload(self, name: str) -> Iterator[str]:
        """Yield the ID of an upload in parts that is dropped after the block."""
        upload_id = self.begin(name)
        try:
            yield upload_id
        finally:
            with contextlib.suppress(StoreError):
                self.abort(name, upload_id)

    def full(self, name: str) -> str:
        """Return the key as the server knows it."""
        return self.bucket.full_key(f"{self.prefix}{name}")

    def on(self, operation: str, name: str, **parameters: object) -> Any:
        """Call the bucket about an object below the prefix."""
        key = f"{self.prefix}{name}"
        return _again(lambda: self.bucket.on(operation, key, **parameters))

    def lists_upload(self, name: str) -> bool:
        """Return whether an upload is listed."""
        return any(self.store.unfinished(f"{self.prefix}{name}"))

    def pages(self, folder: str, page_size: int) -> list[list[str]]:
        """Return the names of the objects in a folder, by the pages of the listing."""
        prefix = self.full(folder)
        with errors.translated(self.bucket.where, f"{self.prefix}{folder}"):
            pages = self.bucket.client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket.name,
                Prefix=prefix,
                PaginationConfig={"PageSize": page_size},
            )
            return [
                [str(each["Key"]).removeprefix(prefix) for each in page["Contents"]]
                for page in pages
                if page.get("Contents")
            ]

    def read(self, name: str, **parameters: object) -> bytes:
        """Return the bytes of an object below the prefix."""
        return _again(lambda: self.bucket.read(f"{self.prefix}{name}", **parameters))

    def call(self, operation: str, **parameters: object) -> Any:
        """Call the bucket."""
        return _again(lambda: self.bucket.call(operation, **parameters))


def _again(call: Callable[[], _T]) -> _T:
    try:
        return call()
    except StoreUnavailable as error:
        if unanswered(error):
            raise
    time.sleep(_AGAIN_SECONDS)
    return call()


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
        # The protocol never writes over a key, but deleting allows it.
        self._store.delete(self._key)
        self._store.put(self._key, [b"overwritten"])


class _InBucket(_Victim):
    """One in a bucket, where versions may outlive what is done to their key."""

    def __init__(self, store: S3Store, key_prefix: str) -> None:
        self._bucket = store.bucket
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
