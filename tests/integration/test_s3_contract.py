"""The contract of stores, kept on three S3 servers of different make."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from opskit.errors import ObjectExists
from opskit.store import Store, open_store
from opskit.store.s3 import client as s3_client
from opskit.store.s3.client import make_client
from tests import s3_servers
from tests.s3_servers import BUCKET, S3Server
from tests.support import processes_of
from tests.unit.processes import READY, holding
from tests.unit.store_contract import StoreContract

_prefixes = (f"contract-{number}" for number in itertools.count(1))


@pytest.fixture(scope="class")
def server(request: pytest.FixtureRequest) -> S3Server:
    """The server of the class's kind."""
    found: S3Server = request.getfixturevalue(request.cls.KIND)
    return found


@pytest.fixture(scope="class")
def client(server: S3Server) -> Iterator[object]:
    """One client for all tests of a class, since each takes a while to make."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_servers.environment().items():
            patch.setenv(name, value)
        client = make_client(server.settings(BUCKET))
    yield client
    client.close()


class _OnServer(StoreContract):
    """Runs the contract on a server of one kind, each test below a prefix of its own."""

    KIND: ClassVar[str]

    @pytest.fixture
    def store(
        self, server: S3Server, client: object, monkeypatch: pytest.MonkeyPatch
    ) -> Store:
        """An empty store."""
        monkeypatch.setattr(s3_client, "make_client", lambda _: client)
        return open_store(self.KIND, server.settings(BUCKET, next(_prefixes)))


class TestSeaweedFS(_OnServer):
    """A bucket of SeaweedFS."""

    KIND = "seaweedfs"


class TestMoto(_OnServer):
    """A bucket of moto's server."""

    KIND = "moto"


class TestRclone(_OnServer):
    """A bucket of rclone's server."""

    KIND = "rclone"
    # An object's own time is when its put began, the listed one when it ended: a put that
    # goes on while a second ends has two.
    ONE_TIME = False

    def test_of_many_that_put_one_key_one_succeeds(self, store: Store) -> None:
        """Not here: it overlooks the condition, as `CANNOT` in test_s3_stores.py says.

        Only who comes later is refused.
        """
        store.put("a", [b"1"])
        with pytest.raises(ObjectExists):
            store.put("a", [b"2"])

        assert [each.key for each in store.list()] == ["a"]


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel must know how")
def test_a_server_ends_with_a_run_that_is_killed(tmp_path: Path) -> None:
    """Nothing is left of it that another run would have to end."""
    script = (
        "import sys; from pathlib import Path; from tests import s3_servers\n"
        "with s3_servers.rclone(Path(sys.argv[1])) as server:\n"
        f"    print({READY!r}, flush=True); sys.stdin.read()\n"
    )

    with holding(script, tmp_path):
        assert processes_of(tmp_path / "data")

    until = time.monotonic() + 60
    while processes_of(tmp_path / "data") and time.monotonic() < until:
        time.sleep(0.01)
    assert not processes_of(tmp_path / "data")
