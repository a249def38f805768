"""Several runs make the set that is due: one set in the end, whole, and no other's."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from opskit.backup.create import BackupResult, clean_up, create_backup
from opskit.catalog import catalog, retention
from opskit.catalog.copying import copy_set
from opskit.catalog.documents import Trust
from opskit.catalog.manifest import DUE_VERSION, MANIFEST_NAME
from opskit.catalog.places import attempt_folder, backup_id_of
from opskit.catalog.reader import SetReader, verify_set
from opskit.catalog.retention import GRACE
from opskit.catalog.sets import BackupSet
from opskit.catalog.writer import Protection
from opskit.errors import LockHeld, StoreError
from opskit.store import LocalStore, ObjectInfo, Store
from tests.faulty import FaultyStore
from tests.memory_store import MemoryStore
from tests.unit.builders import STARTED_AT
from tests.unit.store_contract import keys
from tests.unit.test_protection import BOTH, DUMP, OWN, SIGNER, FakeSource

DUE = STARTED_AT - timedelta(hours=5)  # the day before
ID = "shop-20260309T220000Z-" + backup_id_of("shop", DUE)[-6:]
PLACE = f"shop/2026-03-09/{ID}/"
TRUST = Trust((SIGNER.public_key,))


@pytest.fixture
def attempt(tmp_path: Path) -> Callable[..., BackupResult]:
    """Return a function that makes the set that is due, each run on its own host."""

    def attempt(
        run_id: str,
        *stores: Store,
        dump: Callable[[], Iterable[bytes]] = lambda: [DUMP],
        by: Protection | None = BOTH,
        require_turn: Callable[[], None] = lambda: None,
    ) -> BackupResult:
        return create_backup(
            FakeSource(dump=dump),
            stores,
            run_id=run_id,
            state_dir=tmp_path / run_id,
            clock=lambda: STARTED_AT,
            protection=by,
            due=DUE,
            require_turn=require_turn,
        )

    return attempt


Attempt = Callable[..., BackupResult]


def _the_set(*stores: Store) -> BackupSet:
    """Return the only set in the stores, which is whole in each of them."""
    found = catalog.read(stores, trust=TRUST)
    assert found.unreadable == ()
    (made,) = found.sets
    for store in made.stores:
        assert verify_set(made.manifest, store).bad == ()
    return made


def _attempts(store: Store) -> set[str]:
    return {each.split("/")[3] for each in keys(store) if each.count("/") > 3}


def test_a_set_that_is_due_has_one_place(attempt: Attempt) -> None:
    """It has the day on which it was due; its objects lie in a folder of the run."""
    store = MemoryStore()

    manifest = attempt("aa", store).manifest

    assert manifest.format_version == DUE_VERSION
    assert (manifest.backup_id, manifest.prefix) == (ID, PLACE)
    assert manifest.started_at == STARTED_AT
    assert {each.key for each in manifest.objects} == {
        f"{PLACE}run-aa/{name}"
        for name in ("dump.age", "roles.sql.age", "private.json.age", "RESTORE.md")
    }
    assert keys(store) == sorted(
        [
            *(each.key for each in manifest.objects),
            f"{PLACE}run-aa/manifest.json.sig",
            f"{PLACE}manifest.json",
        ]
    )
    assert _the_set(store).manifest == manifest
    SetReader(manifest=manifest, store=store, identities=OWN).opened()


@pytest.mark.parametrize("by", [None, BOTH], ids=["plain", "signed and encrypted"])
@pytest.mark.parametrize("number", [1, 2])
def test_a_run_that_comes_late_leaves_the_set_of_its_successor(
    number: int, by: Protection | None, attempt: Attempt, tmp_path: Path
) -> None:
    """It is stopped in its dump; meanwhile another one makes the set."""
    stores = [MemoryStore(f"store{each}") for each in range(number)]

    def overtaken() -> Iterator[bytes]:
        yield DUMP[:100]
        attempt("bb", *stores, by=by)
        yield DUMP[100:]

    with pytest.raises(LockHeld, match=f"{ID} has been made by another run"):
        attempt("aa", *stores, dump=overtaken, by=by)

    found = catalog.read(stores, trust=TRUST if by else Trust())
    assert [each.manifest.attempt for each in found.sets] == ["run-bb/"]
    for store in stores:
        assert verify_set(found.sets[0].manifest, store).bad == ()
        assert _attempts(store) == {"run-bb"}
    assert list((tmp_path / "aa" / "inflight").iterdir()) == []


class _Before(MemoryStore):
    """Does something right before it takes a manifest."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.before: Callable[[], object] = lambda: None

    def put(self, key: str, chunks: Iterable[bytes]) -> ObjectInfo:
        if key.endswith(MANIFEST_NAME):
            before, self.before = self.before, lambda: None
            before()
        return super().put(key, chunks)


def test_two_runs_do_not_get_a_store_each(attempt: Attempt) -> None:
    """One that had the first store to itself, but not the second, takes its set back."""
    first, second = MemoryStore("first"), _Before("second")
    second.before = lambda: attempt("bb", second)

    with pytest.raises(LockHeld, match="by another run"):
        attempt("aa", first, second)

    assert keys(first) == []
    made = _the_set(first, second)
    assert (made.manifest.attempt, made.stores) == ("run-bb/", (second,))
    assert _attempts(second) == {"run-bb"}


def test_a_set_that_is_copied_meanwhile_is_the_runs_own(attempt: Attempt) -> None:
    """What another run has taken from the first store to the second is its set."""
    first, second = MemoryStore("first"), _Before("second")

    def copy() -> None:
        (found,) = catalog.read([first]).sets
        assert copy_set(found.manifest, first, second).copied

    second.before = copy
    manifest = attempt("aa", first, second).manifest

    made = _the_set(first, second)
    assert (made.manifest, made.stores) == (manifest, (first, second))


class _Interrupted(MemoryStore):
    """The run is interrupted as soon as this store has its manifest."""

    def put(self, key: str, chunks: Iterable[bytes]) -> ObjectInfo:
        put = super().put(key, chunks)
        if key.endswith(MANIFEST_NAME):
            raise KeyboardInterrupt
        return put


def test_a_set_that_others_may_have_found_is_not_taken_back(
    attempt: Attempt, tmp_path: Path
) -> None:
    """The run is interrupted when one of two stores has its manifest."""
    first, second = _Interrupted("first"), MemoryStore("second")
    with pytest.raises(KeyboardInterrupt):
        attempt("aa", first, second)

    assert _the_set(first, second).stores == (first,)
    notes = tmp_path / "aa" / "inflight"
    clean_up(notes, source="shop", stores=[first, second])
    assert _the_set(first, second).stores == (first,)
    assert (keys(second), list(notes.iterdir())) == ([], [])


@pytest.mark.parametrize("order", [1, -1])
def test_stores_are_asked_in_the_order_of_their_names(
    order: int, attempt: Attempt
) -> None:
    """Whatever their order in the configuration; the first one decides."""
    first, second = _Before("first"), MemoryStore("second")
    first.before = lambda: attempt("bb", *[first, second][::order])

    with pytest.raises(LockHeld, match="by another run"):
        attempt("aa", *[second, first][::order])

    assert _the_set(first, second).stores == (first, second)
    assert _attempts(first) == _attempts(second) == {"run-bb"}


def test_a_store_that_fails_does_not_hold_up_the_others(attempt: Attempt) -> None:
    """It takes no manifest; the set stands in the others, and nothing is left in it."""
    first = MemoryStore("first")
    last = MemoryStore("last")

    result = attempt("aa", FaultyStore(first, fail_put_at=6), last)

    assert (list(result.failed), result.stores) == (["first"], ("last",))
    assert keys(first) == []
    assert _the_set(last).stores == (last,)


@contextmanager
def _lost(store: Store) -> Iterator[Callable[[], None]]:
    """Hold a claim in a store that could not be renewed in time."""

    def require_held() -> None:
        raise StoreError(f"the claim in store {store.name} was not renewed in time")

    yield require_held


@pytest.mark.parametrize("due", [DUE, None], ids=["due", "not due"])
def test_a_run_that_has_lost_every_store_has_made_no_set(
    due: datetime | None, tmp_path: Path
) -> None:
    """No claim could be renewed until the end: the run fails, and leaves nothing."""
    stores = [MemoryStore("first"), MemoryStore("second")]

    with pytest.raises(StoreError, match="in store first was not renewed in time"):
        create_backup(
            FakeSource(dump=lambda: [DUMP]),
            stores,
            run_id="aa",
            state_dir=tmp_path,
            clock=lambda: STARTED_AT,
            lock=_lost,
            due=due,
        )

    assert [keys(store) for store in stores] == [[], []]
    assert list((tmp_path / "inflight").iterdir()) == []


def test_two_names_of_one_store_are_one_run(attempt: Attempt) -> None:
    """What the run itself has put there is not another's."""
    store, other_name = MemoryStore("a"), MemoryStore("b")
    other_name._objects = store._objects

    result = attempt("aa", store, other_name)

    assert len(result.stores) == 1
    assert _the_set(store).manifest == result.manifest


def test_a_turn_that_has_passed_on_records_nothing(attempt: Attempt) -> None:
    """It is asked for right before the manifest, and nothing is left."""
    store = MemoryStore()

    def passed_on() -> None:
        assert _attempts(store) == {"run-aa"}
        raise LockHeld("another worker has it")

    with pytest.raises(LockHeld, match="another worker has it"):
        attempt("aa", store, require_turn=passed_on)

    assert keys(store) == []


@pytest.fixture
def killed(attempt: Attempt, tmp_path: Path) -> Callable[[Store], Path]:
    """Return a function that leaves what a killed run does, and gives its notes."""

    def killed(store: Store) -> Path:
        def dump() -> Iterator[bytes]:
            yield DUMP
            gone.is_gone = True
            raise StoreError("the process was killed")

        gone = _Gone(store)
        store.put(f"{PLACE}{attempt_folder('dead')}rows-1", [b"rows"])
        with pytest.raises(StoreError, match="was killed"):
            attempt("dead", gone, dump=dump)
        notes = tmp_path / "dead" / "inflight"
        assert len(list(notes.iterdir())) == 1
        assert _attempts(store) == {"run-dead"}
        return notes

    return killed


class _Gone(FaultyStore):
    is_gone = False

    def discard(self, prefix: str) -> None:
        if self.is_gone:
            raise StoreError("the process was killed")
        super().discard(prefix)


def test_the_next_run_removes_what_a_killed_one_left_beside_a_set(
    attempt: Attempt, killed: Callable[[Store], Path]
) -> None:
    """Another host has made the set meanwhile, which stays."""
    store = MemoryStore()
    notes = killed(store)
    made = attempt("bb", store).manifest
    assert _attempts(store) == {"run-dead", "run-bb"}

    removed = clean_up(notes, source="shop", stores=[store])

    assert removed == [f"{PLACE}run-dead/"]
    assert (_the_set(store).manifest, _attempts(store)) == (made, {"run-bb"})
    assert list(notes.iterdir()) == []


def test_a_run_that_was_killed_after_its_manifest_has_made_its_set(
    attempt: Attempt, tmp_path: Path
) -> None:
    """Its note is dropped, and its objects stay."""
    store = MemoryStore()
    made = attempt("aa", store).manifest
    notes = tmp_path / "aa" / "inflight"
    note = {"source": "shop", "prefix": f"{PLACE}run-aa/"}
    (notes / f"shop@{ID}@run-aa.json").write_text(json.dumps(note))

    assert clean_up(notes, source="shop", stores=[store]) == []
    assert (_the_set(store).manifest, list(notes.iterdir())) == (made, [])


def _orphans(store: Store, after: timedelta = 2 * GRACE) -> list[str]:
    return retention.orphans(store, source="shop", now=datetime.now(UTC) + after)


def test_prune_finds_what_a_killed_run_left_beside_a_set(
    attempt: Attempt, killed: Callable[[Store], Path]
) -> None:
    """After the grace time, and never the set's own folder."""
    store = MemoryStore()
    killed(store)
    assert _orphans(store) == [PLACE]
    attempt("bb", store)

    assert _orphans(store) == [f"{PLACE}run-dead/"]
    assert _orphans(store, GRACE / 2) == []
    store.discard(f"{PLACE}run-dead/")
    assert _orphans(store) == []


def test_a_manifest_that_cannot_be_read_keeps_all_beside_it(
    attempt: Attempt, killed: Callable[[Store], Path]
) -> None:
    """It does not say which of them are of its set."""
    store = MemoryStore()
    notes = killed(store)
    attempt("bb", store)
    store.delete(PLACE + MANIFEST_NAME)
    store.put(PLACE + MANIFEST_NAME, [b"{}"])

    assert (_orphans(store), clean_up(notes, source="shop", stores=[store])) == ([], [])
    assert _attempts(store) == {"run-dead", "run-bb"}


def test_a_copy_is_of_one_run(
    attempt: Attempt, killed: Callable[[Store], Path], tmp_path: Path
) -> None:
    """With its signature, without what others left; retention deletes it all."""
    store = MemoryStore("source")
    killed(store)
    made = attempt("bb", store).manifest
    (tmp_path / "target").mkdir()
    target = LocalStore("target", tmp_path / "target")

    assert copy_set(made, store, target).copied

    copied = _the_set(target)
    assert (copied.manifest, _attempts(target)) == (made, {"run-bb"})
    retention.delete_set(copied)
    assert keys(target) == []


def test_another_runs_signature_does_not_count(attempt: Attempt) -> None:
    """The one that the manifest names must be there, and be good."""
    store = MemoryStore()
    made = attempt("aa", store).manifest
    assert made.signature is not None
    signature = made.signature.object
    store.delete(signature)

    (bad,) = catalog.read([store], trust=TRUST).unreadable
    assert "is not signed" in bad.reason
    store.put(signature, [b"junk"])
    (bad,) = catalog.read([store], trust=TRUST).unreadable
    assert "not signed" not in bad.reason
