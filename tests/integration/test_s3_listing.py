"""A listing of a bucket: pages and what is new, not one request for each set."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from opskit.catalog import catalog
from opskit.catalog.catalog import Catalog
from opskit.catalog.documents import Trust
from opskit.catalog.manifest import MANIFEST_NAME, SIGNATURE_NAME, Manifest
from opskit.catalog.sets import CatalogCache, ListedSet
from opskit.crypto.signatures import Signer
from opskit.errors import IntegrityError
from opskit.store import Store, open_store
from tests import s3_servers
from tests.proxy import Proxy, proxy_to
from tests.s3_servers import BUCKET, S3Server
from tests.unit import builders
from tests.unit.builders import STARTED_AT, store_evidence

PREFIX = "listing"
SETS = 40
SIGNER = Signer(Ed25519PrivateKey.generate())
TRUST = Trust((SIGNER.public_key,))


@pytest.fixture(params=["seaweedfs", "moto"])
def server(request: pytest.FixtureRequest) -> S3Server:
    """A server with a bucket."""
    found: S3Server = request.getfixturevalue(request.param)
    return found


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give boto3 the tests' credentials."""
    for name, value in s3_servers.environment().items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def proxy(server: S3Server) -> Iterator[Proxy]:
    """A proxy in front of the server, which counts."""
    with proxy_to(server.endpoint_url) as running:
        yield running


def _put(store: Store, number: int) -> Manifest:
    made = builders.manifest(started_at=STARTED_AT - number * timedelta(hours=1))
    content = made.to_json()
    store.put(made.prefix + SIGNATURE_NAME, [SIGNER.sign(content)])
    store.put(made.prefix + MANIFEST_NAME, [content])
    return made


def _list(store: Store, folder: Path) -> Catalog[ListedSet]:
    cache = CatalogCache(folder, store=("far", f"s3://{BUCKET}/{PREFIX}"))
    return catalog.list_sets([store], trust=TRUST, caches={"far": cache})


def test_a_bucket_is_listed_by_pages(
    server: S3Server, proxy: Proxy, tmp_path: Path
) -> None:
    """What was read once is read again only where something has changed."""
    direct = open_store("far", server.settings(BUCKET, PREFIX))
    made = [_put(direct, number) for number in range(SETS)]
    store = open_store(
        "far", server.settings(BUCKET, PREFIX, endpoint_url=proxy.endpoint_url)
    )
    first = _list(store, tmp_path / "cache")
    asked_first = proxy.counts()
    proxy.heal()
    second = _list(store, tmp_path / "cache")
    asked_second = proxy.counts()
    proxy.heal()
    store_evidence(direct, made[3], kind="verify", passed=True)
    direct.delete(made[5].prefix + SIGNATURE_NAME)
    third = _list(store, tmp_path / "cache")

    assert [(each.prefix, each.manifest_sha256) for each in first.sets] == [
        (each.prefix, each.manifest_sha256) for each in catalog.read([direct]).sets
    ]
    assert asked_first["GetObject"] == 2 * SETS
    assert second.sets == first.sets
    assert asked_second == {"ListObjectsV2": 1}
    # Manifest, signature and evidence of the one, with a signature that is missing;
    # manifest and signature of the other.
    assert proxy.counts()["GetObject"] == 6
    assert len(third.sets) == SETS - 1
    with pytest.raises(IntegrityError, match="is not signed"):
        second.find(made[5].backup_id)
