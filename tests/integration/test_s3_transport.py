"""How a bucket is reached: by TLS with one's own authority, through a proxy."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from opskit.errors import StoreError
from opskit.store import open_store
from tests import certificates, s3_servers
from tests.ports import free_port
from tests.proxy import proxy_to
from tests.s3_servers import S3Server
from tests.support import bound
from tests.unit.store_contract import CHUNKS, CONTENT, read


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the credentials of the test servers."""
    for name, value in s3_servers.environment().items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that nobody but its owner knows; its key beside it."""
    return certificates.self_signed(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def by_tls(certificate: Path) -> Iterator[S3Server]:
    """moto's server behind TLS."""
    port = free_port()
    program = str(Path(sys.executable).parent / "moto_server")
    options = ["-c", str(certificate), "-k", str(certificate.with_name("key.pem"))]
    command = [program, "-H", "127.0.0.1", "-p", str(port), *options]
    with bound(command, log=certificate.with_name("log")) as process:
        url = f"https://127.0.0.1:{port}"
        yield S3Server(kind="moto", endpoint_url=url, pid=process.pid)


def test_the_servers_certificate_is_checked_with_ones_own_authority(
    by_tls: S3Server, certificate: Path
) -> None:
    """With `ca_file` the server is believed, without it nothing is sent."""
    known = open_store(
        "off", by_tls.settings("tls", ca_file=str(certificate), attempts=10)
    )
    known_client = known.inner.bucket.client  # type: ignore[attr-defined]
    known_client.create_bucket(Bucket="tls")
    known.put("a/b", CHUNKS)
    unknown = open_store("off", by_tls.settings("tls", attempts=1))

    assert read(known, "a/b") == CONTENT
    with pytest.raises(StoreError, match="certificate") as raised:
        unknown.stat("a/b")
    assert "ca_file" in raised.value.hint


def test_requests_go_through_the_proxy_that_is_named(moto: S3Server) -> None:
    """And nowhere else: its list of requests has them all."""
    with proxy_to(moto.endpoint_url) as proxy:
        store = open_store(
            "off", moto.settings("proxied", proxy=proxy.endpoint_url, attempts=2)
        )
        store.inner.bucket.client.create_bucket(Bucket="proxied")  # type: ignore[attr-defined]
        before = len(proxy.requests)
        store.put("a/b", CHUNKS)

        assert read(store, "a/b") == CONTENT
        assert len(proxy.requests) > before > 0
