"""The parts of one upload: a few at once, bounded in memory, all of them checked."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from opskit.errors import StoreError
from opskit.store import s3_digest
from opskit.store.s3 import errors
from opskit.store.s3.client import Bucket

_IN_FLIGHT_MAX = 2
_SETTLE_SECONDS = 30.0


class PartsUpload:
    """Sends parts; `parts` is what the completion must name, in their order."""

    def __init__(
        self, bucket: Bucket, key: str, upload_id: str, *, max_parts: int
    ) -> None:
        self._bucket, self._key, self._upload_id = bucket, key, upload_id
        self._max_parts = max_parts
        self._done: dict[int, tuple[dict[str, Any], bytes]] = {}
        self._pending: set[Future[None]] = set()

    @property
    def parts(self) -> list[dict[str, Any]]:
        """What was sent so far."""
        return [self._done[number][0] for number in sorted(self._done)]

    def send(self, parts: Iterator[bytearray]) -> s3_digest.Sent:
        """Send every part, and tell what came of them.

        Raises:
            StoreError: a part could not be stored, or there are too many.
        """
        # Not a `with`: that would also wait for a server that has stopped answering.
        pool = ThreadPoolExecutor(_IN_FLIGHT_MAX, thread_name_prefix="s3-part")
        number = size_bytes = part_bytes = 0
        try:
            with self._bucket.room.upload():
                while (part := self._gathered(parts, part_bytes)) is not None:
                    number, part_bytes = number + 1, len(part)
                    size_bytes += part_bytes
                    self._pending.add(self._submit(pool, number, part))
                    del part  # its memory ends with its upload
                    self._raise_errors()
                while self._pending:
                    wait(self._pending, return_when=FIRST_COMPLETED)
                    self._raise_errors()
        finally:
            # An abort while parts arrive would leave those behind.
            running = [each for each in self._pending if not each.cancel()]
            pool.shutdown(wait=False)
            wait(running, timeout=_SETTLE_SECONDS)
        digests = [self._done[each][1] for each in sorted(self._done)]
        return s3_digest.Sent(size_bytes=size_bytes, etag=s3_digest.composite(digests))

    def _refuse_too_many(self, number: int) -> None:
        if number > self._max_parts:
            raise StoreError(
                f"{self._bucket.where.text(self._key)}: it needs more than "
                f"{self._max_parts} parts",
                hint="Raise part_size_bytes, or max_parts if the server allows more.",
            )

    def _gathered(
        self, parts: Iterator[bytearray], part_bytes: int
    ) -> bytearray | None:
        """Return the next part, once there is room to gather it; None at the end."""
        room = self._bucket.room
        room.take(part_bytes)
        part = None
        try:
            part = next(parts, None)
        finally:
            if part is None:
                room.give_back()
        return part

    def _submit(
        self, pool: ThreadPoolExecutor, number: int, part: bytearray
    ) -> Future[None]:
        try:
            self._refuse_too_many(number)
            sent = pool.submit(self._send, number, part)
        except BaseException:
            self._bucket.room.give_back()
            raise
        # Also if it is cancelled before it begins.
        sent.add_done_callback(lambda _sent: self._bucket.room.give_back())
        return sent

    def _raise_errors(self) -> None:
        done = {each for each in self._pending if each.done()}
        self._pending -= done
        for each in done:
            each.result()

    def _send(self, number: int, part: bytearray) -> None:
        digest = s3_digest.md5(part)
        answer = self._bucket.on(
            "upload_part",
            self._key,
            UploadId=self._upload_id,
            PartNumber=number,
            Body=part,
            ContentMD5=s3_digest.base64_of(digest),
        )
        if s3_digest.etag_differs(answer, digest.hex()):
            raise StoreError(
                f"{self._bucket.where.text(self._key)}: the server's ETag of part "
                f"{number} is {answer['ETag']} where {digest.hex()} was sent",
                hint="Look at the store's health; nothing was stored.",
            )
        checksums = {k: v for k, v in answer.items() if k.startswith("Checksum")}
        checksums.pop("ChecksumType", None)
        named = {"PartNumber": number, "ETag": answer["ETag"], **checksums}
        self._done[number] = (named, digest)


def abort(bucket: Bucket, key: str, upload_id: str) -> None:
    """Drop an upload and its parts; one that is gone is dropped already.

    Raises:
        StoreError: the server refused or did not answer.
    """
    try:
        bucket.on("abort_multipart_upload", key, UploadId=upload_id)
    except StoreError as error:
        if errors.code_of(error.__cause__) not in (
            "NoSuchUpload",
            "NoSuchKey",
            "404",
        ):
            raise
