"""The parts of one upload: a few at once, bounded in memory, all of them checked."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from opskit.errors import StoreError
from opskit.store import s3_digest, s3_errors
from opskit.store.s3_bucket import Bucket

_IN_FLIGHT_MAX = 2
_IN_FLIGHT_BYTES = 32 * 1024**2
_SETTLE_SECONDS = 30.0


def in_flight(part_bytes: int) -> int:
    """Return how many parts of a size may be on their way at once.

    Two small ones; of those above 16 MiB one, so that with the part that is being
    gathered meanwhile two are held in memory.
    """
    return max(1, min(_IN_FLIGHT_MAX, _IN_FLIGHT_BYTES // max(1, part_bytes)))


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
        number = size_bytes = 0
        try:
            for part in parts:
                number, size_bytes = number + 1, size_bytes + len(part)
                self._refuse_too_many(number)
                self._wait_until_below(in_flight(len(part)))
                self._pending.add(pool.submit(self._send, number, part))
                del part  # its memory ends with its upload
            self._wait_until_below(1)
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

    def _wait_until_below(self, count: int) -> None:
        while len(self._pending) >= count:
            done, self._pending = wait(self._pending, return_when=FIRST_COMPLETED)
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
        if s3_errors.code_of(error.__cause__) not in (
            "NoSuchUpload",
            "NoSuchKey",
            "404",
        ):
            raise
