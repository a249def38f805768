"""A put in a bucket whose server loses answers, lacks things, or damages content."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from opskit.config import StoreSettings
from opskit.errors import ObjectExists, RetriesExhausted, StoreError
from opskit.store.s3 import errors
from opskit.store.s3.client import Bucket
from opskit.store.s3.upload import (
    PartSizes,
    Put,
    composite,
    etag_differs,
    md5,
)

KEY = "shop/dump"


class _Sizes(PartSizes):
    def next_bytes(self, sent_bytes: int) -> int:
        return 10


class _Server(Bucket):
    """A bucket that answers from memory, and as a test wants it to.

    Args:
        faults: by operation, what is raised once: before the server acts on it, or
            with "lost" in front after that.
    """

    def __init__(self, **faults: str) -> None:
        super().__init__("off", StoreSettings(url="s3://acme"))
        self.faults = faults
        self.objects: dict[str, dict[str, Any]] = {}
        self.parts: dict[str, dict[int, bytes]] = {}
        self.metadata: dict[str, dict[str, str]] = {}
        self.calls: list[str] = []
        self.drop_bytes = 0
        self.etag_of_other = False

    def on(self, operation: str, key: str, **parameters: Any) -> Any:
        self.calls.append(operation)
        fault = self.faults.get(operation, "")
        if fault and not (
            fault == "NotImplemented!" and "IfNoneMatch" not in parameters
        ):
            self.faults = {
                k: v for k, v in self.faults.items() if k != operation or v[-1] == "!"
            }
            fault = fault.rstrip("!")
            if fault.startswith("lost "):
                getattr(self, f"_{operation}")(key, parameters)
            raise self._error(fault.removeprefix("lost "), operation)
        return getattr(self, f"_{operation}")(key, parameters)

    def _error(self, code: str, operation: str) -> StoreError:
        status = {"NotImplemented": 501, "SlowDown": 503}.get(code, 400)
        error = ClientError(
            {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}},
            operation,
        )
        found = errors.answered(error, self.where, KEY)
        found.__cause__ = error
        return found

    def _head_object(self, key: str, _: Any) -> Any:
        if key not in self.objects:
            raise self._error("404", "HeadObject")
        return self.objects[key]

    def _store(self, key: str, content: bytes, etag: str, metadata: Any) -> None:
        content = content[: len(content) - self.drop_bytes]
        digest = hashlib.md5(b"other").hexdigest()
        self.objects[key] = {
            "ContentLength": len(content),
            "ETag": f'"{digest if self.etag_of_other else etag}"',
            "Metadata": {name.title(): value for name, value in metadata.items()},
        }

    def _put_object(self, key: str, parameters: Any) -> None:
        content = bytes(parameters["Body"])
        self._store(
            key, content, hashlib.md5(content).hexdigest(), parameters["Metadata"]
        )

    def _create_multipart_upload(self, key: str, parameters: Any) -> Any:
        self.parts["u"], self.metadata["u"] = {}, parameters["Metadata"]
        return {"UploadId": "u"}

    def _upload_part(self, key: str, parameters: Any) -> Any:
        content = bytes(parameters["Body"])
        self.parts["u"][parameters["PartNumber"]] = content
        digest = hashlib.md5(b"" if self.etag_of_other else content).hexdigest()
        return {"ETag": f'"{digest}"'}

    def _complete_multipart_upload(self, key: str, parameters: Any) -> None:
        parts = self.parts.pop("u")
        named = [each["PartNumber"] for each in parameters["MultipartUpload"]["Parts"]]
        digests = [md5(bytearray(parts[number])) for number in named]
        content = b"".join(parts[number] for number in named)
        self._store(key, content, composite(digests), self.metadata["u"])

    def _abort_multipart_upload(self, key: str, _: Any) -> None:
        del self.parts["u"]

    def _delete_object(self, key: str, _: Any) -> None:
        del self.objects[key]


WHOLE, PARTS = [b"123"], [b"0123456789"] * 3 + [b"x"]
COMMITS = [(WHOLE, "put_object"), (PARTS, "complete_multipart_upload")]


def _put(server: _Server, chunks: Any) -> dict[str, Any]:
    put = Put(
        server,
        KEY,
        options={},
        sizes=_Sizes(base_bytes=10, max_parts=100),
    )
    found: dict[str, Any] = put.send(chunks)
    return found


@pytest.mark.parametrize(
    "fault", ["lost SlowDown", "lost PreconditionFailed", "lost 404"]
)
@pytest.mark.parametrize(("chunks", "commit"), COMMITS)
def test_a_lost_answer_is_made_up_for(
    chunks: list[bytes], commit: str, fault: str
) -> None:
    """If what is there bears the mark of this put, then it succeeded."""
    server = _Server(**{commit: fault})

    assert _put(server, chunks)["ContentLength"] == len(b"".join(chunks))
    assert (list(server.objects), server.parts) == ([KEY], {})


@pytest.mark.parametrize(("chunks", "commit"), COMMITS)
def test_a_failed_end_is_told(chunks: list[bytes], commit: str) -> None:
    """If nothing is there, the error comes through and nothing is left."""
    server = _Server(**{commit: "SlowDown"})
    with pytest.raises(RetriesExhausted, match="SlowDown"):
        _put(server, chunks)

    assert (server.objects, server.parts) == ({}, {})


@pytest.mark.parametrize(("chunks", "commit"), COMMITS)
def test_another_in_between_is_told(chunks: list[bytes], commit: str) -> None:
    """What came after the look and before the end is another's: it stays."""
    server = _Server(**{commit: "PreconditionFailed", "head_object": "404"})
    server._put_object(KEY, {"Body": b"other", "Metadata": {"opskit-put": "x"}})
    before = dict(server.objects)
    with pytest.raises(ObjectExists):
        _put(server, chunks)

    assert (server.objects, server.parts) == (before, {})


@pytest.mark.parametrize(("chunks", "commit"), COMMITS)
def test_a_server_without_conditions_is_learnt(
    chunks: list[bytes], commit: str
) -> None:
    """It is asked with the condition once, then looked at first and without one."""
    server = _Server(**{commit: "NotImplemented!"})
    _put(server, chunks)
    first = server.calls.count(commit)
    server.objects.clear()
    _put(server, chunks)
    with pytest.raises(ObjectExists):
        _put(server, chunks)

    assert not server.takes_conditions
    assert (first, server.calls.count(commit)) == (2, 3)


@pytest.mark.parametrize("chunks", [WHOLE, PARTS])
@pytest.mark.parametrize(
    ("fault", "words"), [("drop_bytes", "holds"), ("etag_of_other", "ETag")]
)
def test_what_arrived_damaged_is_deleted(
    chunks: list[bytes], fault: str, words: str
) -> None:
    """A size or an ETag that is not that of what was sent is an error."""
    server = _Server()
    setattr(server, fault, 1)
    with pytest.raises(StoreError, match=words):
        _put(server, chunks)

    assert (server.objects, server.parts) == ({}, {})


def test_what_vanished_is_told() -> None:
    """A server that took an object and has none is no store."""
    server = _Server()
    server._store = lambda *_: None  # type: ignore[method-assign]
    with pytest.raises(StoreError, match="no longer has it"):
        _put(server, WHOLE)


def test_what_another_put_over_ours_stays() -> None:
    """On a server that overlooks conditions the loser is told, and deletes nothing."""
    server = _Server()
    put_object = server._put_object
    server._put_object = lambda key, _: put_object(  # type: ignore[method-assign, assignment]
        key, {"Body": b"other", "Metadata": {"opskit-put": "x"}}
    )
    with pytest.raises(ObjectExists):
        _put(server, WHOLE)

    assert server.objects[KEY]["ContentLength"] == 5


@pytest.mark.parametrize("fault", ["AccessDenied", "NoSuchUpload", "SlowDown"])
def test_a_failing_abort_hides_nothing(fault: str) -> None:
    """What broke off first is what is told."""
    server = _Server(abort_multipart_upload=fault)

    def chunks() -> Iterator[bytes]:
        yield from PARTS
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _put(server, chunks())

    assert server.objects == {}
    assert server.calls[-1] == "abort_multipart_upload"


def test_a_failing_part_ends_the_upload() -> None:
    """Parts that are stored already are given up."""
    server = _Server(upload_part="AccessDenied")
    with pytest.raises(StoreError, match="lack the right"):
        _put(server, PARTS)

    assert (server.objects, server.parts) == ({}, {})


def test_too_many_parts_are_refused() -> None:
    """The server's limit is told as such, and nothing is left."""
    server = _Server()
    with pytest.raises(StoreError, match="needs more than 100 parts"):
        _put(server, [b"0123456789"] * 101)

    assert (server.objects, server.parts) == ({}, {})


@pytest.mark.parametrize(
    ("faults", "number"),
    [({}, 101), ({"upload_part": "AccessDenied"}, 5), ({}, 5)],
    ids=["too many", "refused", "stored"],
)
def test_no_upload_keeps_room_for_good(faults: dict[str, str], number: int) -> None:
    """However it ended, the parts of the next ones have all of it."""
    server = _Server(**faults)
    with contextlib.suppress(StoreError):
        _put(server, [b"0123456789"] * number)

    def take_all() -> None:
        for _ in range(3):
            server.room.take(10)

    taker = threading.Thread(target=take_all, daemon=True)
    taker.start()
    taker.join(30)
    assert not taker.is_alive()


@pytest.mark.parametrize(
    ("answer", "differs"),
    [
        ({"ETag": '"' + "a" * 32 + '"'}, False),
        ({"ETag": '"' + "A" * 32 + '"'}, False),
        ({"ETag": '"' + "b" * 32 + '"'}, True),
        ({"ETag": '"opaque"'}, False),
        ({"ETag": '"' + "b" * 32 + '-2"'}, False),
        ({}, False),
        ({"ETag": "b" * 32, "ServerSideEncryption": "aws:kms"}, False),
        ({"ETag": "b" * 32, "ServerSideEncryption": "AES256"}, True),
        ({"ETag": "b" * 32, "SSECustomerAlgorithm": "AES256"}, False),
    ],
)
def test_only_etags_of_md5s_tell_something(
    answer: dict[str, str], differs: bool
) -> None:
    """Others are not held against the server."""
    assert etag_differs(answer, "a" * 32) is differs


def test_a_server_that_is_away_is_sent_nothing() -> None:
    """If even the look at the key gets no answer, the object is not tried."""
    server = _Server(head_object="SlowDown")
    with pytest.raises(RetriesExhausted):
        _put(server, WHOLE)

    assert server.calls == ["head_object"]


def test_a_look_that_is_refused_proves_nothing() -> None:
    """Without the right to list a missing object is a refusal: the put decides."""
    server = _Server(head_object="AccessDenied")

    assert _put(server, WHOLE)["ContentLength"] == 3
