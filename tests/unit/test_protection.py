"""A protected backup: what is stored of it, in which order, and what an error leaves."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pyrage  # type: ignore[import-untyped]
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from opskit.backup.create import BackupResult, create_backup
from opskit.catalog import catalog
from opskit.catalog.documents import Trust
from opskit.catalog.manifest import MANIFEST_NAME, StoredObject, of_database, parse
from opskit.catalog.reader import SetReader, verify_set
from opskit.catalog.writer import Protection, SetWriter
from opskit.crypto import age, signatures
from opskit.crypto.keys import Identities
from opskit.crypto.signatures import Signer
from opskit.errors import BackupFailed, StoreError
from opskit.postgres.inventory import Role
from opskit.store import ObjectInfo, Store
from tests.faulty import FaultyStore
from tests.memory_store import MemoryStore
from tests.unit import builders
from tests.unit.builders import STARTED_AT

_own = pyrage.x25519.Identity.generate()
OWN = Identities(
    path=Path("own.txt"), opaque=(_own,), recipients=(str(_own.to_public()),)
)
SIGNER = Signer(Ed25519PrivateKey.generate())
BOTH = Protection(recipients=OWN.recipients, signer=SIGNER)
DIGEST, LARGE, PASSWORD = "a1" * 16, "b2" * 16, "c3" * 16
DUMP = b"the secret row " * 1000


@dataclass
class FakeSource:
    """A source that stores two objects, and fails where a test wants it to."""

    name: str = "shop"
    dump: Callable[[], Iterable[bytes]] = lambda: [DUMP]
    encrypted_guides: list[bool] = field(default_factory=list)

    @contextlib.contextmanager
    def opened(
        self, *, run_id: str, clock: Callable[[], datetime]
    ) -> Iterator[FakeSource]:
        """See `Source.opened`."""
        yield self

    def write(self, writer: SetWriter) -> dict[str, Any]:
        """See `OpenSource.write`."""
        writer.put("dump", "dump", self.dump())
        writer.put("roles.sql", "roles", [b"CREATE ROLE app;\n"])
        made = builders.manifest(
            tables=[{"schema": "public", "name": "t", "rows": 3, "digest": DIGEST}],
            large_objects={"count": 1, "size_bytes": 1, "digest": LARGE},
            inventory=builders.INVENTORY
            | {"roles": [{"name": "app", "password": PASSWORD}]},
        )
        own = {"format_version", "backup_id", "source", "started_at", "finished_at"}
        own |= {"tool_version", "objects"}
        return {key: each for key, each in vars(made).items() if key not in own}

    def guide(
        self,
        backup_id: str,
        objects: Sequence[StoredObject],
        *,
        encrypted: bool,
        signed: bool,
    ) -> str:
        """See `OpenSource.guide`."""
        self.encrypted_guides.append(encrypted)
        return f"# {backup_id}\n" + "".join(f"{each.sha256}\n" for each in objects)

    def require_held(self) -> None:
        """See `OpenSource.require_held`."""


class _Recording(MemoryStore):
    """Knows in which order it was written to."""

    def __init__(self) -> None:
        super().__init__("ram")
        self.written: list[str] = []

    def put(self, key: str, chunks: Iterable[bytes]) -> ObjectInfo:
        self.written.append(key.split("/", 3)[3])
        return super().put(key, chunks)


class _Dying(MemoryStore):
    """Takes so many objects; then it is gone, and no clean-up reaches it."""

    def __init__(self, puts: int) -> None:
        super().__init__("dying")
        self._puts = puts

    def put(self, key: str, chunks: Iterable[bytes]) -> ObjectInfo:
        self._puts -= 1
        self._alive()
        return super().put(key, chunks)

    def delete(self, key: str) -> None:
        self._alive()
        super().delete(key)

    def discard(self, prefix: str) -> None:
        self._alive()
        super().discard(prefix)

    def _alive(self) -> None:
        if self._puts < 0:
            raise StoreError("it is gone")


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = _threads()
    yield
    assert [each for each in _threads() if each not in before] == []


def _threads() -> list[str]:
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith(("age-", "store-"))]


Back = Callable[..., BackupResult]


@pytest.fixture
def back_up(tmp_path: Path) -> Back:
    """Return a function that backs a fake source up."""

    def back_up(
        *stores: Store, source: FakeSource | None = None, by: Protection | None = BOTH
    ) -> BackupResult:
        return create_backup(
            source or FakeSource(),
            stores,
            run_id="abc123",
            state_dir=tmp_path,
            clock=lambda: STARTED_AT,
            protection=by,
        )

    return back_up


def content(store: Store, key: str) -> bytes:
    """Return what lies under a key."""
    with store.open(key) as file:
        return file.read()


def everything(store: Store) -> bytes:
    """Return all that lies in a store, names included."""
    return b"\n".join(
        each.key.encode() + b"\n" + content(store, each.key) for each in store.list()
    )


@pytest.mark.parametrize("encrypts", [False, True])
@pytest.mark.parametrize("signs", [False, True])
def test_the_manifest_is_written_last(
    encrypts: bool, signs: bool, back_up: Back
) -> None:
    """After the objects, the guide and the signature."""
    store = _Recording()
    protection = Protection(
        recipients=OWN.recipients if encrypts else (), signer=SIGNER if signs else None
    )
    source = FakeSource()
    back_up(store, source=source, by=protection)

    objects = (
        ["dump.age", "roles.sql.age", "private.json.age"]
        if encrypts
        else ["dump", "roles.sql"]
    )
    signature = ["manifest.json.sig"] if signs else []
    assert store.written == [*objects, "RESTORE.md", *signature, "manifest.json"]
    assert source.encrypted_guides == [encrypts]


def test_without_protection_a_set_lies_in_the_open(back_up: Back) -> None:
    """As it always did: nothing hidden, nothing of a private object."""
    store = MemoryStore()
    manifest = back_up(store, by=None).manifest

    assert (manifest.encryption, manifest.signature) == (None, None)
    assert [each.role for each in manifest.objects] == ["dump", "roles", "guide"]
    assert of_database(manifest).tables[0].digest == DIGEST
    assert of_database(manifest).inventory.roles == (
        Role(name="app", password=PASSWORD),
    )
    assert content(store, manifest.object("dump").key) == DUMP


def test_a_protected_set_says_how_it_is_protected(back_up: Back) -> None:
    """For whom, by whom, and where the signature lies."""
    store = MemoryStore()
    manifest = back_up(store).manifest

    document = json.loads(content(store, manifest.prefix + MANIFEST_NAME))
    assert document["format_version"] == 3
    assert document["encryption"] == {"format": "age", "recipients": [*OWN.recipients]}
    assert document["signature"] == {
        "format": "ssh",
        "namespace": "opskit",
        "public_key": SIGNER.public_key,
        "object": manifest.prefix + "manifest.json.sig",
    }
    assert [each.role for each in manifest.objects] == [
        "dump", "roles", "private", "guide",
    ]  # fmt: skip


def test_the_signature_is_of_the_stored_manifest(back_up: Back) -> None:
    """Of its very bytes; the catalog that trusts the key lists the set."""
    store = MemoryStore()
    manifest = back_up(store).manifest
    assert manifest.signature is not None

    who = signatures.verify(
        content(store, manifest.prefix + MANIFEST_NAME),
        content(store, manifest.signature.object),
        [SIGNER.public_key],
    )
    found = catalog.read([store], trust=Trust((SIGNER.public_key,)))

    assert who == SIGNER.fingerprint
    assert [each.manifest for each in found.sets] == [manifest]


def test_everything_but_the_guide_is_encrypted(back_up: Back) -> None:
    """The stored bytes are what is verified; the owner reads what was backed up."""
    store = MemoryStore()
    manifest = back_up(store).manifest
    read = {
        each.role: content(store, each.key)
        for each in manifest.objects
        if each.key.endswith(age.SUFFIX)
    }

    assert verify_set(manifest, store).bad == ()
    assert sorted(read) == ["dump", "private", "roles"]
    assert all(each.startswith(b"age-encryption.org/v1\n") for each in read.values())
    plain = b"".join(age.decrypted([read["dump"]], OWN))
    assert plain == DUMP


def test_nothing_in_the_store_tells_what_is_backed_up(back_up: Back) -> None:
    """No row, no plain digest, no digest of a password; the owner gets them back."""
    store = MemoryStore()
    manifest = back_up(store).manifest
    seen = everything(store)

    secrets = (b"secret row", *map(str.encode, (DIGEST, LARGE, PASSWORD)))
    assert [each for each in secrets if each in seen] == []
    opened = SetReader(manifest=manifest, store=store, identities=OWN).opened()
    assert of_database(opened).tables[0].digest == DIGEST
    assert of_database(opened).large_objects.digest == LARGE
    assert of_database(opened).inventory.roles == (Role(name="app", password=PASSWORD),)


def test_the_result_is_what_was_stored(back_up: Back) -> None:
    """The manifest that a caller gets is the public one."""
    store = MemoryStore()
    manifest = back_up(store).manifest

    key = manifest.prefix + MANIFEST_NAME
    assert parse(content(store, key), key=key) == manifest
    assert of_database(manifest).tables[0].digest == ""


# Three encrypted objects, the guide, the signature, the manifest.
PUTS = 6


@pytest.mark.parametrize("puts", range(PUTS))
def test_a_store_that_dies_at_any_step_lists_no_set(puts: int, back_up: Back) -> None:
    """Whatever it still holds, it is no set; the next run's clean-up is another's."""
    store = _Dying(puts)

    with pytest.raises(StoreError, match="it is gone"):
        back_up(store)

    assert len(list(store.list())) == puts
    assert catalog.read([store]).sets == ()
    assert catalog.read([store]).unreadable == ()


@pytest.mark.parametrize("puts", range(PUTS))
def test_the_other_store_has_the_whole_set(puts: int, back_up: Back) -> None:
    """One store dies at any step; the set stands in the other, signed and whole."""
    dying, whole = _Dying(puts), MemoryStore("whole")

    result = back_up(dying, whole)

    found = catalog.read([dying, whole], trust=Trust((SIGNER.public_key,)))
    assert (list(result.failed), result.stores) == (["dying"], ("whole",))
    assert [each.stores for each in found.sets] == [(whole,)]
    assert verify_set(result.manifest, whole).bad == ()


@pytest.mark.parametrize("number", range(1, PUTS + 1))
def test_a_put_that_fails_leaves_nothing(number: int, back_up: Back) -> None:
    """Where the store still answers, all that it took is removed."""
    store = MemoryStore()

    with pytest.raises(StoreError, match="failed on purpose"):
        back_up(FaultyStore(store, fail_put_at=number))

    assert list(store.list()) == []


def test_a_backup_that_lives_on_is_possible_with_exactly_these_puts(
    back_up: Back,
) -> None:
    """The tests above fail every put that there is."""
    back_up(store := _Dying(PUTS))

    assert len(list(store.list())) == PUTS


def test_a_source_that_fails_leaves_nothing(back_up: Back) -> None:
    """Its error comes through the encryption as it is."""
    store = MemoryStore()

    def dump() -> Iterator[bytes]:
        yield DUMP
        raise BackupFailed("pg_dump was killed")

    with pytest.raises(BackupFailed, match="pg_dump was killed"):
        back_up(store, source=FakeSource(dump=dump))

    assert list(store.list()) == []


def test_no_thread_outlives_a_store_that_fails(back_up: Back) -> None:
    """The encryption and the source end with the error, not when it is forgotten."""
    ended = []

    def dump() -> Iterator[bytes]:
        try:
            while True:
                yield bytes(1024**2)
        finally:
            ended.append(True)

    with pytest.raises(StoreError, match="failed on purpose") as caught:
        back_up(FaultyStore(MemoryStore(), fail_put_at=1), source=FakeSource(dump=dump))

    assert caught.value.exit_code == 10
    assert (ended, "store-one" in _threads()) == ([True], False)


def test_a_protection_shows_no_secret() -> None:
    """Neither key nor signer stands in what a log may print."""
    assert "Signer" not in repr(BOTH)
