"""Faults of servers and networks: each told with store and key, nothing half left."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from opskit.catalog import catalog
from opskit.catalog.manifest import Manifest, StoredObject
from opskit.catalog.reader import verify_set
from opskit.errors import (
    ObjectExists,
    OpskitError,
    RetriesExhausted,
    StoreError,
    StoreUnavailable,
)
from opskit.store import S3Store, Store, open_store, unwrapped
from tests import s3_servers
from tests.conftest import MakeDatabase
from tests.proxy import Fault, Proxy, Request, proxy_to
from tests.receivers import away
from tests.s3_servers import BUCKET, SECRET_KEY, S3Server
from tests.support import back_up
from tests.unit import builders

PART = 5 * 1024**2
SMALL = b"a small object"
LARGE = [os.urandom(1024**2)] * 11  # in three parts
_prefixes = (f"faults-{number}" for number in itertools.count(1))


@pytest.fixture(autouse=True)
def _quick_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give boto3 the tests' credentials, and let it not wait between tries."""
    for name, value in s3_servers.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(
        "botocore.retries.standard.ExponentialBackoff.delay_amount",
        lambda _self, _context: 0.0,
    )


@pytest.fixture
def proxy(seaweedfs: S3Server) -> Iterator[Proxy]:
    """A proxy in front of SeaweedFS."""
    with proxy_to(seaweedfs.endpoint_url) as running:
        yield running


@pytest.fixture
def store(seaweedfs: S3Server, proxy: Proxy) -> Store:
    """An empty store behind the proxy."""
    return _store(seaweedfs, proxy)


def _store(server: S3Server, proxy: Proxy | None = None, **changes: object) -> Store:
    if proxy is not None:
        server = replace(server, endpoint_url=proxy.endpoint_url)
    # A server on a busy machine may need seconds for the first object of a bucket: a
    # shorter wait would send again what no fault of a test has touched.
    options = {"attempts": 3, "timeout": "60s", "part_size_bytes": PART, **changes}
    bucket = str(options.pop("bucket", BUCKET))
    return open_store("off", server.settings(bucket, next(_prefixes), **options))


def _read(store: Store, key: str) -> bytes:
    with store.open(key) as file:
        return file.read()


def _leftovers(store: Store) -> list[str]:
    """Return the keys of objects and of uploads that were not completed."""
    return [each.key for each in (*store.list(), *store.unfinished())]


def _failure(store: Store, content: list[bytes] | None = None) -> StoreError:
    """Put an object, and return the error after looking at what it may not tell."""
    with pytest.raises(StoreError) as raised:
        store.put("set/object", [SMALL] if content is None else content)
    error = raised.value
    told = f"{error.message} {error.hint} {error.details}"
    assert SECRET_KEY not in told
    assert "wrong-secret" not in told
    assert "a-session-token" not in told
    assert error.message.startswith("store off: ")
    assert error.hint.endswith(".")
    assert error.exit_code == 10
    return error


class TestCredentials:
    """What credentials and the clock do wrong."""

    def test_a_wrong_secret_is_told_without_it(
        self, seaweedfs: S3Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The message says which half is wrong, and not what it is."""
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")

        error = _failure(_store(seaweedfs))

        assert error.message == "store off: set/object: the secret key is wrong"
        assert "AWS_SECRET_ACCESS_KEY" in error.hint

    def test_an_unknown_key_is_told(
        self, seaweedfs: S3Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The message says that the server does not know it."""
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")

        error = _failure(_store(seaweedfs))

        assert error.message == (
            "store off: set/object: the access key is not known to the server"
        )
        assert "AWS_ACCESS_KEY_ID" in error.hint

    def test_no_credentials_are_told(
        self, seaweedfs: S3Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Without any, the hint says how they are given."""
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")

        error = _failure(_store(seaweedfs))

        assert error.message.endswith("there are no usable credentials")
        assert "profile" in error.hint

    @pytest.mark.parametrize("code", ["ExpiredToken", "ExpiredTokenException"])
    def test_an_expired_session_is_told(
        self,
        store: Store,
        proxy: Proxy,
        monkeypatch: pytest.MonkeyPatch,
        code: str,
    ) -> None:
        """A token that has run out is not taken for a wrong secret, nor asked again."""
        monkeypatch.setenv("AWS_SESSION_TOKEN", "a-session-token")
        proxy.fail(".*", Fault(answer=(400, code)), times=None)

        error = _failure(store)

        assert error.message == "store off: set/object: the credentials have expired"
        assert "AWS_SESSION_TOKEN" in error.hint
        assert proxy.counts()["PutObject"] == 1

    def test_a_clock_off_by_an_hour_is_told(
        self, seaweedfs: S3Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The hint says that it is the clock."""
        past = datetime.now(UTC) - timedelta(hours=1)
        monkeypatch.setattr(
            "botocore.auth.get_current_datetime",
            lambda remove_tzinfo=True: past.replace(tzinfo=None),
        )

        error = _failure(_store(seaweedfs))

        assert "clock" in error.message
        assert "clock" in error.hint

    def test_a_refused_deletion_is_told_with_the_right(
        self, seaweedfs: S3Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Writing works without the right to delete, deleting says what it lacks."""
        for name, value in s3_servers.environment(
            s3_servers.WRITER_KEY, s3_servers.WRITER_SECRET
        ).items():
            monkeypatch.setenv(name, value)
        store = _store(seaweedfs)
        store.put("set/object", [SMALL])

        with pytest.raises(StoreError) as raised:
            store.delete("set/object")

        assert raised.value.message == (
            "store off: set/object: the credentials lack the right s3:DeleteObject"
        )
        assert raised.value.details == {"right": "s3:DeleteObject"}
        assert _read(store, "set/object") == SMALL


class TestBuckets:
    """What is wrong with the bucket."""

    # SeaweedFS makes a bucket that is missing; moto and others do not.
    @pytest.mark.parametrize("content", [[SMALL], LARGE], ids=["whole", "parts"])
    def test_no_such_bucket_is_told(self, moto: S3Server, content: list[bytes]) -> None:
        """The message names the bucket."""
        error = _failure(_store(moto, bucket="nowhere"), content)

        assert error.message == "store off: set/object: there is no bucket nowhere"

    def test_an_empty_listing_is_not_taken_for_a_missing_bucket(
        self, moto: S3Server
    ) -> None:
        """Listing a bucket that is missing is an error, not an empty catalog."""
        store = _store(moto, bucket="nowhere")

        with pytest.raises(StoreError, match="there is no bucket nowhere"):
            [*store.list()]

    @pytest.mark.parametrize(
        ("status", "code"),
        [(301, "PermanentRedirect"), (400, "AuthorizationHeaderMalformed")],
    )
    def test_a_wrong_region_is_told(
        self, store: Store, proxy: Proxy, status: int, code: str
    ) -> None:
        """The hint names the two settings that may be wrong."""
        proxy.fail("(?!HeadBucket).*", Fault(answer=(status, code)), times=None)

        error = _failure(store)

        assert "another region" in error.message
        assert "region" in error.hint
        assert "endpoint_url" in error.hint

    def test_an_address_that_redirects_everything_is_told(
        self, store: Store, proxy: Proxy
    ) -> None:
        """As one does that wants https: boto3 would follow it without an end."""
        proxy.fail(".*", Fault(answer=(301, "Moved")), times=None)

        error = _failure(store)

        assert "endpoint_url" in error.hint

    @pytest.mark.parametrize("content", [[SMALL], LARGE], ids=["whole", "parts"])
    def test_a_lock_that_the_bucket_lacks_is_told(
        self, seaweedfs: S3Server, content: list[bytes]
    ) -> None:
        """Nothing is stored unlocked where a lock was asked for."""
        store = _store(seaweedfs, object_lock_days=1)

        error = _failure(store, content)

        assert "lock" in error.message + error.hint
        assert _leftovers(store) == []

    @pytest.mark.parametrize(
        "full",
        [
            (507, "InsufficientStorage"),
            (403, "QuotaExceeded"),
            (507, "XMinioStorageFull"),
        ],
    )
    @pytest.mark.parametrize("content", [[SMALL], LARGE], ids=["whole", "parts"])
    def test_a_full_server_is_told(
        self, store: Store, proxy: Proxy, full: tuple[int, str], content: list[bytes]
    ) -> None:
        """It is named as such, and nothing half is left."""
        proxy.fail("PutObject|UploadPart", Fault(answer=full), times=None)

        error = _failure(store, content)
        proxy.heal()

        assert error.message == "store off: set/object: the store is full"
        assert "prune" in error.hint
        assert _leftovers(store) == []

    def test_foreign_keys_in_the_prefix_are_left_alone(self, store: Store) -> None:
        """Folders of consoles are no objects, other keys no sets, and all of them stay."""
        inner = unwrapped(store)
        assert isinstance(inner, S3Store)
        foreign = ["shop/", "shop/notes.txt", "shop/2026/odd \u00fc+%.txt", "zebra"]
        for key in foreign:
            inner.bucket.client.put_object(
                Bucket=inner.bucket.name, Key=inner.bucket.full_key(key), Body=b"x"
            )

        found = catalog.read([store])

        assert [*found.sets] == []
        assert [each.key for each in store.list()] == sorted(foreign[1:])


class TestStorms:
    """A server that answers with errors, or not at all."""

    @pytest.mark.parametrize("status", [(500, "InternalError"), (503, "SlowDown")])
    @pytest.mark.parametrize("content", [[SMALL], LARGE], ids=["whole", "parts"])
    def test_a_short_storm_is_outlasted(
        self, store: Store, proxy: Proxy, status: tuple[int, str], content: list[bytes]
    ) -> None:
        """Two refusals of every kind of request that writes are no failure."""
        operations = (
            "PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload"
        )  # fmt: skip
        for each in operations:
            proxy.fail(each, Fault(answer=status), times=2)

        store.put("set/object", content)

        assert _read(store, "set/object") == b"".join(content)
        assert _leftovers(store) == ["set/object"]

    @pytest.mark.parametrize("status", [(500, "InternalError"), (503, "SlowDown")])
    @pytest.mark.parametrize(
        ("operation", "content"),
        [
            ("PutObject", [SMALL]),
            ("CreateMultipartUpload", LARGE),
            ("UploadPart", LARGE),
            ("CompleteMultipartUpload", LARGE),
        ],
    )
    def test_an_endless_storm_ends_after_the_attempts(
        self,
        store: Store,
        proxy: Proxy,
        status: tuple[int, str],
        operation: str,
        content: list[bytes],
    ) -> None:
        """The error says how often was tried; nothing half is left."""
        proxy.fail(operation, Fault(answer=status), times=None)

        error = _failure(store, content)
        tried = proxy.counts()[operation]
        proxy.heal()

        assert isinstance(error, RetriesExhausted)
        assert f"answered {status[1]} to {operation}, after 3 attempts" in error.message
        assert tried <= 9  # three parts may be on their way at once
        assert _leftovers(store) == []

    def test_a_server_that_stops_answering_is_given_up(
        self, seaweedfs: S3Server, proxy: Proxy
    ) -> None:
        """The wait is bounded by timeout and attempts, and told."""
        store = _store(seaweedfs, proxy, timeout="1s", attempts=2)
        proxy.fail("PutObject", Fault(hold=True), times=None)

        error = _failure(store)
        tried = proxy.counts()["PutObject"]

        assert isinstance(error, RetriesExhausted)
        assert error.message == (
            "store off: set/object: the server did not answer in time, after 2 attempts"
        )
        assert tried == 2

    def test_a_server_that_is_not_there_is_told(self, seaweedfs: S3Server) -> None:
        """A refused connection names the setting to look at."""
        server = replace(seaweedfs, endpoint_url=away())

        error = _failure(_store(server))

        assert "cannot be reached" in error.message
        assert "endpoint_url" in error.hint


class TestCuts:
    """Connections that break off in the middle."""

    @pytest.mark.parametrize("part", [1, 2, 3])
    def test_a_part_that_is_cut_is_sent_again(
        self, store: Store, proxy: Proxy, part: int
    ) -> None:
        """The object is whole, byte for byte."""
        proxy.fail("UploadPart", Fault(cut_upload_after=700_000), skip=part - 1)

        store.put("set/object", LARGE)

        assert proxy.counts()["UploadPart"] == 4
        assert _read(store, "set/object") == b"".join(LARGE)
        assert _leftovers(store) == ["set/object"]

    def test_a_part_that_is_always_cut_leaves_nothing(
        self, store: Store, proxy: Proxy
    ) -> None:
        """After the attempts the upload is aborted."""
        proxy.fail("UploadPart", Fault(cut_upload_after=700_000), times=None)

        error = _failure(store, LARGE)
        proxy.heal()

        assert error.message == (
            "store off: set/object: the connection was cut, after 3 attempts"
        )
        assert _leftovers(store) == []

    def test_a_read_that_is_cut_goes_on_where_it_was(
        self, store: Store, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Two cuts in one read change no byte."""
        monkeypatch.setattr("opskit.store.wrappers._FIRST_WAIT_SECONDS", 0.0)
        store.put("set/object", LARGE)
        proxy.fail("GetObject", Fault(cut_download_after=3_000_000), times=2)

        content = _read(store, "set/object")

        assert content == b"".join(LARGE)
        assert proxy.counts()["GetObject"] == 3

    def test_a_read_that_never_gets_on_ends(
        self, store: Store, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where no byte comes any more the attempts are counted."""
        monkeypatch.setattr("opskit.store.wrappers._FIRST_WAIT_SECONDS", 0.0)
        store.put("set/object", LARGE)
        proxy.fail("GetObject", Fault(cut_download_after=0), times=None)

        with pytest.raises(StoreUnavailable, match="after 3 attempts") as raised:
            _read(store, "set/object")

        assert raised.value.message.startswith("store off: set/object: ")
        assert proxy.counts()["GetObject"] == 3

    @pytest.mark.parametrize(
        ("operation", "content"),
        [
            ("PutObject", [SMALL]),
            ("CreateMultipartUpload", LARGE),
            ("CompleteMultipartUpload", LARGE),
        ],
    )
    def test_an_answer_that_is_lost_is_made_up_for(
        self, store: Store, proxy: Proxy, operation: str, content: list[bytes]
    ) -> None:
        """What the first try stored is not taken for another run's."""
        proxy.fail(operation, Fault(lose_answer=True))

        store.put("set/object", content)

        assert _read(store, "set/object") == b"".join(content)
        assert _leftovers(store) == ["set/object"]
        with pytest.raises(ObjectExists):
            store.put("set/object", content)

    def test_a_lost_answer_to_a_deletion_is_made_up_for(
        self, store: Store, proxy: Proxy
    ) -> None:
        """Deleting again what is gone already succeeds."""
        for number in range(3):
            store.put(f"set/{number}", [SMALL])
        proxy.fail("DeleteObjects|DeleteObject", Fault(lose_answer=True), times=2)

        store.discard("set/")

        assert _leftovers(store) == []

    @pytest.mark.parametrize(
        "operation", ["ListObjectsV2", "HeadObject", "ListMultipartUploads"]
    )
    def test_a_lost_answer_to_a_question_is_asked_again(
        self, store: Store, proxy: Proxy, operation: str
    ) -> None:
        """Listing and looking are repeated."""
        store.put("set/object", [SMALL])
        proxy.fail(operation, Fault(lose_answer=True), times=2)

        seen = [each.key for each in store.list()]

        assert seen == ["set/object"]
        assert store.stat("set/object").size_bytes == len(SMALL)
        assert [*store.unfinished()] == []


class TestDamage:
    """Bytes that change on their way, or in the store."""

    @pytest.mark.parametrize("content", [[SMALL], LARGE], ids=["whole", "parts"])
    @pytest.mark.parametrize("kind", ["seaweedfs", "moto"])
    def test_a_byte_that_changes_on_its_way_is_noticed(
        self, request: pytest.FixtureRequest, kind: str, content: list[bytes]
    ) -> None:
        """SeaweedFS refuses it by its MD5; moto takes it, and its ETag tells."""
        server = request.getfixturevalue(kind)
        with proxy_to(server.endpoint_url) as proxy:
            store = _store(server, proxy)
            proxy.fail("PutObject|UploadPart", Fault(flip_upload=3), times=None)

            error = _failure(store, content)
            proxy.heal()

            assert "sent" in error.message
            assert _leftovers(store) == []

    def test_a_byte_that_changes_while_it_is_read_is_noticed(
        self, store: Store, proxy: Proxy
    ) -> None:
        """The digest is not the manifest's; reading again is right again."""
        store.put("set/object", LARGE)
        manifest = _manifest_of("set/object", b"".join(LARGE))
        proxy.fail("GetObject", Fault(flip=6_000_000), times=1)

        first = verify_set(manifest, store)
        second = verify_set(manifest, store)

        assert [each.key for each in first.bad] == ["set/object"]
        assert "SHA-256" in first.bad[0].reason
        assert second.bad == ()

    def test_an_object_that_the_store_lost_is_named(self, store: Store) -> None:
        """What is missing is a finding, not an error of the store."""
        manifest = _manifest_of("set/object", SMALL)

        found = verify_set(manifest, store)

        assert [(each.key, each.missing) for each in found.bad] == [
            ("set/object", True)
        ]

    def test_an_object_that_the_store_cut_is_named(self, store: Store) -> None:
        """A byte less is told with both sizes."""
        store.put("set/object", [SMALL[:-1]])
        manifest = _manifest_of("set/object", SMALL)

        found = verify_set(manifest, store)

        assert [each.reason for each in found.bad] == [
            "13 bytes are stored where the manifest says 14"
        ]


def _manifest_of(key: str, content: bytes) -> Manifest:
    """Return the part of a manifest that `verify_set` reads."""
    stored = StoredObject(
        key=key,
        role="dump",
        size_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )
    return builders.manifest(objects=[stored])


def _numbered(number: int) -> Callable[[Request], bool]:
    return lambda request: request.number == number


class TestWholeBackups:
    """A real database into a bucket whose connection fails at every request in turn."""

    def test_whichever_request_is_cut_no_listed_set_is_bad(
        self,
        seaweedfs: S3Server,
        proxy: Proxy,
        make_database: MakeDatabase,
        tmp_path: Path,
    ) -> None:
        """One attempt alone: the backup fails with a code, or what it lists verifies."""
        url = make_database(script=_SCRIPT)
        back_up(
            url,
            tmp_path / "first" / "store",
            stores=[_store(seaweedfs, proxy, attempts=1)],
        )
        requests = len(proxy.requests)

        outcomes = [
            self._cut_at(number, seaweedfs, proxy, url, tmp_path)
            for number in range(1, requests + 1)
        ]

        assert requests >= 8
        assert {each[0] for each in outcomes} <= {0, 10}
        assert any(code == 10 for code, _ in outcomes)
        assert all(bad == [] for _, bad in outcomes)

    def test_whichever_answer_is_lost_once_the_backup_succeeds(
        self,
        seaweedfs: S3Server,
        proxy: Proxy,
        make_database: MakeDatabase,
        tmp_path: Path,
    ) -> None:
        """With retries a lost answer to any single request changes nothing."""
        url = make_database(script=_SCRIPT)
        back_up(url, tmp_path / "first" / "store", stores=[_store(seaweedfs, proxy)])
        requests = len(proxy.requests)

        for number in range(1, requests + 1):
            store = _store(seaweedfs, proxy)
            proxy.heal()
            proxy.fail(_numbered(number), Fault(lose_answer=True))

            result = back_up(url, tmp_path / f"run-{number}" / "store", stores=[store])

            assert result.failed == {}
            assert [each.manifest for each in catalog.read([store]).sets] == [
                result.manifest
            ]
            assert verify_set(result.manifest, store).bad == ()
            assert [*store.unfinished()] == []

    @staticmethod
    def _cut_at(
        number: int, server: S3Server, proxy: Proxy, url: str, folder: Path
    ) -> tuple[int, list[Any]]:
        """Return the exit code, and what is wrong in the sets that are listed then."""
        store = _store(server, proxy, attempts=1)
        proxy.heal()
        proxy.fail(_numbered(number), Fault(lose_answer=True))
        code = 0
        try:
            back_up(url, folder / f"run-{number}" / "store", stores=[store])
        except OpskitError as error:
            code = error.exit_code
        proxy.heal()
        found = catalog.read([store])
        bad: list[Any] = [*found.unreadable, *found.unreachable]
        for each in found.sets:
            bad += verify_set(each.manifest, store).bad
        if code and not found.sets:
            # At once, or else by the next run.
            back_up(url, folder / f"run-{number}" / "store", stores=[store])
            bad += [*store.unfinished()]
        return code, bad


_SCRIPT = "CREATE TABLE public.small AS SELECT generate_series(1, 100) AS id"
