"""A store in a bucket of any S3-compatible server."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, BinaryIO, cast

from opskit.config import StoreSettings
from opskit.errors import ObjectNotFound, StoreError
from opskit.store.base import ObjectInfo, check_key
from opskit.store.s3 import errors
from opskit.store.s3.client import Body, Bucket, etag_of, files, info_of, whole_seconds
from opskit.store.s3.upload import PartSizes, Put, abort

_BUFFER_BYTES = 256 * 1024
_BATCH_MAX = 1000
# Claims and probes: a lock would only keep them from being removed.
_PASSING = ("_locks/", "_doctor/", "_fleet/")
# With these a server says that it cannot delete many at once, or not in this form.
_NO_BATCHES = (400, 405, 411, 501)


class S3Store:
    """Objects in a bucket, below the prefix of the URL.

    boto3 asks again by itself, with growing and random waits, up to `attempts` times;
    only reading is not asked again for once it has begun. Opening does not touch the
    network. Times are whole seconds, since HEAD gives no more.
    """

    def __init__(
        self,
        name: str,
        settings: StoreSettings,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.name, self.settings = name, settings
        self.bucket = Bucket(name, settings)
        self._clock = clock
        self._sizes = PartSizes(
            base_bytes=settings.part_size_bytes, max_parts=settings.max_parts
        )

    def put(self, key: str, chunks: Iterable[bytes]) -> ObjectInfo:
        """See `Store.put`; what does not fit into one part is put in parts."""
        check_key(key)
        put = Put(
            self.bucket,
            key,
            options=self._retention(key),
            sizes=self._sizes,
        )
        return info_of(key, put.send(chunks))

    @contextlib.contextmanager
    def open(self, key: str, start: int = 0) -> Iterator[BinaryIO]:
        """See `Store.open`.

        Raises:
            StoreUnavailable: while reading, if the answer breaks off.
        """
        check_key(key)
        try:
            answer = self.bucket.on("get_object", key, **self._reading_from(start))
        except StoreError as error:
            if errors.status_of(error.__cause__) != 416:
                raise
            yield io.BytesIO()  # from beyond the end there is nothing to read
            return
        body = Body(answer["Body"], answer["ContentLength"], self.bucket.where, key)
        with io.BufferedReader(body, _BUFFER_BYTES) as file:
            if start and "ContentRange" not in answer:
                body.skip(start)  # the server sent it from the beginning
            yield cast(BinaryIO, file)

    def stat(self, key: str) -> ObjectInfo:
        return info_of(key, self.bucket.on("head_object", check_key(key)))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `Store.list`; sorted here, since not every server does."""
        entries = self.bucket.pages("list_objects_v2", "Contents", prefix)
        # Consoles make folders as empty objects with a slash at the end.
        keys = (self._entry(each, "LastModified") for each in entries)
        return iter(sorted(files(keys), key=lambda each: each.key))

    def unfinished(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `Store.unfinished`; here these are uploads that were not completed.

        Of a server that cannot list them, none are known.
        """
        for upload in sorted(self._uploads(prefix), key=lambda each: str(each["Key"])):
            info = self._entry(upload, "Initiated")
            with contextlib.suppress(StoreError):
                info = self._grown(info, upload)
            yield info

    def sweep(self, prefix: str, *, before: datetime) -> int:
        swept = 0
        for upload in [*self._uploads(prefix)]:
            try:
                grown = self._grown(self._entry(upload, "Initiated"), upload)
            except StoreError:
                continue  # whether it still grows, nobody can say
            if grown.modified_at < before:
                abort(self.bucket, self._key(upload), upload["UploadId"])
                swept += 1
        return swept

    def delete(self, key: str) -> None:
        """See `Store.delete`; a bucket with versions keeps the content as one."""
        with contextlib.suppress(ObjectNotFound):
            self.bucket.on("delete_object", check_key(key))

    def discard(self, prefix: str) -> None:
        check_key(prefix.removesuffix("/"))
        for upload in [*self._uploads(prefix)]:
            abort(self.bucket, self._key(upload), upload["UploadId"])
        entries = self.bucket.pages("list_objects_v2", "Contents", prefix)
        keys = [self._key(each) for each in entries]
        for at in range(0, len(keys), _BATCH_MAX):
            self._delete_all(keys[at : at + _BATCH_MAX])

    def lock_configuration(self) -> dict[str, Any] | None:
        """Return the bucket's object lock, or None if it has none.

        Raises:
            StoreError: the server refused to tell, or did not answer.
        """
        try:
            answer = self.bucket.call("get_object_lock_configuration")
        except StoreError as error:
            lacks = errors.code_of(error.__cause__).startswith("ObjectLockConfig")
            if lacks or errors.is_not_implemented(error.__cause__):
                return None
            raise
        lock: dict[str, Any] = answer.get("ObjectLockConfiguration", {})
        return lock if lock.get("ObjectLockEnabled") == "Enabled" else None

    def versioning(self) -> str:
        """Return `Enabled`, `Suspended` or, if the bucket keeps no versions, "".

        Raises:
            StoreError: the server refused to tell, or did not answer.
        """
        try:
            return str(self.bucket.call("get_bucket_versioning").get("Status", ""))
        except StoreError as error:
            if errors.is_not_implemented(error.__cause__):
                return ""
            raise

    def _reading_from(self, start: int) -> dict[str, str]:
        if start:
            return {"Range": f"bytes={start}-"}
        checked = self.settings.checksums == "when_supported"
        return {"ChecksumMode": "ENABLED"} if checked else {}

    def _retention(self, key: str) -> dict[str, object]:
        if not self.settings.object_lock_days or key.startswith(_PASSING):
            return {}
        until = self._clock() + timedelta(days=self.settings.object_lock_days)
        return {
            "ObjectLockMode": self.settings.object_lock_mode.upper(),
            "ObjectLockRetainUntilDate": until,
        }

    def _uploads(self, prefix: str) -> Iterator[dict[str, Any]]:
        try:
            yield from self.bucket.pages("list_multipart_uploads", "Uploads", prefix)
        except StoreError as error:
            # rclone says NoSuchUpload where there are none.
            none = errors.code_of(error.__cause__) == "NoSuchUpload"
            if not none and not errors.is_not_implemented(error.__cause__):
                raise

    def _grown(self, begun: ObjectInfo, upload: dict[str, Any]) -> ObjectInfo:
        """Return an upload with its parts; an old one that still grows is not old."""
        key, upload_id = self._key(upload), upload["UploadId"]
        parts = [*self.bucket.pages_of_parts(key, upload_id)]
        times = [whole_seconds(each["LastModified"]) for each in parts]
        return ObjectInfo(
            key=begun.key,
            size_bytes=sum(each["Size"] for each in parts),
            modified_at=max([begun.modified_at, *times]),
        )

    def _delete_all(self, keys: Sequence[str]) -> None:
        wanted = [{"Key": self.bucket.full_key(key)} for key in keys]
        try:
            answer = self.bucket.call(
                "delete_objects", Delete={"Objects": wanted, "Quiet": True}
            )
        except StoreError as error:
            if errors.status_of(error.__cause__) not in _NO_BATCHES:
                raise
            failed = keys
        else:
            failed = [self._key(each) for each in answer.get("Errors", [])]
        for key in failed:  # one by one, which says what is wrong with each
            self.bucket.on("delete_object", key)

    def _key(self, entry: dict[str, Any]) -> str:
        return str(entry["Key"]).removeprefix(self.bucket.prefix)

    def _entry(self, entry: dict[str, Any], at: str) -> ObjectInfo:
        return ObjectInfo(
            key=self._key(entry),
            size_bytes=entry.get("Size", 0),
            modified_at=whole_seconds(entry[at]),
            etag=etag_of(entry),
        )
