"""The catalog's cache: saves reading, and is never believed by what acts on a set."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from structlog.testing import capture_logs

from opskit.catalog import catalog
from opskit.catalog.catalog import Catalog
from opskit.catalog.documents import Trust
from opskit.catalog.manifest import MANIFEST_NAME, SIGNATURE_NAME, Manifest
from opskit.catalog.sets import CatalogCache, ListedSet, Place
from opskit.crypto.signatures import Signer
from opskit.errors import IntegrityError, ObjectNotFound, StoreError, UsageError
from opskit.store import LocalStore, Store
from opskit.store.wrappers import StoreWrapper
from tests.memory_store import MemoryStore
from tests.unit import builders
from tests.unit.builders import STARTED_AT, store_evidence
from tests.unit.conftest import Unprivileged

DAY = timedelta(days=1)
OURS, THEIRS = (Signer(Ed25519PrivateKey.generate()) for _ in range(2))
TRUST = Trust((OURS.public_key,))


class Counting(StoreWrapper):
    """Remembers which keys were opened."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.opened: list[str] = []

    @contextmanager
    def open(self, key: str, start: int = 0) -> Iterator[BinaryIO]:
        self.opened.append(key)
        with self.inner.open(key, start) as file:
            yield file


@pytest.fixture
def store(store_dir: Path) -> Counting:
    """An empty store that tells when its objects change."""
    return Counting(LocalStore("local", store_dir))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the cache lies; not made yet."""
    return tmp_path / "state" / "catalog-cache"


def put_set(
    store: Store, days: int = 0, *, signer: Signer | None = OURS, source: str = "shop"
) -> Manifest:
    """Store a set as old as that, signed or not."""
    made = builders.manifest(source, STARTED_AT - days * DAY)
    content = made.to_json()
    if signer is not None:
        store.put(made.prefix + SIGNATURE_NAME, [signer.sign(content)])
    store.put(made.prefix + MANIFEST_NAME, [content])
    return made


def list_sets(
    store: Store,
    folder: Path,
    *,
    trust: Trust = TRUST,
    source: str | None = None,
    url: str = "file:///x",
) -> Catalog[ListedSet]:
    """List a store as another run would."""
    cache = CatalogCache(folder, store=(store.name, url))
    return catalog.list_sets(
        [store], source=source, trust=trust, caches={store.name: cache}
    )


def ids(found: Catalog[ListedSet]) -> list[str]:
    """Return the ids of the sets that are listed."""
    return [each.backup_id for each in found.sets]


def cached(folder: Path) -> dict[str, Any]:
    """Return the one file of the cache."""
    (path,) = folder.iterdir()
    document = json.loads(path.read_text())
    assert isinstance(document, dict)
    return document


def rewrite(folder: Path, document: object) -> None:
    """Put something else into the one file of the cache."""
    (path,) = folder.iterdir()
    path.write_text(document if isinstance(document, str) else json.dumps(document))


def test_a_second_listing_opens_nothing(store: Counting, folder: Path) -> None:
    """Manifests, signatures and evidence are read once, and the answer is the same."""
    for days in range(3):
        made = put_set(store, days)
        store_evidence(store, made, kind="drill", passed=True)
    put_set(store, 3, signer=THEIRS)
    first = list_sets(store, folder)
    # Manifest and signature of four sets, evidence and no signature of it of three.
    assert len(store.opened) == 14
    store.opened.clear()
    second = list_sets(store, folder)

    assert store.opened == []
    assert second == first
    assert len(first.sets) == 3
    assert len(first.unreadable) == 1


@pytest.mark.parametrize("trust", [Trust(), TRUST])
def test_a_listing_says_what_the_catalog_says(
    store: Counting, folder: Path, trust: Trust
) -> None:
    """Summaries, proofs, order and what cannot be used, read or remembered."""
    for days, signer in enumerate([OURS, None, THEIRS, OURS]):
        made = put_set(store, days, signer=signer)
        store_evidence(store, made, kind="verify", passed=bool(days % 2))
    put_set(store, source="crm")
    store.put(builders.manifest("bad").prefix + MANIFEST_NAME, [b"{}"])
    truth = catalog.read([store], trust=trust)
    for _ in range(2):
        found = list_sets(store, folder, trust=trust)

        assert [*found.sets] == [each.without_manifest() for each in truth.sets]
        assert found.unreadable == truth.unreadable
        assert [each.isoformat() for each in _times(found)] == [
            each.manifest.finished_at.isoformat() for each in truth.sets
        ]


def _times(found: Catalog[ListedSet]) -> list[Any]:
    return [each.finished_at for each in found.sets]


def test_new_evidence_costs_the_reading_of_its_own_set(
    store: Counting, folder: Path
) -> None:
    """A drill changes one set's proof; the others stay remembered."""
    made, _other = put_set(store), put_set(store, 1)
    list_sets(store, folder, trust=Trust())
    store.opened.clear()
    store_evidence(store, made, kind="drill", passed=True)
    found = list_sets(store, folder, trust=Trust())

    assert [each.proof for each in found.sets] == ["drilled", "unproven"]
    assert store.opened == [made.prefix + MANIFEST_NAME]


def _a_step_later(folder: Path) -> None:
    """Let the file system's clock go on: a change within a step of it has no trace."""
    probe = folder / "probe"
    probe.touch()
    before = probe.stat().st_ctime_ns
    while probe.stat().st_ctime_ns == before:
        probe.touch()


def test_a_manifest_of_the_same_size_and_time_is_noticed(
    store: Counting, folder: Path, store_dir: Path, tmp_path: Path
) -> None:
    """Whoever alters a file in place cannot set the time of its last change."""
    made = put_set(store)
    before = list_sets(store, folder, trust=Trust())
    path = store_dir / made.prefix / MANIFEST_NAME
    times = path.stat()
    altered = path.read_bytes().replace(b'"rows": 3', b'"rows": 2')
    _a_step_later(tmp_path)
    path.write_bytes(altered)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert path.stat().st_size == times.st_size
    after = list_sets(store, folder, trust=Trust())

    assert before.sets[0].manifest_sha256 != after.sets[0].manifest_sha256
    assert list_sets(store, folder).unreadable[0].reason.endswith("not of this content")


def _without_signature(store: Store, made: Manifest) -> None:
    store.delete(made.prefix + SIGNATURE_NAME)


def _signed_by_others(store: Store, made: Manifest) -> None:
    store.delete(made.prefix + SIGNATURE_NAME)
    store.put(made.prefix + SIGNATURE_NAME, [THEIRS.sign(made.to_json())])


@pytest.mark.parametrize("damage", [_without_signature, _signed_by_others])
def test_a_signature_that_changes_is_noticed(
    store: Counting,
    folder: Path,
    tmp_path: Path,
    damage: Callable[[Store, Manifest], None],
) -> None:
    """A verdict holds no longer than the signature that it was about."""
    made = put_set(store)
    assert ids(list_sets(store, folder)) == [made.backup_id]
    _a_step_later(tmp_path)
    damage(store, made)
    found = list_sets(store, folder)

    assert found.sets == ()
    assert len(found.unreadable) == 1


def test_a_verdict_is_about_the_keys_that_were_trusted(
    store: Counting, folder: Path
) -> None:
    """Keys that are trusted no longer take their sets along, and new ones bring some."""
    put_set(store)
    theirs = put_set(store, 1, signer=THEIRS)
    list_sets(store, folder, trust=Trust())
    list_sets(store, folder)
    found = list_sets(store, folder, trust=Trust((THEIRS.public_key,)))

    assert ids(found) == [theirs.backup_id]


def _look_trusted(folder: Path, store: Store, made: Manifest) -> None:
    """Make the cache say of an unsigned set what it says of a signed one."""
    list_sets(store, folder)  # seals the set as it lies there, and refuses it
    document = cached(folder)
    entry = document["sets"][made.prefix]
    assert isinstance(entry["known"], str)
    entry["known"] = {
        "backup_id": made.backup_id,
        "source": made.source,
        "started_at": made.started_at.isoformat(),
        "snapshot_at": made.snapshot_at.isoformat(),
        "finished_at": made.finished_at.isoformat(),
        "size_bytes": made.size_bytes,
        "sudden_changes": [],
        "manifest_sha256": "0" * 64,
        "copies": [
            {
                "store": store.name,
                "evidence": ["evidence/20260311T030000Z-drill-passed-abc123.json"],
                "is_pinned": False,
                "faults": [],
            }
        ],
    }
    rewrite(folder, document)


@pytest.mark.parametrize("signer", [None, THEIRS])
def test_a_forged_cache_makes_no_set_usable(
    store: Counting, folder: Path, signer: Signer | None
) -> None:
    """Restore, drill and verify refuse a set that only the cache calls trusted."""
    made = put_set(store, signer=signer)
    _look_trusted(folder, store, made)
    found = list_sets(store, folder)
    assert ids(found) == [made.backup_id]  # it fools who looks, not who acts

    for choose in (
        lambda: found.find(made.backup_id),
        lambda: found.newest("shop"),
        lambda: catalog.read([store], trust=TRUST).find(made.backup_id),
    ):
        with pytest.raises(IntegrityError, match="cannot be used"):
            choose()
    assert not hasattr(found.sets[0], "manifest")


def test_what_is_chosen_is_read_from_the_store(store: Counting, folder: Path) -> None:
    """Manifest, signature and evidence are those of this moment."""
    made, _older = put_set(store), put_set(store, 1)
    list_sets(store, folder)
    store.opened.clear()
    found = list_sets(store, folder)
    store_evidence(store, made, kind="verify", passed=False)

    for chosen in (found.find(made.backup_id), found.newest("shop")):
        assert chosen.manifest == made
        assert chosen == catalog.read([store], trust=TRUST).find(made.backup_id)
    assert made.prefix + SIGNATURE_NAME in store.opened


def test_a_set_that_changes_between_listing_and_choosing_is_refused(
    store: Counting, folder: Path, store_dir: Path
) -> None:
    """Nor is one that has gone meanwhile taken for one that is there."""
    altered, gone = put_set(store), put_set(store, 1)
    found = list_sets(store, folder)
    path = store_dir / altered.prefix / MANIFEST_NAME
    path.write_bytes(path.read_bytes() + b" ")
    store.delete(gone.prefix + MANIFEST_NAME)

    with pytest.raises(IntegrityError, match="not of this content"):
        found.find(altered.backup_id)
    with pytest.raises(UsageError, match="no store holds"):
        found.find(gone.backup_id)


def test_a_copy_that_is_damaged_does_not_hide_the_good_one(
    store: Counting, folder: Path, tmp_path: Path
) -> None:
    """What is chosen comes from the stores where it can still be used."""
    (tmp_path / "other").mkdir()
    other = LocalStore("other", tmp_path / "other")
    made = put_set(store)
    put_set(other)
    found = catalog.list_sets([store, other], trust=TRUST)
    _without_signature(store, made)
    with capture_logs() as logs:
        chosen = found.find(made.backup_id)

    assert [each.name for each in found.sets[0].stores] == ["local", "other"]
    assert [each.name for each in chosen.stores] == ["other"]
    assert [(each["event"], each["store"]) for each in logs] == [
        ("a backup set cannot be used", "local")
    ]


_DAMAGE = {
    "empty": "",
    "cut short": '{"format":1,"sets":{',
    "a list": "[]",
    "bottomless": "[" * 100_000,
    "not text": "\x00\x01",
    "no sets": '{"format":1}',
}


@pytest.mark.parametrize("text", _DAMAGE.values(), ids=_DAMAGE.keys())
def test_a_damaged_file_is_made_anew(store: Counting, folder: Path, text: str) -> None:
    """It costs the reading, and no error."""
    put_set(store)
    first = list_sets(store, folder)
    whole = cached(folder)
    rewrite(folder, text)
    store.opened.clear()

    assert list_sets(store, folder) == first
    assert len(store.opened) == 2
    assert cached(folder) == whole


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("backup_id", "shop-20260310T030000Z-ffffff"),
        ("source", 3),
        ("started_at", "yesterday"),
        ("started_at", "2026-03-10T03:00:00"),
        ("started_at", "0001-01-01T00:00:00+14:00"),
        ("finished_at", None),
        ("size_bytes", "many"),
        ("size_bytes", float("inf")),
        ("sudden_changes", 1),
        ("sudden_changes", [1]),
        ("evidence", ["evidence/x.json"]),
        ("evidence", {"a": 1}),
        ("faults", [["one"]]),
        ("manifest_sha256", "../x"),
        ("manifest_sha256", None),
        ("copies", []),
        ("seal", None),
        ("known", ["x"]),
    ],
)
def test_a_damaged_entry_is_read_again(
    store: Counting, folder: Path, field: str, value: object
) -> None:
    """What no manifest in that place could say is not shown."""
    put_set(store)
    first = list_sets(store, folder)
    document = cached(folder)
    (entry,) = document["sets"].values()
    known = entry["known"]
    (copy,) = known["copies"]
    if field in copy:
        altered = entry | {"known": known | {"copies": [copy | {field: value}]}}
    elif field in known:
        altered = entry | {"known": known | {field: value}}
    else:
        altered = entry | {field: value}
    rewrite(folder, document | {"sets": {next(iter(document["sets"])): altered}})

    assert list_sets(store, folder) == first
    assert cached(folder) == document


@pytest.mark.parametrize("key", ["format", "version", "store"])
def test_the_file_of_another_store_or_version_is_ignored(
    store: Counting, folder: Path, key: str
) -> None:
    """A later opskit may understand a manifest in another way."""
    put_set(store)
    list_sets(store, folder)
    document = cached(folder)
    assert document[key] != "other"
    rewrite(folder, document | {key: "other"})
    store.opened.clear()
    list_sets(store, folder)

    assert len(store.opened) == 2
    assert cached(folder) == document


def test_a_store_that_moved_has_another_file(store: Counting, folder: Path) -> None:
    """The name in the configuration does not say what lies behind it."""
    put_set(store)
    list_sets(store, folder)
    store.opened.clear()
    list_sets(store, folder, url="file:///y")

    assert len(store.opened) == 2
    assert len([*folder.iterdir()]) == 2


def test_only_its_owner_reads_the_cache(store: Counting, folder: Path) -> None:
    """Names and times of backups are nobody else's business."""
    put_set(store)
    list_sets(store, folder)

    (path,) = folder.iterdir()
    assert (path.stat().st_mode & 0o777, folder.stat().st_mode & 0o777) == (
        0o600,
        0o700,
    )


def test_a_file_that_others_may_write_is_replaced(
    store: Counting, folder: Path
) -> None:
    """Anybody could have written it."""
    put_set(store)
    list_sets(store, folder)
    (path,) = folder.iterdir()
    path.chmod(0o666)
    store.opened.clear()
    list_sets(store, folder)

    assert len(store.opened) == 2
    assert path.stat().st_mode & 0o777 == 0o600


def test_without_a_place_to_write_everything_is_read(
    shared_path: Path, unprivileged: Unprivileged
) -> None:
    """A state folder that is read-only costs time, and no error."""
    state = shared_path / "state"
    with unprivileged():
        (shared_path / "store").mkdir()
        state.mkdir(mode=0o555)
        store = Counting(LocalStore("local", shared_path / "store"))
        made = put_set(store)
        for _ in range(2):
            store.opened.clear()
            found = list_sets(store, state / "catalog-cache")

            assert ids(found) == [made.backup_id]
            assert len(store.opened) == 2

    assert [*state.iterdir()] == []


def test_a_file_where_the_folder_should_be_is_no_error(
    store: Counting, folder: Path
) -> None:
    """Nor is it touched."""
    folder.parent.mkdir()
    folder.write_text("mine")
    made = put_set(store)

    assert ids(list_sets(store, folder)) == [made.backup_id]
    assert folder.read_text() == "mine"


def test_nothing_is_left_in_the_state_folder_of_another_user(
    store: Counting, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What root leaves there would be in its owner's way for ever."""
    folder.parent.mkdir()
    put_set(store)
    monkeypatch.setattr(os, "geteuid", lambda: folder.parent.stat().st_uid + 1)
    list_sets(store, folder)

    assert not folder.exists()


def test_sets_that_are_gone_are_forgotten(store: Counting, folder: Path) -> None:
    """The file does not grow for ever; what another source holds stays in it."""
    gone, stays = put_set(store), put_set(store, 1)
    other = put_set(store, source="shop-2")
    list_sets(store, folder)
    store.discard(gone.prefix)
    list_sets(store, folder, source="shop")

    assert cached(folder)["sets"].keys() == {stays.prefix, other.prefix}
    store.opened.clear()
    assert ids(list_sets(store, folder, source="shop-2")) == [other.backup_id]
    assert store.opened == []


def test_a_store_that_does_not_tell_changes_is_always_read(folder: Path) -> None:
    """Size and time alone are no proof of sameness."""
    store = Counting(MemoryStore("ram"))
    put_set(store)
    for _ in range(2):
        store.opened.clear()
        list_sets(store, folder)

        assert len(store.opened) == 2


@pytest.mark.parametrize("name", [MANIFEST_NAME, SIGNATURE_NAME])
@pytest.mark.parametrize("error", [StoreError, ObjectNotFound])
def test_what_a_store_did_not_give_up_is_asked_for_again(
    store: Counting, folder: Path, name: str, error: type[StoreError]
) -> None:
    """A store that is out of order for a moment condemns no set."""
    made = put_set(store)

    class Unsteady(StoreWrapper):
        @contextmanager
        def open(self, key: str, start: int = 0) -> Iterator[BinaryIO]:
            if key.endswith("/" + name):
                raise error("not now")
            with self.inner.open(key, start) as file:
                yield file

    failed = list_sets(Unsteady(store), folder)

    assert (failed.sets, len(failed.unreadable)) == ((), 1)
    assert ids(list_sets(store, folder)) == [made.backup_id]


def test_what_is_amiss_is_told_each_time(store: Counting, folder: Path) -> None:
    """A cache does not turn a warning into one that comes once."""
    made = put_set(store)
    name = "evidence/20260311T030000Z-drill-passed-abc123.json"
    store.put(made.prefix + name + ".sig", [OURS.sign(b"other")])
    store.put(made.prefix + name, [b"{}"])
    for _ in range(2):
        with capture_logs() as logs:
            found = list_sets(store, folder)

        assert [each.proof for each in found.sets] == ["unproven"]
        assert [each["key"] for each in logs] == [made.prefix + name]


def test_two_runs_at_once_do_not_harm_each_other(store: Counting, folder: Path) -> None:
    """The file is always one run's whole word; what it lacks is read again."""
    shop, crm = put_set(store), put_set(store, source="crm")
    caches = [CatalogCache(folder, store=("local", "file:///x")) for _ in range(2)]
    for cache in caches:
        nowhere = Place(prefix="nowhere/", objects=())
        assert (
            cache.recall(store, nowhere, TRUST) is None
        )  # both have read what there is
    for source, cache in zip(("shop", "crm"), caches, strict=True):
        catalog.list_sets([store], source=source, trust=TRUST, caches={"local": cache})
    assert cached(folder)["sets"].keys() == {crm.prefix}

    assert len(list_sets(store, folder).sets) == 2
    assert cached(folder)["sets"].keys() == {shop.prefix, crm.prefix}


def test_what_an_interrupted_run_has_read_is_kept(
    store: Counting, folder: Path
) -> None:
    """The first listing of a large store may take a while; it need not begin anew."""
    first = put_set(store, 1)
    second = put_set(store)

    class Interrupted(StoreWrapper):
        @contextmanager
        def open(self, key: str, start: int = 0) -> Iterator[BinaryIO]:
            if key.startswith(second.prefix):
                raise KeyboardInterrupt
            with self.inner.open(key, start) as file:
                yield file

    with pytest.raises(KeyboardInterrupt):
        list_sets(Interrupted(store), folder)

    assert cached(folder)["sets"].keys() == {first.prefix}
