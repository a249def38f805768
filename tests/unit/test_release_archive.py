"""Archives of releases: which copy of a document is taken, and what is missing."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import BinaryIO

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from opskit.catalog.documents import document_bytes, store_document
from opskit.catalog.manifest import MANIFEST_NAME, SIGNATURE_NAME
from opskit.checks import Check
from opskit.crypto.signatures import Signer
from opskit.errors import ReleaseRefused, StoreUnavailable
from opskit.evidence import Evidence, set_subject, store_evidence
from opskit.operations.archive import Archived, archive
from opskit.operations.outcome import Outcome
from opskit.operations.run import Run
from tests.memory_store import MemoryStore
from tests.unit import builders
from tests.unit.conftest import LoadConfig

OURS = Signer(Ed25519PrivateKey.generate())
MADE = builders.manifest()
REPORT = {"name": "release-1", "passed": True}


class _Failing(MemoryStore):
    """Does not give the objects whose keys end so."""

    fails: tuple[str, ...] = ()

    @contextmanager
    def open(self, key: str, start: int = 0) -> Iterator[BinaryIO]:
        if self.fails and key.endswith(self.fails):
            raise StoreUnavailable(f"store {self.name} does not answer")
        with super().open(key, start) as file:
            yield file


class _Site:
    """A host with a release on record, its report and set in two stores."""

    def __init__(self, run: Run, stores: list[_Failing]) -> None:
        self.run, self.near, self.far = run, *stores
        with run.recorded("release") as record:
            record.begin(
                release=run.run_id,
                version="2",
                report="release-1",
                restore_point=MADE.backup_id,
            )
        self.folder = f"_reports/{run.ledger.id}/"
        content = MADE.to_json()
        for store in stores:
            store_document(store, f"{self.folder}release-1.json", REPORT, OURS)
            store.put(f"{self.folder}release-1.md", [b"# It went well\n"])
            builders.store_objects(store, MADE)
            store.put(MADE.prefix + SIGNATURE_NAME, [OURS.sign(content)])
            store.put(MADE.prefix + MANIFEST_NAME, [content])
        (run.reports / "release-1.json").write_bytes(document_bytes(REPORT))
        (run.reports / "release-1.md").write_text("# It went well\n")

    def add_evidence(self, store: MemoryStore, run_id: str) -> None:
        sha256 = self.run.catalog().find(MADE.backup_id).manifest_sha256
        evidence = Evidence(
            kind="drill",
            run_id=run_id,
            subject=set_subject(MADE, sha256),
            started_at=MADE.finished_at,
            finished_at=MADE.finished_at + timedelta(minutes=1),
            checks=(Check(name="rows", passed=True),),
            figures=None,
        )
        store_evidence(evidence, None, [store], signer=OURS)

    def archive(self) -> Outcome[Archived]:
        return archive(self.run, self.run.run_id)


@pytest.fixture
def site(load_config: LoadConfig, monkeypatch: pytest.MonkeyPatch) -> _Site:
    """A host that trusts our key."""
    return _site(load_config, monkeypatch, OURS.public_key)


def _site(
    load_config: LoadConfig, monkeypatch: pytest.MonkeyPatch, *trusted: str
) -> _Site:
    stores = [_Failing("near"), _Failing("far")]
    monkeypatch.setattr(Run, "stores", property(lambda _run: stores))
    run = Run(
        load_config(
            f'[stores.near]\nurl = "file:///near"\n[stores.far]\nurl = "file:///far"\n'
            f"[signing]\ntrusted_keys = {[*trusted]!r}\n"
        )
    )
    return _Site(run, stores)


def _archived(outcome: Outcome[Archived]) -> Archived:
    assert outcome.errors == ()
    assert outcome.result is not None
    return outcome.result


def _refuse() -> None:
    raise ReleaseRefused("a migration is missing")


def test_the_latest_is_none_before_one_that_was_refused(site: _Site) -> None:
    """The evidence of another release would be kept for that of this one."""
    assert _archived(archive(site.run, "latest")).release_id == site.run.run_id
    with site.run.recorded("release", watched=True):
        _refuse()

    (refused,) = archive(site.run, "latest").errors

    assert "refused before its first step" in refused.message
    assert _archived(site.archive()).release_id == site.run.run_id


def test_every_object_is_taken_from_a_copy_that_gives_it(site: _Site) -> None:
    """Evidence may lie in one of the stores only."""
    site.add_evidence(site.near, "abc1")
    site.add_evidence(site.far, "abc2")
    site.near.fails = ("release-1.json", "release-1.md")

    made = _archived(site.archive())

    assert made.missing == ()
    evidence = [e for e in made.digests if "/evidence/" in e and e.endswith(".json")]
    assert sorted(e.rpartition("-")[2] for e in evidence) == ["abc1.json", "abc2.json"]
    assert {
        f"sets/{MADE.backup_id}/manifest.json",
        f"sets/{MADE.backup_id}/manifest.json.sig",
        "reports/release-1.json",
        "reports/release-1.json.sig",
        "reports/release-1.md",
    } <= made.digests.keys()


@pytest.mark.parametrize("is_gone", [True, False])
def test_an_unsigned_copy_does_not_count_where_keys_are_trusted(
    site: _Site, is_gone: bool
) -> None:
    """It is missing by name; and one that is gone differs from a store that is."""
    for store in (site.near, site.far):
        if is_gone:
            store.delete(f"{site.folder}release-1.json")
        else:
            store.fails = ("release-1.json",)

    made = _archived(site.archive())

    reason = "" if is_gone else "".join(
        f": store {name} does not answer" for name in ("near", "far")
    )  # fmt: skip
    assert made.missing == (f"the report release-1.json{reason}",)
    assert "reports/release-1.json" not in made.digests
    with tarfile.open(made.path) as tar:
        file = tar.extractfile(f"evidence-{made.release_id}/MISSING")
        assert file is not None
        assert file.read().decode() == f"{made.missing[0]}\n"


def test_a_signature_that_a_store_may_have_is_missing(
    load_config: LoadConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without trusted keys the copy on this host will do, and that is said."""
    site = _site(load_config, monkeypatch)
    site.near.fails = site.far.fails = ("release-1.json",)

    made = _archived(site.archive())

    assert "reports/release-1.json" in made.digests
    (missing,) = made.missing
    assert missing.startswith("the signature of release-1.json: store near does not")


def test_what_lies_beside_a_set_and_cannot_be_read_is_missing(
    load_config: LoadConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Evidence counts by its name; its document may not be there any more."""
    site = _site(load_config, monkeypatch)
    site.add_evidence(site.near, "abc1")
    site.near.fails = ("abc1.json",)

    made = _archived(site.archive())

    (missing,) = made.missing
    assert missing.startswith(f"sets/{MADE.backup_id}/evidence/")
    assert missing.endswith("-abc1.json: store near does not answer")


def test_a_document_that_nobody_trusted_signed_ends_it(site: _Site) -> None:
    """It lies in a store, where its signature ought to be."""
    site.near.delete(f"{site.folder}release-1.json.sig")

    assert site.archive().exit_code == 20
