"""S3 on three servers: what each cannot do, locks, rights, and what is left behind."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from botocore.exceptions import ClientError

from opskit.errors import StoreError
from opskit.store import S3Store, open_store
from tests import s3_servers
from tests.s3_servers import BUCKET, LOCKED_BUCKET, S3Server
from tests.unit.store_contract import LARGE

_prefixes = (f"stores-{number}" for number in itertools.count(1))


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give boto3 the credentials of the tests' servers, and only those."""
    for name, value in s3_servers.environment().items():
        monkeypatch.setenv(name, value)


def _conditional_put(store: S3Store) -> bool:
    store.put("a", [b"1"])
    return _refused(
        lambda: store.bucket.client.put_object(
            Bucket=store.bucket.name,
            Key=store.bucket.full_key("a"),
            Body=b"2",
            IfNoneMatch="*",
        )
    )


def _conditional_completion(store: S3Store) -> bool:
    name = {"Bucket": store.bucket.name, "Key": store.bucket.full_key("a")}
    upload = store.bucket.client.create_multipart_upload(**name)["UploadId"]
    part = store.bucket.client.upload_part(
        **name, UploadId=upload, PartNumber=1, Body=b"x" * 5 * 1024**2
    )
    store.put("a", [b"1"])
    return _refused(
        lambda: store.bucket.client.complete_multipart_upload(
            **name,
            UploadId=upload,
            MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
            IfNoneMatch="*",
        )
    )


def _object_lock(store: S3Store) -> bool:
    return store.lock_configuration() is not None


def _versions(store: S3Store) -> bool:
    return store.versioning() == "Enabled"


def _time_of_uploads(store: S3Store) -> bool:
    store.bucket.client.create_multipart_upload(
        Bucket=store.bucket.name, Key=store.bucket.full_key("slow")
    )
    (found,) = store.unfinished()
    return abs(datetime.now(UTC) - found.modified_at) < timedelta(minutes=5)


def _secret_checked(store: S3Store) -> bool:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        other = S3Store("wrong", store.settings)
        return _refused(
            lambda: other.bucket.client.list_objects_v2(Bucket=store.bucket.name)
        )


def _content_checked(store: S3Store) -> bool:
    return _refused(
        lambda: store.bucket.client.put_object(
            Bucket=store.bucket.name,
            Key=store.bucket.full_key("a"),
            Body=b"x",
            ContentMD5="1B2M2Y8AsgTpgAmY7PhCfg==",  # of nothing
        )
    )


def _refused(call: Callable[[], object]) -> bool:
    try:
        call()
    except ClientError:
        return True
    return False


ABILITIES: dict[str, Callable[[S3Store], bool]] = {
    "conditional put": _conditional_put,
    "conditional completion": _conditional_completion,
    "object lock": _object_lock,
    "versions": _versions,
    "time of uploads": _time_of_uploads,
    "secret checked": _secret_checked,
    "content checked": _content_checked,
}
# What the servers are known to be unable to do. It is tried, so that the list stays true.
CANNOT: dict[str, dict[str, str]] = {
    "seaweedfs": {},
    "moto": {
        "time of uploads": "every upload began in 2010",
        "secret checked": "any secret fits",
        "content checked": "Content-MD5 is overlooked",
    },
    "rclone": {
        "conditional put": "the condition is overlooked",
        "conditional completion": "the condition is overlooked",
        "object lock": "there is none",
        "versions": "there are none",
    },
}


@pytest.mark.parametrize("ability", ABILITIES)
@pytest.mark.parametrize("kind", CANNOT)
def test_servers_can_do_what_is_not_excepted(
    request: pytest.FixtureRequest, kind: str, ability: str
) -> None:
    """Each server does everything but what `CANNOT` says of it, and that it does not."""
    server: S3Server = request.getfixturevalue(kind)
    bucket = BUCKET if kind == "rclone" else LOCKED_BUCKET
    store = S3Store(kind, server.settings(bucket, next(_prefixes)))

    assert ABILITIES[ability](store) is (ability not in CANNOT[kind])


@pytest.fixture
def locked(seaweedfs: S3Server) -> S3Store:
    """A store that locks what it writes for a day."""
    return S3Store(
        "locked",
        seaweedfs.settings(LOCKED_BUCKET, next(_prefixes), object_lock_days=1),
    )


@pytest.mark.parametrize("chunks", [[b"x"], LARGE], ids=["whole", "in parts"])
def test_what_is_written_is_locked(locked: S3Store, chunks: list[bytes]) -> None:
    """Each object is retained for the days configured, and its version stays."""
    locked.put("a", chunks)
    name = {"Bucket": locked.bucket.name, "Key": locked.bucket.full_key("a")}
    retention = locked.bucket.client.get_object_retention(**name)["Retention"]
    version = locked.bucket.client.head_object(**name)["VersionId"]
    with pytest.raises(ClientError, match=r"AccessDenied|locked|retention"):
        locked.bucket.client.delete_object(**name, VersionId=version)
    until = retention["RetainUntilDate"] - datetime.now(UTC)

    assert retention["Mode"] == "GOVERNANCE"
    assert timedelta(hours=23, minutes=58) < until <= timedelta(days=1)
    assert locked.bucket.client.head_object(**name, VersionId=version)[
        "ContentLength"
    ] == sum(map(len, chunks))


def test_a_bucket_without_object_lock_is_told(seaweedfs: S3Server) -> None:
    """Retention that the bucket cannot keep is an error, not left out."""
    store = S3Store(
        "plain", seaweedfs.settings(BUCKET, next(_prefixes), object_lock_days=1)
    )
    with pytest.raises(StoreError, match="store plain: a: ") as refused:
        store.put("a", [b"x"])

    assert "object lock" in refused.value.message + refused.value.hint
    assert store.lock_configuration() is None
    assert list(store.list()) == []


def test_without_the_right_to_delete_all_else_works(
    seaweedfs: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such credentials put, list and read; a deletion names the right that lacks."""
    writer = s3_servers.environment(s3_servers.WRITER_KEY, s3_servers.WRITER_SECRET)
    for name, value in writer.items():
        monkeypatch.setenv(name, value)
    store = open_store("careful", seaweedfs.settings(BUCKET, next(_prefixes)))
    store.put("a/b", [b"x"])
    store.put("a/c", LARGE)
    for refused in (lambda: store.delete("a/b"), lambda: store.discard("a/")):
        with pytest.raises(StoreError, match="lack the right s3:DeleteObject"):
            refused()

    assert [each.key for each in store.list()] == ["a/b", "a/c"]
    assert list(store.unfinished()) == []


# A part that is on its way might arrive after the upload was removed, and stay.
_KILLED = """
import os, sys, signal, time
from opskit.config import StoreSettings
from opskit.store import open_store
settings = StoreSettings.model_validate_json(sys.argv[1])
store = open_store("killed", settings)
def chunks():
    for _ in range(20):
        yield b"x" * 1_000_000
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if sum(each.size_bytes for each in store.unfinished()) >= 16 * 1024**2:
            break
        time.sleep(0.05)
    sys.stdout.write("ready")
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)
store.put("shop/2026/dump", chunks())
"""


@pytest.mark.parametrize("way", ["discard", "sweep"])
@pytest.mark.parametrize("kind", CANNOT)
def test_what_a_killed_run_leaves_is_found_and_removed(
    request: pytest.FixtureRequest, kind: str, way: str
) -> None:
    """No object is listed; the upload is, with its size, until it is removed."""
    server: S3Server = request.getfixturevalue(kind)
    settings = server.settings(BUCKET, next(_prefixes))
    written = settings.model_dump_json(
        include={"url", "endpoint_url", "region", "addressing"}
    )
    killed = subprocess.run(
        [sys.executable, "-c", _KILLED, written], stdout=subprocess.PIPE, timeout=300
    )
    store = open_store("killed", settings)
    listed = list(store.list())
    (left,) = store.unfinished("shop/")
    elsewhere = list(store.unfinished("other/"))
    second = timedelta(seconds=1)
    swept = [
        store.sweep("other/", before=left.modified_at + second),
        store.sweep("shop/", before=left.modified_at),
    ]
    still = list(store.unfinished("shop/"))
    if way == "discard":
        store.discard("shop/")
    else:
        assert store.sweep("shop/", before=left.modified_at + second) == 1

    assert (swept, still) == ([0, 0], [left])
    assert (killed.returncode, killed.stdout) == (-9, b"ready")
    assert (listed, elsewhere) == ([], [])
    assert left.key == "shop/2026/dump"
    assert 0 <= left.size_bytes <= 20_000_000
    assert list(store.unfinished()) == []


@pytest.mark.parametrize("kind", ["seaweedfs", "moto"])
def test_more_keys_than_a_page_are_listed_and_discarded(
    request: pytest.FixtureRequest, kind: str
) -> None:
    """A listing has pages of a thousand: all of them are read, and all keys go."""
    server: S3Server = request.getfixturevalue(kind)
    store = S3Store(kind, server.settings(BUCKET, next(_prefixes)))
    wanted = [f"many/{number:04}" for number in range(1050)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: _put_plainly(store, key), ["neighbour", *wanted]))
    found = [each.key for each in store.list("many/")]
    store.discard("many/")

    assert found == wanted
    assert [each.key for each in store.list()] == ["neighbour"]


def _put_plainly(store: S3Store, key: str) -> None:
    store.bucket.client.put_object(
        Bucket=store.bucket.name, Key=store.bucket.full_key(key), Body=b""
    )


def test_foreign_keys_are_listed_but_no_folders(seaweedfs: S3Server) -> None:
    """What others put there is told as it is; what a console made as a folder is not."""
    store = S3Store("weed", seaweedfs.settings(BUCKET, next(_prefixes)))
    for key in ("shop/", ".hidden", "shop/a b+c%20é"):
        _put_plainly(store, key)

    assert [each.key for each in store.list()] == [".hidden", "shop/a b+c%20é"]


def test_two_parts_are_sent_at_once(moto: S3Server) -> None:
    """Parts go beside each other, never more than two, and all arrive in order."""
    store = S3Store("moto", moto.settings(BUCKET, next(_prefixes)))
    together = threading.Barrier(2)
    running, most = [0], [0]
    lock = threading.Lock()

    def before(**_: object) -> None:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        if not together.broken:
            together.wait(timeout=20)

    def after(**_: object) -> None:
        with lock:
            running[0] -= 1

    store.bucket.client.meta.events.register("before-call.s3.UploadPart", before)
    store.bucket.client.meta.events.register("after-call.s3.UploadPart", after)
    chunks = [bytes([number]) * 8 * 1024**2 for number in range(6)]
    store.put("a", chunks)
    with store.open("a") as file:
        content = file.read()

    assert most == [2]
    assert content == b"".join(chunks)


def test_memory_is_bounded(seaweedfs: S3Server) -> None:
    """An object of 300 MB passes through a few parts' worth of memory."""
    store = S3Store("weed", seaweedfs.settings(BUCKET, next(_prefixes)))
    store.put("warm", LARGE)
    block = bytes(1024**2)
    tracemalloc.start()
    try:
        put = store.put("a", (block for _ in range(300)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert put.size_bytes == 300 * 1024**2
    assert peak < 60 * 1024**2
