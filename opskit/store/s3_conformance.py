"""Tries what opskit needs of an S3 server, and takes away again what it made."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any, TypeVar

from opskit.errors import ObjectExists, StoreError, StoreUnavailable
from opskit.store import s3_errors
from opskit.store.s3 import S3Store
from opskit.store.s3_bucket import Bucket
from opskit.store.s3_digest import base64_of, etag_differs, md5

PART_BYTES = 5 * 1024**2
_TIMEOUT = timedelta(seconds=5)
_LOCK_SECONDS = 4
_THREADS = 8
_BATCH_MAX = 1000
_T = TypeVar("_T")


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


@dataclass(frozen=True, kw_only=True)
class Lock:
    """What came of attempts on an object under a short lock."""

    delete_refused: bool
    bypass_refused: bool


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
    return isinstance(error, StoreUnavailable) and not s3_errors.status_of(
        error.__cause__
    )


def denied(error: StoreError) -> bool:
    """Return whether the server said that the credentials lack the right."""
    return s3_errors.is_denied(error.__cause__)


def not_implemented(error: StoreError) -> bool:
    """Return whether the server said that it lacks what it was asked for."""
    return s3_errors.is_not_implemented(error.__cause__) or s3_errors.status_of(
        error.__cause__
    ) in (405, 501)


class Conformance:
    """One examination of a bucket, below one prefix.

    Every method raises a `StoreError` where the server refuses what must work. Calls
    are tried a second time only where the server answered that it is overloaded.
    """

    def __init__(self, store: S3Store, prefix: str) -> None:
        self.store = hasty(store)
        self.prefix = prefix
        self._bucket = Bucket(store.name, self.store.settings)
        self._locked_until = 0.0

    def server_time(self) -> datetime | None:
        """Return the time on the server's answer, whatever else it says."""
        try:
            answer = self._bucket.call("head_bucket")
        except StoreError as error:
            answer = getattr(error.__cause__, "response", None)
            if answer is None:
                raise
        date = answer["ResponseMetadata"].get("HTTPHeaders", {}).get("date", "")
        with contextlib.suppress(ValueError):
            return parsedate_to_datetime(date).astimezone(UTC)
        return None

    def put(self, name: str, content: bytes = b"x", **options: object) -> Any:
        """Put a small object below the prefix, without asking what is there."""
        return self._on(
            "put_object",
            name,
            Body=content,
            ContentMD5=base64_of(md5(bytearray(content))),
            **options,
        )

    def conditional_put(self) -> Answer:
        """Return what becomes of a put under the condition that there is no object."""
        self.put("condition")
        return self._conditional(lambda: self.put("condition", IfNoneMatch="*"))

    def conditional_completion(self) -> Answer:
        """Return the same of an upload in parts."""
        self.put("condition-parts")
        upload_id = self._begin("condition-parts")
        part = self._part("condition-parts", upload_id, b"x")
        try:
            return self._conditional(
                lambda: self._on(
                    "complete_multipart_upload",
                    "condition-parts",
                    UploadId=upload_id,
                    MultipartUpload={
                        "Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]
                    },
                    IfNoneMatch="*",
                )
            )
        finally:
            with contextlib.suppress(StoreError):
                self._abort("condition-parts", upload_id)

    def range_read(self) -> Answer:
        """Return whether the server reads from the middle of an object."""
        self.put("range", b"0123456789")
        with contextlib.closing(
            self._on("get_object", "range", Range="bytes=4-")["Body"]
        ) as body:
            content = body.read()
        if content == b"456789":
            return Answer.HONOURED
        if content == b"0123456789":
            return Answer.IGNORED
        raise StoreError(
            "a read from the middle of an object brought other bytes",
            hint="Do not rely on this store before you know why.",
        )

    def damaged_part(self) -> DamagedPart:
        """Send a part with another content's digest."""
        upload_id = self._begin("damaged")
        sent = bytearray(b"sent")
        try:
            answer = self._part("damaged", upload_id, b"arrived", digest=md5(sent))
        except StoreError as error:
            if not 400 <= s3_errors.status_of(error.__cause__) < 500:
                raise
            return DamagedPart(refused=True, told_by_etag=True)
        finally:
            with contextlib.suppress(StoreError):
                self._abort("damaged", upload_id)
        # An ETag that is no MD5 never differs, so it would not tell.
        return DamagedPart(
            refused=False, told_by_etag=etag_differs(answer, md5(sent).hex())
        )

    def aborted_upload(self) -> tuple[bool, bool]:
        """Return whether an upload that is under way is listed, and goes away."""
        upload_id = self._begin("abort")
        try:
            self._part("abort", upload_id, b"x")
            listed = self._lists_upload()
        finally:
            self._abort("abort", upload_id)
        return listed, not self._lists_upload()

    def fill(self, count: int, until: float) -> int:
        """Put small objects until there are so many, or the time is over."""

        def put(number: int) -> bool:
            if time.monotonic() > until:
                return False
            self.put(f"many/{number:04}")
            return True

        with ThreadPoolExecutor(_THREADS, thread_name_prefix="doctor") as pool:
            return sum(pool.map(put, range(count)))

    def pages(self, page_size: int) -> list[list[str]]:
        """Return the names of these objects as the server's pages bring them."""
        prefix = self._full("many/")
        found = self._bucket.client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket.name,
            Prefix=prefix,
            PaginationConfig={"PageSize": page_size},
        )
        with s3_errors.translated(self._bucket.where, f"{self.prefix}many/"):
            return [
                [str(each["Key"]).removeprefix(prefix) for each in page["Contents"]]
                for page in found
                if page.get("Contents")
            ]

    def delete_batch(self, names: Sequence[str]) -> int:
        """Delete up to 1,000 of them by one request; return how many were refused."""
        wanted = [{"Key": self._full(f"many/{name}")} for name in names[:_BATCH_MAX]]
        answer = self._call("delete_objects", Delete={"Objects": wanted, "Quiet": True})
        return len(answer.get("Errors", []))

    def lock(self, mode: str) -> Lock:
        """Lock an object for seconds, and try to delete its version.

        Args:
            mode: GOVERNANCE or COMPLIANCE.
        """
        now = self.server_time() or datetime.now(UTC)
        self._locked_until = time.monotonic() + _LOCK_SECONDS + 1
        version = self.put(
            "locked",
            ObjectLockMode=mode,
            ObjectLockRetainUntilDate=now + timedelta(seconds=_LOCK_SECONDS),
        ).get("VersionId")
        if version is None:
            return Lock(delete_refused=False, bypass_refused=False)
        refused = self._refuses_to_delete(version)
        bypass = refused and self._refuses_to_delete(
            version, BypassGovernanceRetention=True
        )
        return Lock(delete_refused=refused, bypass_refused=bypass)

    def remove(self) -> None:
        """Take away everything below the prefix, and the versions of it.

        Raises:
            StoreError: something is left.
        """
        self.store.discard(self.prefix)
        if self.store.versioning():
            time.sleep(max(0.0, self._locked_until - time.monotonic()))
            self._remove_versions()

    def _remove_versions(self) -> None:
        found = [*self._versions()]
        for at in range(0, len(found), _BATCH_MAX):
            answer = self._call(
                "delete_objects",
                Delete={"Objects": found[at : at + _BATCH_MAX], "Quiet": True},
            )
            for each in answer.get("Errors", []):
                raise StoreError(
                    f"{len(answer['Errors'])} versions cannot be deleted: "
                    f"{each.get('Code')}",
                    hint="Delete them by hand, or let a lifecycle rule do it.",
                )

    def _versions(self) -> Iterator[dict[str, str]]:
        for field in ("Versions", "DeleteMarkers"):
            for each in self._bucket.pages("list_object_versions", field, self.prefix):
                yield {"Key": each["Key"], "VersionId": each["VersionId"]}

    def _refuses_to_delete(self, version: str, **options: object) -> bool:
        try:
            self._on("delete_object", "locked", VersionId=version, **options)
            self._on("head_object", "locked", VersionId=version)
        except StoreError as error:
            status = s3_errors.status_of(error.__cause__)
            if s3_errors.is_missing(error.__cause__):
                return False
            if not 400 <= status < 500:
                raise
        return True

    def _conditional(self, call: Callable[[], object]) -> Answer:
        try:
            call()
        except ObjectExists:
            return Answer.HONOURED
        except StoreError as error:
            if not_implemented(error):
                return Answer.REFUSED
            raise
        return Answer.IGNORED

    def _lists_upload(self) -> bool:
        return any(self.store.unfinished(f"{self.prefix}abort"))

    def _begin(self, name: str) -> str:
        return str(self._on("create_multipart_upload", name)["UploadId"])

    def _part(
        self, name: str, upload_id: str, content: bytes, *, digest: bytes = b""
    ) -> Any:
        return self._on(
            "upload_part",
            name,
            UploadId=upload_id,
            PartNumber=1,
            Body=content,
            ContentMD5=base64_of(digest or md5(bytearray(content))),
        )

    def _abort(self, name: str, upload_id: str) -> None:
        self._on("abort_multipart_upload", name, UploadId=upload_id)

    def _full(self, name: str) -> str:
        return self._bucket.full_key(f"{self.prefix}{name}")

    def _on(self, operation: str, name: str, **parameters: object) -> Any:
        key = f"{self.prefix}{name}"
        return _again(lambda: self._bucket.on(operation, key, **parameters))

    def _call(self, operation: str, **parameters: object) -> Any:
        return _again(lambda: self._bucket.call(operation, **parameters))


def _again(call: Callable[[], _T]) -> _T:
    try:
        return call()
    except StoreUnavailable as error:
        if unanswered(error):
            raise
    time.sleep(0.5)
    return call()
