"""Tries what opskit needs of an S3 server to write and to read, one thing a function.

All of them raise a `StoreError` where the server refuses what must work.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum

from opskit.errors import ObjectExists, StoreError
from opskit.store.s3 import errors
from opskit.store.s3_digest import etag_differs, md5
from opskit.store.s3_scratch import Scratch, not_implemented, refused

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
    upload_id = scratch.begin(name)
    try:
        part = scratch.part(name, upload_id, b"x")
        parts = [{"PartNumber": 1, "ETag": part["ETag"]}]
        return _conditional(
            lambda: scratch.on(
                "complete_multipart_upload",
                name,
                UploadId=upload_id,
                MultipartUpload={"Parts": parts},
                IfNoneMatch="*",
            )
        )
    finally:
        with contextlib.suppress(StoreError):
            scratch.abort(name, upload_id)


def small_upload(scratch: Scratch) -> None:
    """Put a few bytes by an upload of one part, and read them back."""
    upload_id = scratch.begin("part")
    try:
        part = scratch.part("part", upload_id, b"part")
        parts = [{"PartNumber": 1, "ETag": part["ETag"]}]
        scratch.on(
            "complete_multipart_upload",
            "part",
            UploadId=upload_id,
            MultipartUpload={"Parts": parts},
        )
    except BaseException:
        with contextlib.suppress(StoreError):
            scratch.abort("part", upload_id)
        raise
    with scratch.store.open(f"{scratch.prefix}part") as file:
        if file.read() != b"part":
            raise StoreError("an object in parts came back otherwise", hint=DISTRUST)


def range_read(scratch: Scratch) -> Answer:
    """Read from the middle of an object."""
    scratch.put("range", b"0123456789")
    answer = scratch.on("get_object", "range", Range="bytes=4-")
    with (
        errors.translated(scratch.bucket.where, scratch.prefix, reading=True),
        contextlib.closing(answer["Body"]) as body,
    ):
        content = body.read()
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
    upload_id = scratch.begin("damaged")
    sent = md5(bytearray(b"sent"))
    try:
        answer = scratch.part("damaged", upload_id, b"arrived", digest=sent)
    except StoreError as error:
        if not refused(error):
            raise
        return DamagedPart(refused=True, told_by_etag=True)
    finally:
        with contextlib.suppress(StoreError):
            scratch.abort("damaged", upload_id)
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
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="doctor") as pool:
        return sum(pool.map(put, range(count)))


def pages(scratch: Scratch, page_size: int) -> list[list[str]]:
    """Return the names of these objects as the server's pages bring them."""
    prefix = scratch.full("many/")
    client = scratch.bucket.client
    with errors.translated(scratch.bucket.where, f"{scratch.prefix}many/"):
        found = client.get_paginator("list_objects_v2").paginate(
            Bucket=scratch.bucket.name,
            Prefix=prefix,
            PaginationConfig={"PageSize": page_size},
        )
        return [
            [str(each["Key"]).removeprefix(prefix) for each in page["Contents"]]
            for page in found
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
