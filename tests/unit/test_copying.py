"""Copying: what a store lists afterwards is whole, wherever the copying ends."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from opskit.catalog import catalog
from opskit.catalog.copying import CopyResult, copy_set
from opskit.catalog.documents import CONFIRMATION_FOLDER, mark_name
from opskit.catalog.manifest import MANIFEST_NAME, Manifest, parse
from opskit.catalog.reader import verify_set
from opskit.errors import IntegrityError, ObjectNotFound, StoreError
from opskit.store import LocalStore, ObjectInfo, Store
from tests.faulty import Crash, FaultyStore
from tests.memory_store import MemoryStore
from tests.unit.builders import (
    CONTENTS,
    STARTED_AT,
    manifest,
    store_evidence,
    store_objects,
    store_set,
)
from tests.unit.ledgers import replace_object
from tests.unit.store_contract import keys, read

BESIDE = 5


@pytest.fixture
def source() -> MemoryStore:
    """A store with one set and everything that may lie beside it."""
    store = MemoryStore("source")
    made = store_set([store])
    store_evidence(store, made, kind="drill", passed=True)
    store_evidence(store, made, kind="verify", passed=True, run_id="def")
    for name in (
        "manifest.json.sig",
        "reports/drill.html",
        mark_name(CONFIRMATION_FOLDER, at=STARTED_AT, run_id="abc"),
    ):
        store.put(made.prefix + name, [name.encode()])
    return store


@pytest.fixture
def target() -> MemoryStore:
    """An empty store."""
    return MemoryStore("target")


MADE = manifest()
KEY = MADE.prefix + MANIFEST_NAME


def _everything(store: Store) -> dict[str, bytes]:
    return {key: read(store, key) for key in keys(store)}


def test_a_copy_is_the_same_in_every_byte(
    source: MemoryStore, target: MemoryStore
) -> None:
    """Objects, manifest, evidence, signature, report, confirmation: all of it."""
    result = copy_set(MADE, source, target)

    assert _everything(target) == _everything(source)
    assert result.copied
    assert len(result.added) == BESIDE
    assert result.verified is not None
    assert (result.verified.objects, result.verified.bad) == (len(CONTENTS), ())
    assert catalog.read([target]).find(MADE.backup_id).proof == "drilled"


def test_between_kinds_of_stores_nothing_changes(
    source: MemoryStore, store_dir: Path
) -> None:
    """A folder holds the same after it."""
    target = LocalStore("folder", store_dir)
    copy_set(MADE, source, target)

    assert _everything(target) == _everything(source)


def test_fields_that_we_do_not_know_are_copied(target: MemoryStore) -> None:
    """A manifest of a later opskit arrives with all that stands in it."""
    source = MemoryStore("source")
    store_objects(source, MADE)
    content = json.dumps({**json.loads(MADE.to_json()), "later": [1]}).encode()
    source.put(KEY, [content])
    copy_set(parse(content, key=KEY), source, target)

    assert read(target, KEY) == content


def test_the_manifest_comes_last_and_evidence_after_the_objects(
    source: MemoryStore, target: MemoryStore
) -> None:
    """What says that a set is good is put when the target has shown it, words last."""
    order: list[str] = []

    class Watched(FaultyStore):
        def put(self, key: str, chunks: Iterable[bytes]) -> ObjectInfo:
            order.append(key.removeprefix(MADE.prefix))
            return super().put(key, chunks)

    copy_set(MADE, source, Watched(target))

    assert order[:3] == [*CONTENTS]
    assert {each.partition("/")[0] for each in order[3:6]} == {
        "manifest.json.sig",
        "reports",
        "confirmed",
    }
    assert all(each.startswith("evidence/") for each in order[6:8])
    assert order[8:] == [MANIFEST_NAME]


@pytest.mark.parametrize("crash_at", range(1, len(CONTENTS) + BESIDE + 2))
def test_a_killed_copy_lists_nothing_and_the_next_one_succeeds(
    source: MemoryStore, target: MemoryStore, crash_at: int
) -> None:
    """Wherever it dies; its leftovers are removed, so that they cannot be mixed in."""
    with pytest.raises(Crash):
        copy_set(MADE, source, FaultyStore(target, crash_at=crash_at))
    listed = catalog.read([target])
    if target._objects:
        target.put(MADE.prefix + "leftover", [b"of another time"])
    copy_set(MADE, source, target)

    assert (listed.sets, listed.unreadable) == ((), ())
    assert _everything(target) == _everything(source)


@pytest.mark.parametrize("put_at", range(1, len(CONTENTS) + BESIDE + 2))
def test_a_target_that_fails_holds_nothing_afterwards(
    source: MemoryStore, target: MemoryStore, put_at: int
) -> None:
    """A store's own error comes through, and what was put is removed again."""
    with pytest.raises(StoreError, match="failed on purpose"):
        copy_set(MADE, source, FaultyStore(target, fail_put_at=put_at))

    assert keys(target) == []


@pytest.mark.parametrize("role", CONTENTS)
@pytest.mark.parametrize("damage", ["changed", "cut", "missing"])
def test_damage_in_the_source_is_not_copied(
    source: MemoryStore, target: MemoryStore, role: str, damage: str
) -> None:
    """It is an integrity error that names store and object, and nothing is listed."""
    key = MADE.object(role).key
    content = {"changed": b"x" * len(CONTENTS[role]), "cut": CONTENTS[role][:-1]}
    source.delete(key)
    if damage != "missing":
        source.put(key, [content[damage]])
    with pytest.raises(IntegrityError, match=rf"store source: {key} cannot be copied"):
        copy_set(MADE, source, target)

    assert keys(target) == []


def test_damaged_bytes_never_become_an_object(
    source: MemoryStore, target: MemoryStore
) -> None:
    """The damage is raised while the target is still taking the object."""
    replace_object(source, MADE.object("dump").key, b"the durp")
    stored: list[str] = []

    class Watched(FaultyStore):
        def put(self, key: str, chunks: Iterable[bytes]) -> ObjectInfo:
            found = super().put(key, chunks)
            stored.append(key)
            return found

    with pytest.raises(IntegrityError):
        copy_set(MADE, source, Watched(target))

    assert stored == []


@pytest.mark.parametrize("length", [0, 3])
def test_a_target_that_loses_bytes_is_found_out(
    source: MemoryStore, target: MemoryStore, length: int
) -> None:
    """The copy is read back before it is listed."""
    with pytest.raises(IntegrityError, match="does not give back what it was given"):
        copy_set(MADE, source, FaultyStore(target, truncate_at=length))

    assert keys(target) == []


@pytest.mark.parametrize("name", ["dump", MANIFEST_NAME, "reports/drill.html"])
def test_each_object_is_read_back(
    source: MemoryStore, target: MemoryStore, name: str
) -> None:
    """The set's own by the manifest, that and evidence by what the source holds."""

    class Losing(FaultyStore):
        def put(self, key: str, chunks: Iterable[bytes]) -> ObjectInfo:
            lost = key == MADE.prefix + name
            content = b"".join(chunks)
            return super().put(key, [content[:-1] if lost else content])

    with pytest.raises(IntegrityError, match=f"given: {MADE.prefix}{name}: "):
        copy_set(MADE, source, Losing(target))

    assert keys(target) == []


def test_a_set_that_is_there_is_left_alone(
    source: MemoryStore, target: MemoryStore
) -> None:
    """The second time it is read in the target, and nothing is to be done."""
    copy_set(MADE, source, target)
    counting = FaultyStore(target)

    assert copy_set(MADE, source, counting) == CopyResult(
        backup_id=MADE.backup_id, copied=False, verified=verify_set(MADE, target)
    )
    assert counting.steps == 0


@pytest.mark.parametrize("damage", ["gone", "cut", "other", "all"])
def test_damage_in_the_target_is_repaired(
    source: MemoryStore, target: MemoryStore, damage: str
) -> None:
    """Only what is damaged is put anew, the manifest last, and all is read again."""
    copy_set(MADE, source, target)
    whole = _everything(target)
    damaged = [MADE.object("dump").key]
    if damage == "all":
        damaged = [each.key for each in MADE.objects]
    for key in damaged:
        target.delete(key)
        if damage != "gone":
            target.put(key, [{"cut": b"the", "other": b"the damp"}.get(damage, b"")])
    put: list[str] = []

    class Watched(FaultyStore):
        def put(self, key: str, chunks: Iterable[bytes]) -> ObjectInfo:
            put.append(key)
            return super().put(key, chunks)

    result = copy_set(MADE, source, Watched(target))

    assert result.repaired == tuple(damaged)
    assert not result.copied
    assert result.verified.is_whole
    assert _everything(target) == whole
    assert put == [*damaged, KEY]


@pytest.mark.parametrize("crash_at", range(1, 5))
def test_a_repair_that_is_killed_is_made_good_by_the_next(
    source: MemoryStore, target: MemoryStore, crash_at: int
) -> None:
    """Until it is whole again, the target does not list the set."""
    copy_set(MADE, source, target)
    whole = _everything(target)
    replace_object(target, MADE.object("dump").key, b"the durp")
    with pytest.raises(Crash):
        copy_set(MADE, source, FaultyStore(target, crash_at=crash_at))

    listed = catalog.read([target]).sets
    assert bool(listed) == (crash_at == 1), "damaged as before, or not listed"
    copy_set(MADE, source, target)
    assert _everything(target) == whole


def test_a_damaged_source_repairs_nothing(
    source: MemoryStore, target: MemoryStore
) -> None:
    """What is in the target is left as it is: a part of it may be all there is."""
    copy_set(MADE, source, target)
    replace_object(target, MADE.object("dump").key, b"the durp")
    replace_object(source, MADE.object("dump").key, b"the damp")
    before = _everything(target)
    with pytest.raises(IntegrityError, match=r"store source: .*cannot be copied"):
        copy_set(MADE, source, target)

    assert _everything(target) == before


def test_evidence_that_is_missing_is_added(
    source: MemoryStore, target: MemoryStore
) -> None:
    """A drill of the source's copy proves the same bytes in the target, read again."""
    store_set([target])
    store_evidence(target, MADE, kind="verify", passed=True, run_id="777")
    own = keys(target)
    result = copy_set(MADE, source, target)

    assert not result.copied
    assert sorted([*own, *result.added]) == keys(target)
    assert len(result.added) == BESIDE
    assert result.verified.is_whole
    assert catalog.read([target]).sets[0].proof == "drilled"


def test_a_repaired_copy_is_as_proven_as_its_evidence(
    source: MemoryStore, target: MemoryStore
) -> None:
    """What a drill of the source proved was of the bytes that are in both now."""
    store_set([target])
    replace_object(target, MADE.object("dump").key, b"the durp")
    result = copy_set(MADE, source, target)

    assert result.repaired == (MADE.object("dump").key,)
    assert len(result.added) == BESIDE
    assert catalog.read([target]).sets[0].proof == "drilled"


def test_a_verification_that_failed_stays_where_it_was_made(
    source: MemoryStore, target: MemoryStore
) -> None:
    """It was said of bytes in the source that have been read again by now."""
    store_evidence(source, MADE, kind="verify", passed=False, days_later=3)
    copy_set(MADE, source, target)

    assert catalog.read([source]).sets[0].proof == "failed"
    assert catalog.read([target]).sets[0].proof == "drilled"


def test_a_drill_that_failed_goes_with_the_set(
    source: MemoryStore, target: MemoryStore
) -> None:
    """A set that does not restore does so nowhere."""
    store_evidence(source, MADE, kind="drill", passed=False, days_later=3)
    copy_set(MADE, source, target)

    assert catalog.read([target]).sets[0].proof == "failed"


def test_another_manifest_in_the_target_is_refused(
    source: MemoryStore, target: MemoryStore
) -> None:
    """Two manifests of one set: neither is touched."""
    store_set([target], dump_bytes=101)
    before = _everything(target)
    with pytest.raises(IntegrityError, match="store target holds another manifest"):
        copy_set(MADE, source, target)

    assert _everything(target) == before


def test_another_manifest_in_the_source_is_refused(target: MemoryStore) -> None:
    """What was chosen to be copied must be what lies there."""
    source = MemoryStore("source")
    store_set([source], dump_bytes=101)
    with pytest.raises(IntegrityError, match="store source holds another manifest"):
        copy_set(MADE, source, target)

    assert keys(target) == []


def test_a_set_that_the_source_does_not_hold_is_told(target: MemoryStore) -> None:
    """There is nothing to be copied."""
    with pytest.raises(ObjectNotFound, match="store source does not hold the set"):
        copy_set(MADE, MemoryStore("source"), target)

    assert keys(target) == []


def test_a_set_that_somebody_else_is_writing_is_not_removed(
    source: MemoryStore, target: MemoryStore
) -> None:
    """If its manifest turns up meanwhile, the set is another run's and stays."""

    class Overtaken(FaultyStore):
        def put(self, key: str, chunks: Iterable[bytes]) -> ObjectInfo:
            if key == KEY:
                target.put(key, [MADE.to_json()])
            return super().put(key, chunks)

    with pytest.raises(StoreError, match="exists already"):
        copy_set(MADE, source, Overtaken(target))

    assert verify_set(catalog.read([target]).sets[0].manifest, target).bad == ()


def test_what_was_put_to_be_destroyed_stays_behind(
    source: MemoryStore, target: MemoryStore
) -> None:
    """A drill's attempts on a store are not part of the set."""
    source.put(MADE.prefix + "challenge-0123", [b"x"])
    copy_set(MADE, source, target)

    assert not any("challenge" in each.key for each in target.list())


def test_large_objects_are_copied_in_pieces(target: MemoryStore) -> None:
    """No chunk that the target gets is larger than a block."""
    content = bytes(range(256)) * 10_000
    made: Manifest = manifest(
        objects=[
            {
                "key": MADE.prefix + "dump",
                "role": "dump",
                "size_bytes": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
            }
        ]
    )
    source = MemoryStore("source")
    source.put(MADE.prefix + "dump", [content])
    source.put(KEY, [made.to_json()])
    sizes: list[int] = []

    class Watched(FaultyStore):
        def put(self, key: str, chunks: Iterable[bytes]) -> ObjectInfo:
            taken = [*chunks]
            sizes.extend(map(len, taken))
            return super().put(key, taken)

    copy_set(made, source, Watched(target))

    assert read(target, MADE.prefix + "dump") == content
    assert max(sizes) == 1024 * 1024
