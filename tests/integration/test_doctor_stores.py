"""The conformance probe and the challenge on three servers that differ."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from opskit.checks import Check, Health, worst
from opskit.doctor.stores import examine
from opskit.store import S3Store, Store, open_store
from opskit.store.s3.trial import challenge
from tests import s3_servers
from tests.proxy import Fault, Proxy, proxy_to
from tests.s3_servers import BUCKET, LOCKED_BUCKET, S3Server
from tests.support import now

_prefixes = (f"doctor-{number}" for number in itertools.count(1))
_NAMES = [
    "", "clock", "delete", "multipart", "conditional put", "range read", "checksums",
    "abort", "listing", "batch delete", "versioning", "object lock",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give boto3 the tests' credentials."""
    for name, value in s3_servers.environment().items():
        monkeypatch.setenv(name, value)


@pytest.fixture(autouse=True)
def _few_keys_in_any_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """List few keys, where a test is not about their number, and take any time."""
    monkeypatch.setattr("opskit.doctor.s3._KEYS", 21)
    for each in ("_FILL_SECONDS", "_SECONDS_MAX"):
        monkeypatch.setattr(f"opskit.doctor.s3.{each}", 600.0)
    monkeypatch.setattr("opskit.store.s3.trial._TIMEOUT", timedelta(seconds=60))


@pytest.fixture
def all_keys(monkeypatch: pytest.MonkeyPatch, _few_keys_in_any_time: None) -> None:
    """List as many as doctor does."""
    monkeypatch.setattr("opskit.doctor.s3._KEYS", 1001)


@pytest.fixture
def servers(request: pytest.FixtureRequest) -> Any:
    """Return a function that gives a running server by its name."""
    return request.getfixturevalue


@pytest.fixture
def proxy(servers: Any) -> Iterator[Proxy]:
    """A proxy in front of SeaweedFS."""
    with proxy_to(servers("seaweedfs").endpoint_url) as running:
        yield running


def _store(server: S3Server, bucket: str = BUCKET, **settings: Any) -> Store:
    return open_store("off", server.settings(bucket, next(_prefixes), **settings))


def _behind(proxy: Proxy, servers: Any, **settings: Any) -> Store:
    server = replace(servers("seaweedfs"), endpoint_url=proxy.endpoint_url)
    return _store(server, **settings)


def _examined(store: Store) -> dict[str, Check]:
    found = [*examine(store, now=now)]
    names = [each.name.removeprefix("store off").removeprefix(": ") for each in found]
    return dict(zip(names, found, strict=True))


def _left(server: S3Server, bucket: str) -> list[str]:
    client = S3Store("maker", server.settings(bucket)).bucket.client
    pages = client.get_paginator("list_object_versions").paginate(Bucket=bucket)
    return [
        each["Key"]
        for page in pages
        for field in ("Versions", "DeleteMarkers")
        for each in page.get(field, [])
        if "_doctor/" in each["Key"]
    ]


def _as_writer(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3_servers.environment(
        s3_servers.WRITER_KEY, s3_servers.WRITER_SECRET
    ).items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("all_keys")
@pytest.mark.parametrize("kind", ["seaweedfs", "moto"])
def test_a_server_that_can_all_is_healthy_and_left_clean(
    servers: Any, kind: str
) -> None:
    """Every finding is there, over 1,000 keys were listed, and nothing is left."""
    server = servers(kind)
    store = _store(server)

    found = _examined(store)

    assert list(found) == _NAMES
    assert worst(found.values()) is Health.HEALTHY
    assert found["listing"].observed == "1001 keys in 2 pages"
    assert found["batch delete"].observed == "1000 keys deleted by one request"
    assert found["versioning"].observed == "off; what is deleted is gone"
    assert [*store.list(), *store.unfinished()] == []


def test_a_server_that_takes_damaged_parts_is_said_to(servers: Any) -> None:
    """moto does not look at Content-MD5, SeaweedFS does."""
    weed = _examined(_store(servers("seaweedfs")))["checksums"]
    moto = _examined(_store(servers("moto")))["checksums"]

    assert weed.observed == "a part that arrives damaged is refused"
    assert moto.observed.startswith("a part that arrives damaged is taken; opskit sees")


def test_a_server_without_conditions_is_degraded(servers: Any) -> None:
    """What rclone ignores is told, and what follows from it."""
    found = _examined(_store(servers("rclone")))

    assert found["conditional put"].status is Health.DEGRADED
    assert found["conditional put"].observed == (
        "not honoured; opskit looks before it writes, but cannot notice that another "
        "host writes the same key at the same instant"
    )
    others = [each for name, each in found.items() if name != "conditional put"]
    assert worst(others) is Health.HEALTHY


@pytest.mark.parametrize("kind", ["seaweedfs", "moto", "rclone"])
def test_a_lock_that_the_bucket_lacks_is_unhealthy(servers: Any, kind: str) -> None:
    """Also where the server would take the lock without a word."""
    found = _examined(_store(servers(kind), object_lock_days=30))["object lock"]

    assert found.status is Health.UNHEALTHY
    assert found.observed == "the bucket has none, but object_lock_days is 30"
    assert "Make a bucket with object lock" in found.hint


@pytest.mark.parametrize(
    ("mode", "status"),
    [("governance", Health.DEGRADED), ("compliance", Health.HEALTHY)],
)
def test_a_lock_is_tried_and_all_versions_go_away(
    servers: Any, mode: str, status: Health
) -> None:
    """An administrator may lift governance, nobody compliance; nothing is left."""
    server = servers("seaweedfs")
    store = _store(server, LOCKED_BUCKET, object_lock_days=30, object_lock_mode=mode)

    found = _examined(store)

    assert found["object lock"].status is status
    assert f"30 days ({mode})" in found["object lock"].observed
    assert "noncurrent versions" in found["versioning"].hint
    assert "clean-up" not in found
    assert _left(server, LOCKED_BUCKET) == []


def test_a_lock_that_ended_before_it_was_tried_is_tried_again_with_a_longer_one(
    servers: Any, proxy: Proxy
) -> None:
    """A machine that stood still meanwhile says nothing of the server."""
    server = replace(servers("seaweedfs"), endpoint_url=proxy.endpoint_url)
    proxy.fail(
        lambda request: (
            request.operation == "DeleteObject" and request.path.endswith("/locked")
        ),
        Fault(delay_seconds=5),
    )

    found = _examined(_store(server, LOCKED_BUCKET, object_lock_days=30))

    assert found["object lock"].observed == (
        "honoured for 30 days (governance), but these very credentials may lift it"
    )
    assert _left(server, LOCKED_BUCKET) == []


def test_credentials_that_may_not_delete_are_healthy_and_leave_little(
    servers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says what they cannot do, and what was left where."""
    store = _store(servers("seaweedfs"))
    _as_writer(monkeypatch)

    found = _examined(store)

    left = [*store.list()]
    assert worst(found.values()) is Health.HEALTHY
    assert found[""].observed == "writes, reads and lists"
    assert found["delete"].observed == (
        "these credentials may not delete: backup works, prune needs others"
    )
    assert found["clean-up"].observed.startswith(
        f"{len(left)} objects or versions of them are left in plain/doctor-"
    )
    assert len(left) < 12
    assert sum(each.size_bytes for each in left) < 512 * 1024


def test_a_wrong_secret_is_told_with_the_clock(
    servers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock is told too, since it may be the reason; nothing else is tried."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")

    found = _examined(_store(servers("seaweedfs")))

    assert list(found) == ["", "clock"]
    assert found[""].status is Health.UNHEALTHY
    assert "the secret key is wrong" in found[""].observed
    assert "wrong-secret" not in str(found)


def test_a_clock_off_by_an_hour_is_unhealthy(servers: Any) -> None:
    """The server's Date header is what it is compared with."""
    store = _store(servers("seaweedfs"))

    found = [*examine(store, now=lambda: now() - timedelta(hours=1))]

    assert found[1].name == "store off: clock"
    assert found[1].status is Health.UNHEALTHY
    assert found[1].hint == "Set this host's clock (NTP)."


@pytest.mark.parametrize(
    "operation", ["HeadBucket", "PutObject", "CompleteMultipartUpload", "DeleteObjects"]
)
def test_a_server_that_stops_answering_is_given_up(
    servers: Any, proxy: Proxy, operation: str
) -> None:
    """With a timeout of a second it takes no minute, and no other trial is begun."""
    store = _behind(proxy, servers, timeout="1s")
    proxy.fail(operation, Fault(hold=True), times=None)
    begin = time.monotonic()

    found = _examined(store)

    assert time.monotonic() - begin < 60
    silent = next(name for name, each in found.items() if "in time" in each.observed)
    assert found[silent].status is Health.UNHEALTHY
    if silent == "":  # it cannot be used at all
        assert found.keys() <= {"", "clock"}
    else:
        later = [found[name] for name in _NAMES[_NAMES.index(silent) + 1 :]]
        assert later
        assert {(each.observed, each.passed) for each in later} == {
            ("not examined: the server stopped answering", None)
        }


def test_a_server_that_dies_half_way_is_cleaned_up_later_and_said(
    servers: Any, proxy: Proxy
) -> None:
    """What could not be removed is named with its place."""
    store = _behind(proxy, servers)
    proxy.fail("DeleteObjects", Fault(cut_upload_after=0), times=None)

    found = _examined(store)
    proxy.heal()

    (left,) = {each.key.split("/")[1] for each in store.list("_doctor/")}
    assert found["clean-up"].status is Health.DEGRADED
    assert f"_doctor/{left}/" in found["clean-up"].observed
    store.discard("_doctor/")


@pytest.mark.parametrize(
    ("operation", "title", "status", "words"),
    [
        ("ListMultipartUploads", "abort", Health.DEGRADED, "are not listed"),
        ("DeleteObjects", "batch delete", Health.HEALTHY, "one by one"),
        ("CompleteMultipartUpload", "multipart", Health.UNHEALTHY, "refused"),
    ],
)
def test_what_a_server_lacks_is_told(
    servers: Any, proxy: Proxy, operation: str, title: str, status: Health, words: str
) -> None:
    """Of each it is said what opskit does without it."""
    store = _behind(proxy, servers)
    proxy.fail(operation, Fault(answer=(501, "NotImplemented")), times=None)

    found = _examined(store)
    proxy.heal()

    assert found[title].status is status
    assert words in found[title].observed
    assert [*store.list()] == []


def test_a_consumer_that_stops_early_leaves_nothing(servers: Any) -> None:
    """Closing the iterator removes what was made so far."""
    store = _store(servers("seaweedfs"))
    findings = examine(store, now=now)

    for _ in range(8):
        next(findings)
    findings.close()  # type: ignore[attr-defined]

    assert [*store.list(), *store.unfinished()] == []


class TestChallenge:
    """Trying to destroy an object with the running credentials."""

    @staticmethod
    def _told(checks: list[Check]) -> dict[str, tuple[bool | None, str]]:
        return {
            each.name.removeprefix("store off: ").removesuffix(
                " with the running credentials"
            ): (each.passed, each.observed)
            for each in checks
        }

    @pytest.mark.parametrize("kind", ["seaweedfs", "moto", "rclone"])
    def test_it_fails_where_nothing_is_locked(self, servers: Any, kind: str) -> None:
        """The bytes are gone, which is what it is to find; nothing is left."""
        store = _store(servers(kind))

        told = self._told(challenge(store, "shop/set/"))

        assert told == {
            "delete": (False, "the bytes are gone"),
            "overwrite": (False, "the bytes are gone"),
        }
        assert [*store.list()] == []

    @pytest.mark.parametrize("kind", ["seaweedfs", "moto"])
    def test_it_passes_where_compliance_holds(self, servers: Any, kind: str) -> None:
        """Markers and new versions take nothing away, and the version stays."""
        store = _store(
            servers(kind),
            LOCKED_BUCKET,
            object_lock_days=1,
            object_lock_mode="compliance",
        )

        told = self._told(challenge(store, "shop/set/"))

        assert [passed for passed, _ in told.values()] == [True] * 4
        assert told["delete"][1].startswith("not refused, but the bytes are kept as")
        assert told["delete of the version"] == (True, "refused")
        (left,) = [each.key for each in store.list()]
        assert left.startswith("shop/set/challenge-")

    def test_it_finds_that_governance_can_be_lifted(self, servers: Any) -> None:
        """An administrator's credentials are no protection."""
        store = _store(servers("seaweedfs"), LOCKED_BUCKET, object_lock_days=1)

        told = self._told(challenge(store, "shop/set/"))

        assert told["delete of the version"] == (True, "refused")
        assert told["delete of the version in spite of governance"] == (
            False,
            "the bytes are gone",
        )

    def test_credentials_that_may_not_delete_may_still_overwrite(
        self, servers: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Without versions a put destroys as much as a deletion."""
        store = _store(servers("seaweedfs"))
        _as_writer(monkeypatch)

        told = self._told(challenge(store, "shop/set/"))

        assert told == {
            "delete": (True, "refused"),
            "overwrite": (False, "the bytes are gone"),
        }


@pytest.mark.parametrize("kind", ["seaweedfs", "moto", "rclone"])
def test_a_bucket_that_is_not_there_is_not_made(servers: Any, kind: str) -> None:
    """Some servers make one of any name as soon as something is put into it."""
    server = servers(kind)
    client = S3Store("maker", server.settings(BUCKET)).bucket.client
    before = [each["Name"] for each in client.list_buckets()["Buckets"]]

    (found,) = examine(_store(server, "not-there"), now=now)

    assert found.status is Health.UNHEALTHY
    assert "there is no such bucket" in found.observed
    after = [each["Name"] for each in client.list_buckets()["Buckets"]]
    assert after == before
