"""Trust: what no trusted key signed is refused, be it a set or the proof of one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import BinaryIO

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from opskit.catalog import catalog
from opskit.catalog.catalog import Catalog
from opskit.catalog.documents import EvidenceKind, Trust
from opskit.catalog.manifest import MANIFEST_NAME, SIGNATURE_NAME, Manifest
from opskit.catalog.sets import BackupSet
from opskit.checks import Check
from opskit.crypto.signatures import Signer
from opskit.errors import (
    IntegrityError,
    ObjectNotFound,
    ObjectUnreadable,
    StoreError,
)
from opskit.evidence import Evidence, set_subject, store_evidence
from tests.memory_store import MemoryStore
from tests.unit import builders
from tests.unit.builders import STARTED_AT, store_objects

DAY = timedelta(days=1)
OURS, SECOND, THEIRS = (Signer(Ed25519PrivateKey.generate()) for _ in range(3))
TRUST = Trust((OURS.public_key, SECOND.public_key))
Damage = Callable[[MemoryStore, Manifest], None]


@pytest.fixture
def store() -> MemoryStore:
    """An empty store."""
    return MemoryStore("ram")


def store_signed(
    store: MemoryStore, days: int = 0, signer: Signer | None = OURS
) -> Manifest:
    """Store a set whose manifest a key signed, or none."""
    made = builders.manifest(started_at=STARTED_AT + days * DAY)
    store_objects(store, made)
    content = made.to_json()
    if signer is not None:
        store.put(made.prefix + SIGNATURE_NAME, [signer.sign(content)])
    store.put(made.prefix + MANIFEST_NAME, [content])
    return made


def content(store: MemoryStore, key: str) -> bytes:
    """Return what lies under a key."""
    with store.open(key) as file:
        return file.read()


def overwrite(store: MemoryStore, key: str, new: bytes) -> None:
    """Put something else under a key."""
    store.delete(key)
    store.put(key, [new])


def read(store: MemoryStore) -> Catalog[BackupSet]:
    """Read the catalog with our keys trusted."""
    return catalog.read([store], trust=TRUST)


@pytest.mark.parametrize("signer", [OURS, SECOND])
def test_what_a_trusted_key_signed_is_listed(
    store: MemoryStore, signer: Signer
) -> None:
    """Any one of the trusted keys is enough."""
    made = store_signed(store, signer=signer)

    found = read(store)

    assert [each.manifest for each in found.sets] == [made]
    assert found.unreadable == ()
    assert found.find(made.backup_id) == found.newest("shop") == found.sets[0]


@pytest.mark.parametrize("signer", [None, THEIRS])
def test_without_trusted_keys_no_signature_is_asked_for(
    store: MemoryStore, signer: Signer | None
) -> None:
    """Sets from before signatures, or of others, are listed."""
    made = store_signed(store, signer=signer)

    found = catalog.read([store])

    assert [each.manifest for each in found.sets] == [made]


def _unsigned(store: MemoryStore, made: Manifest) -> None:
    store.delete(made.prefix + SIGNATURE_NAME)


def _signed_by_others(store: MemoryStore, made: Manifest) -> None:
    signature = THEIRS.sign(content(store, made.prefix + MANIFEST_NAME))
    overwrite(store, made.prefix + SIGNATURE_NAME, signature)


def _with_the_signature_of_another_set(store: MemoryStore, made: Manifest) -> None:
    other = store_signed(MemoryStore(), days=-9)
    signature = OURS.sign(other.to_json())
    overwrite(store, made.prefix + SIGNATURE_NAME, signature)


def _altered(store: MemoryStore, made: Manifest) -> None:
    key = made.prefix + MANIFEST_NAME
    altered = content(store, key).replace(b'"rows": 3', b'"rows": 2')
    assert altered != content(store, key)
    overwrite(store, key, altered)


def _with_a_space_more(store: MemoryStore, made: Manifest) -> None:
    key = made.prefix + MANIFEST_NAME
    overwrite(store, key, content(store, key) + b" ")


def _with_an_altered_signature(store: MemoryStore, made: Manifest) -> None:
    key = made.prefix + SIGNATURE_NAME
    head, body, tail = content(store, key).partition(b"\n-----END")
    swapped = b"A" if body and head[-3:-2] != b"A" else b"B"
    overwrite(store, key, head[:-3] + swapped + head[-2:] + body + tail)


def _with_an_empty_signature(store: MemoryStore, made: Manifest) -> None:
    overwrite(store, made.prefix + SIGNATURE_NAME, b"")


def _moved(store: MemoryStore, made: Manifest) -> None:
    """Put another set's manifest here, with its own good signature."""
    other = builders.manifest(started_at=STARTED_AT - 9 * DAY).to_json()
    overwrite(store, made.prefix + MANIFEST_NAME, other)
    overwrite(store, made.prefix + SIGNATURE_NAME, OURS.sign(other))


REFUSED: dict[Damage, str] = {
    _unsigned: "is not signed",
    _signed_by_others: f"signed by the key {THEIRS.fingerprint}, which is not trusted",
    _with_the_signature_of_another_set: "is not of this content",
    _altered: "is not of this content",
    _with_a_space_more: "is not of this content",
    _with_an_altered_signature: "is not of this content",
    _with_an_empty_signature: "is not a signature",
    _moved: "is the manifest of another set",
}
every_damage = pytest.mark.parametrize(
    ("damage", "reason"),
    REFUSED.items(),
    ids=lambda each: getattr(each, "__name__", ""),
)


@every_damage
def test_what_is_not_signed_well_is_refused(
    store: MemoryStore, damage: Damage, reason: str
) -> None:
    """It is told with its reason, and neither found nor taken for the newest."""
    older = store_signed(store, days=-1)
    made = store_signed(store)
    damage(store, made)

    found = read(store)

    assert [each.manifest for each in found.sets] == [older]
    assert [each.key for each in found.unreadable] == [made.prefix + MANIFEST_NAME]
    assert reason in found.unreadable[0].reason
    for ask in (lambda: found.find(made.backup_id), lambda: found.newest("shop")):
        with pytest.raises(IntegrityError) as caught:
            ask()
        assert reason in caught.value.message
        assert caught.value.exit_code == 20


def test_an_older_set_that_is_refused_holds_up_no_newer_one(store: MemoryStore) -> None:
    """The newest is as good as it was."""
    _unsigned(store, store_signed(store, days=-1))
    made = store_signed(store)

    assert read(store).newest("shop").manifest == made


def test_the_only_set_that_is_refused_is_not_taken_for_none(store: MemoryStore) -> None:
    """An altered set is not the same as no backup yet."""
    _altered(store, store_signed(store))

    with pytest.raises(IntegrityError, match="not of this content"):
        read(store).newest("shop")


def test_the_copy_in_another_store_is_used(store: MemoryStore) -> None:
    """What is refused in one store says nothing of another."""
    far = MemoryStore("far")
    made = store_signed(store)
    store_signed(far)
    _altered(store, made)

    found = catalog.read([store, far], trust=TRUST)

    assert found.find(made.backup_id).stores == (far,)
    assert found.newest("shop").stores == (far,)
    assert [each.store for each in found.unreadable] == ["ram"]


def put_evidence(
    store: MemoryStore,
    made: Manifest,
    *,
    signer: Signer | None = OURS,
    kind: EvidenceKind = "drill",
    passed: bool = True,
    minutes: int = 10,
    run_id: str = "abc123",
) -> str:
    """Store evidence as a drill does, and return its key."""
    sha256 = read(store).find(made.backup_id).manifest_sha256
    evidence = Evidence(
        kind=kind,
        run_id=run_id,
        subject=set_subject(made, sha256),
        started_at=made.finished_at,
        finished_at=made.finished_at + timedelta(minutes=minutes),
        checks=(Check(name="rows", passed=passed),),
        figures=None,
    )
    store_evidence(evidence, None, [store], signer=signer)
    return made.prefix + evidence.name.name()


@pytest.mark.parametrize(
    ("kind", "passed", "proof"),
    [
        ("drill", True, "drilled"),
        ("verify", True, "verified"),
        ("drill", False, "failed"),
        ("verify", False, "failed"),
    ],
)
def test_signed_evidence_counts(
    store: MemoryStore, kind: EvidenceKind, passed: bool, proof: str
) -> None:
    """Of each kind and outcome."""
    made = store_signed(store)
    put_evidence(store, made, kind=kind, passed=passed)

    assert read(store).sets[0].proof == proof


def _evidence_without_signature(store: MemoryStore, key: str) -> None:
    store.delete(key + ".sig")


def _evidence_of_others(store: MemoryStore, key: str) -> None:
    overwrite(store, key + ".sig", THEIRS.sign(content(store, key)))


def _evidence_altered(store: MemoryStore, key: str) -> None:
    overwrite(store, key, content(store, key) + b" ")


def _evidence_signed_as_another(store: MemoryStore, key: str) -> None:
    overwrite(store, key + ".sig", OURS.sign(b"{}"))


def _evidence_that_is_none(store: MemoryStore, key: str) -> None:
    overwrite(store, key, b"[]")
    overwrite(store, key + ".sig", OURS.sign(b"[]"))


@pytest.mark.parametrize(
    "damage",
    [
        _evidence_without_signature,
        _evidence_of_others,
        _evidence_altered,
        _evidence_signed_as_another,
        _evidence_that_is_none,
    ],
)
def test_evidence_that_is_not_signed_well_does_not_count(
    store: MemoryStore, damage: Callable[[MemoryStore, str], None]
) -> None:
    """The set itself is as good as it was; without trusted keys the name counts."""
    made = store_signed(store)
    damage(store, put_evidence(store, made))

    found = read(store)

    assert [each.proof for each in found.sets] == ["unproven"]
    assert found.unreadable == ()
    assert [each.proof for each in catalog.read([store]).sets] == ["drilled"]


class _Forgetful(MemoryStore):
    """Lists evidence that it cannot give any more."""

    def __init__(self, error: type[StoreError]) -> None:
        super().__init__("ram")
        self._error = error

    @contextmanager
    def open(self, key: str, start: int = 0) -> Iterator[BinaryIO]:
        if "/evidence/" in key and key.endswith(".json"):
            raise self._error(f"there is no object {key}")
        with super().open(key, start) as file:
            yield file


@pytest.mark.parametrize("error", [ObjectNotFound, ObjectUnreadable])
def test_evidence_that_is_lost_takes_no_set_with_it(error: type[StoreError]) -> None:
    """A store that lost a word about a set still has the set."""
    store = _Forgetful(error)
    made = store_signed(store)
    put_evidence(store, made)

    found = read(store)

    assert [each.proof for each in found.sets] == ["unproven"]
    assert found.unreadable == ()


def _copied(store: MemoryStore, key: str, new_key: str) -> None:
    for suffix in ("", ".sig"):
        store.put(new_key + suffix, [content(store, key + suffix)])


@pytest.mark.parametrize(
    ("old", "new"),
    [("failed", "passed"), ("verify", "drill"), ("T031500Z", "T040000Z"), ("abc123", "abc124")],
)  # fmt: skip
def test_renamed_evidence_does_not_count(
    store: MemoryStore, old: str, new: str
) -> None:
    """Nobody makes a failure a success, nor an old word the newest, by another name."""
    made = store_signed(store)
    key = put_evidence(store, made, kind="verify", passed=False)
    assert old in key
    _copied(store, key, key.replace(old, new))
    for suffix in ("", ".sig"):
        store.delete(key + suffix)

    assert read(store).sets[0].proof == "unproven"


def test_an_old_success_does_not_come_after_a_failure(store: MemoryStore) -> None:
    """Signed evidence that is stored again under a later time heals nothing."""
    made = store_signed(store)
    passed = put_evidence(store, made, minutes=10)
    put_evidence(store, made, passed=False, minutes=20, run_id="def456")
    _copied(store, passed, passed.replace("T031500Z", "T040000Z"))

    assert read(store).sets[0].proof == "failed"


def test_evidence_of_another_set_does_not_count(store: MemoryStore) -> None:
    """Nor that of an earlier manifest of the same set."""
    made, other = store_signed(store), store_signed(store, days=1)
    key = put_evidence(store, made)
    _copied(store, key, key.replace(made.prefix, other.prefix))

    proofs = {each.manifest.backup_id: each.proof for each in read(store).sets}

    assert proofs == {made.backup_id: "drilled", other.backup_id: "unproven"}


def test_the_names_in_evidence_are_those_of_its_document(store: MemoryStore) -> None:
    """What the catalog compares is what a drill writes."""
    made = store_signed(store)
    document = json.loads(content(store, put_evidence(store, made)))

    found = read(store).sets[0]

    assert (document["manifest_sha256"], document["kind"], document["passed"]) == (
        found.manifest_sha256,
        "drill",
        True,
    )


def test_trust_is_asked_for_by_key_alone(store: MemoryStore) -> None:
    """Without keys nothing is read; with them every byte counts."""
    store.put("a", [b"content"])

    Trust().require(store, "a", b"content")
    with pytest.raises(IntegrityError, match="a is not signed"):
        TRUST.require(store, "a", b"content")
    store.put("a.sig", [OURS.sign(b"content")])
    TRUST.require(store, "a", b"content")
    with pytest.raises(IntegrityError, match="a: the signature by the key"):
        TRUST.require(store, "a", b"other content")
