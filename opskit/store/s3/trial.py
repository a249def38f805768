"""Tries what opskit needs of an S3 server to write and to read, one thing a function.

All of them raise a `StoreError` where the server refuses what must work.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any, TypeVar

from opskit.errors import ObjectExists, StoreError, StoreUnavailable
from opskit.store.s3 import errors
from opskit.store.s3.client import Bucket
from opskit.store.s3.store import S3Store
from opskit.store.s3.upload import content_md5, etag_differs, md5
from opskit.threads import Pool

PART_BYTES = 5 * 1024**2
_TIMEOUT = timedelta(seconds=5)
_NOT_FOUND = 404
_AGAIN_SECONDS = 0.5
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
        self.bucket = Bucket(store.name, self.store.settings)
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


BATCH_MAX = 1000
DISTRUST = "Do not rely on this store before you know why."
_THREADS = 8


class Answer(StrEnum):
    """What a server does with a request that carries something out of the ordinary."""

    HONOURED = "honoured"
    IGNORED = "ignored"
    REFUSED = "refused"


@dataclass(frozen=True, kw_only=True)
class DamagedPart:
    """What came of a part that arrived otherwise than its Content-MD5 says."""

    refused: bool
    told_by_etag: bool


def conditional_put(scratch: Scratch) -> Answer:
    """Put an object where one is, under the condition that there is none."""
    scratch.put("condition")
    return _conditional(lambda: scratch.put("condition", IfNoneMatch="*"))


def conditional_completion(scratch: Scratch) -> Answer:
    """Do the same with an upload in parts."""
    name = "condition-parts"
    scratch.put(name)
    with scratch.upload(name) as upload_id:
        part = scratch.part(name, upload_id, b"x")
        return _conditional(
            lambda: scratch.complete(name, upload_id, part, IfNoneMatch="*")
        )


def small_upload(scratch: Scratch) -> None:
    """Put a few bytes by an upload of one part, and read them back."""
    with scratch.upload("part") as upload_id:
        part = scratch.part("part", upload_id, b"part")
        scratch.complete("part", upload_id, part)
    if scratch.read("part") != b"part":
        raise StoreError("an object in parts came back with other bytes", hint=DISTRUST)


def range_read(scratch: Scratch) -> Answer:
    """Read from the middle of an object."""
    scratch.put("range", b"0123456789")
    content = scratch.read("range", Range="bytes=4-")
    if content == b"456789":
        return Answer.HONOURED
    if content == b"0123456789":
        return Answer.IGNORED
    raise StoreError(
        "a read from the middle of an object brought other bytes",
        hint=DISTRUST,
    )


def damaged_part(scratch: Scratch) -> DamagedPart:
    """Send a part with the MD5 of other bytes."""
    sent = md5(b"sent")
    try:
        with scratch.upload("damaged") as upload_id:
            answer = scratch.part("damaged", upload_id, b"arrived", digest=sent)
    except StoreError as error:
        if not errors.is_refused(error.__cause__):
            raise
        return DamagedPart(refused=True, told_by_etag=True)
    # An ETag that is made of no MD5 never differs, so it would tell nothing.
    return DamagedPart(refused=False, told_by_etag=etag_differs(answer, sent.hex()))


def aborted_upload(scratch: Scratch) -> tuple[bool, bool]:
    """Return whether an upload under way is listed, and whether aborting ends it."""
    upload_id = scratch.begin("abort")
    try:
        scratch.part("abort", upload_id, b"x")
        listed = _lists_upload(scratch)
    finally:
        scratch.abort("abort", upload_id)
    return listed, not _lists_upload(scratch)


def fill(scratch: Scratch, count: int, until: float) -> int:
    """Put objects until there are so many or `time.monotonic()` is `until`."""

    def put(number: int) -> bool:
        if time.monotonic() > until or failed:
            return False
        try:
            scratch.put(f"many/{number:04}")
        except StoreError:
            failed.append(number)  # the others need not wait for as long
            raise
        return True

    failed: list[int] = []
    with Pool(_THREADS, thread_name_prefix="doctor") as pool:
        return sum(pool.map(put, range(count)))


def pages(scratch: Scratch, page_size: int) -> list[list[str]]:
    """Return the names of these objects as the server's pages bring them."""
    prefix = scratch.full("many/")
    client = scratch.bucket.client
    with errors.translated(scratch.bucket.where, f"{scratch.prefix}many/"):
        listing = client.get_paginator("list_objects_v2").paginate(
            Bucket=scratch.bucket.name,
            Prefix=prefix,
            PaginationConfig={"PageSize": page_size},
        )
        return [
            [str(each["Key"]).removeprefix(prefix) for each in page["Contents"]]
            for page in listing
            if page.get("Contents")
        ]


def _conditional(call: Callable[[], object]) -> Answer:
    try:
        call()
    except ObjectExists:
        return Answer.HONOURED
    except StoreError as error:
        if not_implemented(error):
            return Answer.REFUSED
        raise
    return Answer.IGNORED


def _lists_upload(scratch: Scratch) -> bool:
    return any(scratch.store.unfinished(f"{scratch.prefix}abort"))


_LOCK_SECONDS = 4


@dataclass(frozen=True, kw_only=True)
class Deletion:
    """What the credentials may delete; `versions` is None where there are none."""

    objects: bool
    versions: bool | None

    @property
    def complete(self) -> bool:
        """Whether nothing is left of what is deleted."""
        return self.objects and self.versions is not False


@dataclass(frozen=True, kw_only=True)
class Lock:
    """Whether an object under a short lock was kept, and is shown as locked."""

    shown: bool
    plainly: bool
    with_bypass: bool


def deletion(scratch: Scratch) -> Deletion:
    """Delete an object, and the version that is left of it."""
    version = scratch.put("delete").get("VersionId")
    objects = _allowed(lambda: scratch.on("delete_object", "delete"))
    versions = None
    if version is not None:
        versions = _allowed(
            lambda: scratch.on("delete_object", "delete", VersionId=version)
        )
    return Deletion(objects=objects, versions=versions)


def delete_batch(scratch: Scratch, names: Sequence[str]) -> list[str]:
    """Delete up to 1,000 of them by one request; return those that are still there."""
    wanted = [{"Key": scratch.full(f"many/{name}")} for name in names[:BATCH_MAX]]
    scratch.call("delete_objects", Delete={"Objects": wanted, "Quiet": True})
    left = {name for page in pages(scratch, BATCH_MAX) for name in page}
    return sorted(left & set(names[:BATCH_MAX]))


def lock(scratch: Scratch, mode: str) -> Lock:
    """Lock an object for seconds, and try to delete it.

    Args:
        mode: GOVERNANCE or COMPLIANCE.
    """
    begin = scratch.server_time() or datetime.now(UTC)
    scratch.locked_until = time.monotonic() + _LOCK_SECONDS + 1
    version = scratch.put(
        "locked",
        ObjectLockMode=mode,
        ObjectLockRetainUntilDate=begin + timedelta(seconds=_LOCK_SECONDS),
    ).get("VersionId")
    which = {"VersionId": version} if version is not None else {}
    shown = scratch.on("head_object", "locked", **which).get("ObjectLockMode") == mode
    plainly = _stays(scratch, which, {})
    bypass = plainly and _stays(scratch, which, {"BypassGovernanceRetention": True})
    if not bypass:
        scratch.locked_until = 0.0  # it is gone, so nothing has to be waited for
    return Lock(plainly=plainly, with_bypass=bypass, shown=shown)


def _stays(scratch: Scratch, which: dict[str, str], options: dict[str, object]) -> bool:
    """Try to delete the locked object; return whether it is still there."""
    try:
        scratch.on("delete_object", "locked", **which, **options)
    except StoreError as error:
        if not errors.is_refused(error.__cause__):
            raise
    try:
        scratch.on("head_object", "locked", **which)
    except StoreError as error:
        if errors.is_missing(error.__cause__):
            return False
        raise
    return True


def _allowed(call: Callable[[], object]) -> bool:
    try:
        call()
    except StoreError as error:
        if not denied(error):
            raise
        return False
    return True
