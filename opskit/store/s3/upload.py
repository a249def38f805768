"""Puts one object: whole or in parts, never over another, and checked at the end."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from itertools import islice
from typing import Any

from opskit.errors import ObjectNotFound, RetriesExhausted, StoreError
from opskit.store.s3 import errors
from opskit.store.s3.client import Bucket
from opskit.threads import Pool

# With these kinds of encryption an ETag is not a digest of the content.
_OPAQUE = ("aws:kms", "aws:kms:dsse")


@dataclass(frozen=True, kw_only=True)
class Sent:
    """The size of what was sent, and the ETag of it where ETags are made of MD5s."""

    size_bytes: int
    etag: str


def md5(content: bytes | bytearray) -> bytes:
    """Return the digest that S3 checks what arrives with; it is no protection."""
    return hashlib.md5(content, usedforsecurity=False).digest()


def content_md5(digest: bytes) -> str:
    """Return the value of the Content-MD5 header for a digest."""
    return base64.b64encode(digest).decode()


def composite(digests: Sequence[bytes]) -> str:
    """Return the ETag of an object put in parts."""
    return f"{md5(b''.join(digests)).hex()}-{len(digests)}"


def etag_differs(answer: Mapping[str, Any], wanted: str) -> bool:
    """Return whether an ETag that is made of MD5s is not the one wanted.

    One of another form, or of encrypted content, tells nothing.
    """
    if (
        answer.get("ServerSideEncryption") in _OPAQUE
        or "SSECustomerAlgorithm" in answer
    ):
        return False
    etag = str(answer.get("ETag", "")).strip('"').lower()
    _, dash, count = wanted.partition("-")
    form = rf"[0-9a-f]{{32}}{dash}{count}"
    return re.fullmatch(form, etag) is not None and etag != wanted


def difference(sent: Sent, head: Mapping[str, Any]) -> str:
    """Return in words how what the server holds differs from what was sent, or ""."""
    if head["ContentLength"] != sent.size_bytes:
        return (
            f"the server holds {head['ContentLength']} bytes where "
            f"{sent.size_bytes} were sent"
        )
    if etag_differs(head, sent.etag):
        return f"the server's ETag is {head['ETag']} where {sent.etag} was sent"
    return ""


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

    def send(self, parts: Iterator[bytearray]) -> Sent:
        """Send every part, and tell what came of them.

        Raises:
            StoreError: a part could not be stored, or there are too many.
        """
        # Not a `with`: that would also wait for a server that has stopped answering.
        pool = Pool(_IN_FLIGHT_MAX, thread_name_prefix="s3-part")
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
        return Sent(size_bytes=size_bytes, etag=composite(digests))

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

    def _submit(self, pool: Pool, number: int, part: bytearray) -> Future[None]:
        try:
            if number > self._max_parts:
                raise StoreError(
                    f"{self._bucket.where.text(self._key)}: it needs more than "
                    f"{self._max_parts} parts",
                    hint="Raise part_size_bytes, or max_parts if the server allows "
                    "more.",
                )
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
        digest = md5(part)
        answer = self._bucket.on(
            "upload_part",
            self._key,
            UploadId=self._upload_id,
            PartNumber=number,
            Body=part,
            ContentMD5=content_md5(digest),
        )
        if etag_differs(answer, digest.hex()):
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
    except ObjectNotFound:
        return
    except StoreError as error:
        if errors.code_of(error.__cause__) != "NoSuchUpload":
            raise


PART_BYTES_MAX = 5 * 1024**3
_MOST_PARTS = 10_000
# Parts begin to grow after an eighth of them. With less, 5 TiB from 5 MiB on would
# need more parts than there are; with more, parts grow sooner and take more memory.
_GROWTH_SHARE = 8
_SMALLEST_BASE_BYTES = 5 * 1024**2


@dataclass(frozen=True, kw_only=True)
class PartSizes:
    """How large each part is.

    The first eighth of the parts are of the base size. From there a part is the bytes
    sent so far over an eighth of `max_parts`, and never above 5 GiB. With 10,000 parts
    of 8 MiB to begin with that is 8 MiB up to 10 GB, 80 MB at 100 GB, 800 MB at 1 TB
    and 4 GiB at 5 TiB. With 1,000 parts the base is 50 MiB, and the server's limits
    end at about 2 TiB; with 100 it is 500 MiB. How many are held in memory,
    `client.Room` says.
    """

    base_bytes: int
    max_parts: int

    def next_bytes(self, sent_bytes: int) -> int:
        """Return the size of the part that follows what was sent."""
        base = max(
            self.base_bytes, _SMALLEST_BASE_BYTES * _MOST_PARTS // self.max_parts
        )
        grown = sent_bytes // (self.max_parts // _GROWTH_SHARE)
        return min(max(base, grown), PART_BYTES_MAX)


def cut(chunks: Iterable[bytes], sizes: PartSizes) -> Iterator[tuple[bytearray, bool]]:
    """Yield parts and whether it is the last; at least one, which may be empty.

    A part is handed on as it was gathered, without a copy. The last is known for it
    because a chunk after it was looked for first.
    """
    source = iter(chunks)
    sent_bytes = 0
    part = bytearray()
    wanted = sizes.next_bytes(0)
    for chunk in source:
        view = memoryview(chunk)
        while view:
            if len(part) == wanted:
                full = [part]
                sent_bytes += wanted
                part, wanted = bytearray(), sizes.next_bytes(sent_bytes)
                # Neither this function nor its callers hold it while it is sent.
                yield full.pop(), False
            taken = view[: wanted - len(part)]
            part += taken
            view = view[len(taken) :]
    yield part, True


def handed_on(
    begun: list[bytearray], rest: Iterator[tuple[bytearray, bool]]
) -> Iterator[bytearray]:
    """Yield the part that a list holds and those that follow, keeping none of them."""
    while begun:
        yield begun.pop()
        begun.extend(part for part, _is_last in islice(rest, 1))


MARK = "opskit-put"


class Put:
    """One object on its way into a bucket.

    Each carries a random mark, so that an answer that was lost can be made up for: if
    the server then says that the key is taken, it may be by this very put.
    """

    def __init__(
        self,
        bucket: Bucket,
        key: str,
        *,
        options: dict[str, object],
        sizes: PartSizes,
    ) -> None:
        self._bucket, self._key, self._sizes = bucket, key, sizes
        self._mark = uuid.uuid4().hex
        self._options = {**options, "Metadata": {MARK: self._mark}}

    def send(self, chunks: Iterable[bytes]) -> Any:
        """Store the object and return what HEAD says of it.

        Raises:
            ObjectExists: the key is taken.
            StoreError: it could not be stored, or is not what was sent.
        """
        parts = cut(chunks, self._sizes)
        first, is_last = next(parts)
        if is_last:
            sent = self._whole(first)
        else:
            begun = [first]
            del first
            sent = self._in_parts(handed_on(begun, parts))
        return self._checked(sent)

    def _whole(self, content: bytearray) -> Sent:
        digest = md5(content)
        self._commit(
            lambda condition: self._bucket.on(
                "put_object",
                self._key,
                Body=content,
                ContentMD5=content_md5(digest),
                **self._options,
                **condition,
            )
        )
        return Sent(size_bytes=len(content), etag=digest.hex())

    def _in_parts(self, parts: Iterator[bytearray]) -> Sent:
        upload_id = ""
        begun_again = False
        try:
            answer = self._bucket.on(
                "create_multipart_upload", self._key, **self._options
            )
            upload_id = answer["UploadId"]
            metadata = answer.get("ResponseMetadata", {})
            begun_again = metadata.get("RetryAttempts", 0) > 0
            upload = PartsUpload(
                self._bucket,
                self._key,
                upload_id,
                max_parts=self._sizes.max_parts,
            )
            sent = upload.send(parts)
            self._commit(
                lambda condition: self._bucket.on(
                    "complete_multipart_upload",
                    self._key,
                    UploadId=upload_id,
                    MultipartUpload={"Parts": upload.parts},
                    **condition,
                )
            )
        except BaseException:
            if upload_id:
                # The first failure is the one to report; `unfinished` lists the rest.
                with contextlib.suppress(StoreError):
                    abort(self._bucket, self._key, upload_id)
            raise
        finally:
            if begun_again:
                self._abort_others(upload_id)
        return sent

    def _abort_others(self, upload_id: str) -> None:
        """Drop what an earlier try began, whose answer was lost; nobody else would."""
        with contextlib.suppress(StoreError):
            pages = self._bucket.pages("list_multipart_uploads", "Uploads", self._key)
            for each in [*pages]:
                ours = each["Key"] == self._bucket.full_key(self._key)
                if ours and each["UploadId"] != upload_id:
                    abort(self._bucket, self._key, each["UploadId"])

    def _commit(self, call: Callable[[dict[str, str]], object]) -> None:
        """Make the object visible, but never over another."""
        self._refuse_if_taken()
        try:
            self._conditionally(call)
        except StoreError as error:
            # The answer to an earlier try may be lost: what is there is then our own.
            head = self._head()
            if head is None or self._mark_of(head) != self._mark:
                raise error

    def _conditionally(self, call: Callable[[dict[str, str]], object]) -> None:
        if self._bucket.takes_conditions:
            try:
                call({"IfNoneMatch": "*"})
            except StoreError as error:
                if not errors.is_not_implemented(error.__cause__):
                    raise
                self._bucket.takes_conditions = False
            else:
                return
        call({})

    def _refuse_if_taken(self) -> None:
        """Look first: some servers overlook the condition without a word."""
        try:
            self._bucket.on("head_object", self._key)
        except RetriesExhausted:
            raise  # a server that is away will not take the object either
        except StoreError:
            # Without the right to list, a missing object is a refusal.
            return
        raise errors.exists(self._bucket.where, self._key)

    def _head(self) -> Any:
        # An error on top of another proves nothing.
        with contextlib.suppress(StoreError):
            return self._bucket.on("head_object", self._key)
        return None

    @staticmethod
    def _mark_of(head: Any) -> str:
        # Some servers write the names of metadata with capitals.
        metadata = {name.lower(): value for name, value in head["Metadata"].items()}
        return str(metadata.get(MARK, ""))

    def _checked(self, sent: Sent) -> Any:
        """Compare what the server holds with what was sent; delete it if it differs."""
        try:
            head = self._bucket.on("head_object", self._key)
        except ObjectNotFound as error:
            raise StoreError(
                f"{self._bucket.where.text(self._key)}: the server took it and "
                "no longer has it",
                hint="Look at the server's state and at the bucket's lifecycle rules.",
            ) from error
        if self._mark_of(head) not in ("", self._mark):
            raise errors.exists(self._bucket.where, self._key)  # put over ours
        if wrong := difference(sent, head):
            with contextlib.suppress(StoreError):
                self._bucket.on("delete_object", self._key)
            raise StoreError(
                f"{self._bucket.where.text(self._key)}: {wrong}",
                hint="What was stored is deleted again; look at the store's health.",
            )
        return head
