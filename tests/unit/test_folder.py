"""Folders as backup sets over stores in memory: written, drilled, restored."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

import pyrage  # type: ignore[import-untyped]
import pytest

from opskit.backup.create import BackupResult, create_backup
from opskit.catalog import catalog
from opskit.catalog.manifest import of_folder
from opskit.catalog.sets import BackupSet
from opskit.catalog.writer import Protection
from opskit.checks import Check
from opskit.crypto.keys import Identities
from opskit.drill.folder import drill_folder
from opskit.drill.report import DrillEvidence
from opskit.errors import (
    ConfigurationError,
    IntegrityError,
    LockHeld,
    StoreError,
    UsageError,
)
from opskit.folders.lock import ServiceLock
from opskit.folders.restore import FolderResult, FolderTarget, restore_set
from opskit.store import ObjectInfo, Store
from tests.memory_store import MemoryStore
from tests.unit.files_sets import differences, dump, now, source

_own = pyrage.x25519.Identity.generate()
OWN = Identities(
    path=Path("own.txt"), opaque=(_own,), recipients=(str(_own.to_public()),)
)
ENCRYPTED = Protection(recipients=OWN.recipients)
NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)


class Watched(MemoryStore):
    """Notes what is opened, and whether the service's lock is free at each `put`."""

    def __init__(self, name: str, lock: Path | None = None) -> None:
        super().__init__(name)
        self.opened: list[str] = []
        self.free: list[bool] = []
        self.is_down = False
        self._lock = lock

    def put(self, key: str, chunks: Iterable[bytes]) -> ObjectInfo:
        """See `Store.put`."""
        self._check()
        if self._lock is not None:
            self.free.append(is_free(self._lock))
        return super().put(key, chunks)

    @contextmanager
    def open(self, key: str, start: int = 0) -> Iterator[BinaryIO]:
        """See `Store.open`."""
        self._check()
        self.opened.append(key.rpartition("/")[2])
        with super().open(key, start) as file:
            yield file

    def _check(self) -> None:
        if self.is_down:
            raise StoreError(f"store {self.name} is down")


def is_free(lock: Path) -> bool:
    """Return whether nobody holds a lock."""
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A folder with a few entries."""
    folder = tmp_path / "state"
    (folder / "inside").mkdir(parents=True)
    (folder / "orders.json").write_text('{"open": 3}')
    (folder / "inside" / "empty").touch()
    (folder / "link").symlink_to("orders.json")
    (folder / "cache.tmp").write_text("not wanted")
    return folder


@pytest.fixture
def stores() -> list[Watched]:
    """Two empty stores."""
    return [Watched("near"), Watched("far")]


def back_up(
    state: Path,
    stores: Sequence[Store],
    *,
    protection: Protection | None = None,
    **options: Any,
) -> BackupResult:
    """Back a folder up."""
    return create_backup(
        source(state, exclude=["*.tmp"], **options),
        stores,
        run_id="abc123",
        state_dir=state.parent / "state of opskit",
        clock=lambda: NOW,
        protection=protection,
    )


def only(stores: Sequence[Store]) -> BackupSet:
    """Return the one set in the stores."""
    (found,) = catalog.read(stores).sets
    return found


def alter(store: MemoryStore, name: str) -> None:
    """Put other bytes in the place of an object."""
    (key,) = (each.key for each in store.list() if each.key.endswith(name))
    with store.open(key) as file:
        content = bytearray(file.read())
    content[len(content) // 2] ^= 1
    store.delete(key)
    store.put(key, [bytes(content)])


def remove(store: MemoryStore, name: str) -> None:
    """Lose an object."""
    (key,) = (each.key for each in store.list() if each.key.endswith(name))
    store.delete(key)


def restore(stores: Sequence[Store], target: Path) -> FolderResult:
    """Restore the one set."""
    return restore_set(only(stores), FolderTarget(path=target), clock=now)


def drill(
    stores: Sequence[Store], *, mutants: int = 0, **options: Any
) -> DrillEvidence:
    """Drill the one set."""
    return drill_folder(
        only(stores), mutants=mutants, run_id="def456", clock=lambda: NOW, **options
    )


def failed(evidence: DrillEvidence) -> list[Check]:
    """Return the checks that did not pass."""
    return evidence.failed


def is_equal(target: Path, state: Path) -> bool:
    """Return whether a restored folder is what was backed up."""
    return differences(target, dump(state, exclude=["*.tmp"])) == {}


def test_the_manifest_tells_what_a_folder_held(
    state: Path, stores: list[Watched]
) -> None:
    """An archive and a guide in every store; nothing of a database."""
    made = back_up(state, stores)
    manifest = of_folder(made.manifest)

    assert made.stores == ("near", "far")
    assert (manifest.kind, manifest.source) == ("files", "state")
    assert json.loads(manifest.to_json())["tables"] == []
    assert [each.role for each in manifest.objects] == ["files", "guide"]
    assert {each.path for each in manifest.files} == {
        ".", "inside", "inside/empty", "link", "orders.json",
    }  # fmt: skip
    assert len(manifest.files) == 5
    assert manifest.exclude_files == ("*.tmp",)
    assert json.loads(manifest.to_json())["inventory"] == {"path": str(state)}
    assert manifest.dump_bytes > 0
    assert manifest.dump_bytes % 512 == 0
    assert manifest.snapshot_at == NOW
    assert manifest.warnings == ()
    for store in stores:
        names = [each.key.rpartition("/")[2] for each in store.list()]
        assert names == ["RESTORE.md", "files.tar.zst", "manifest.json"]


@pytest.mark.parametrize("protection", [None, ENCRYPTED])
def test_a_folder_comes_back_as_it_was(
    state: Path, stores: list[Watched], tmp_path: Path, protection: Protection | None
) -> None:
    """Encrypted or not: out of the nearest store alone."""
    back_up(state, stores, protection=protection)
    target = tmp_path / "back"
    chosen = only(stores)
    stores[1].opened.clear()
    wanted = FolderTarget(path=target)
    result = restore_set(chosen, wanted, identities=OWN, clock=now)

    assert (result.entries, result.replaced, result.warnings) == (5, None, ())
    assert is_equal(target, state)
    assert stores[1].opened == []


@pytest.mark.parametrize("name", ["files.tar.zst", "RESTORE.md"])
@pytest.mark.parametrize("damage", [alter, remove])
def test_a_damaged_copy_is_passed_over(
    state: Path, stores: list[Watched], tmp_path: Path, name: str, damage: Any
) -> None:
    """Whatever is wrong with it, the next store's is taken."""
    back_up(state, stores)
    damage(stores[0], name)
    restore(stores, tmp_path / "back")

    assert is_equal(tmp_path / "back", state)
    assert "files.tar.zst" in stores[1].opened


def test_a_store_that_is_down_is_passed_over(
    state: Path, stores: list[Watched], tmp_path: Path
) -> None:
    """It went down after the catalog was read."""
    back_up(state, stores)
    chosen = only(stores)
    stores[0].is_down = True
    restore_set(chosen, FolderTarget(path=tmp_path / "back"), clock=now)

    assert is_equal(tmp_path / "back", state)


def test_without_a_whole_copy_nothing_is_restored(
    state: Path, stores: list[Watched], tmp_path: Path
) -> None:
    """The last copy's damage is what is told; beside the target nothing is left."""
    back_up(state, stores)
    for store in stores:
        alter(store, "files.tar.zst")
    with pytest.raises(IntegrityError, match=r"files\.tar\.zst"):
        restore(stores, tmp_path / "back")

    assert sorted(os.listdir(tmp_path)) == ["state", "state of opskit"]


def test_what_is_wrong_with_the_target_is_not_looked_for_in_the_next_store(
    state: Path, stores: list[Watched], tmp_path: Path
) -> None:
    """A folder that holds something, and a service that does not let go."""
    back_up(state, stores)
    target = tmp_path / "live"
    target.mkdir()
    (target / "precious").touch()
    lock = tmp_path / "service.lock"
    service = ServiceLock(path=lock, wait=timedelta(0))
    chosen = only(stores)
    stores[1].opened.clear()
    wanted = FolderTarget(path=target, lock=service)
    with pytest.raises(UsageError, match="is not empty"):
        restore_set(chosen, wanted, clock=now)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(LockHeld):
            restore_set(chosen, replace(wanted, replace=True), clock=now)
    left = os.listdir(target)
    result = restore_set(chosen, replace(wanted, replace=True), clock=now)

    assert left == ["precious"]
    assert stores[1].opened == []
    assert result.replaced is not None
    assert os.listdir(result.replaced) == ["precious"]


def test_without_the_identity_nothing_is_read(
    state: Path, stores: list[Watched], tmp_path: Path
) -> None:
    """Restore and drill say for whom the set is; that is no fault of a copy."""
    back_up(state, stores, protection=ENCRYPTED)
    chosen = only(stores)
    for store in stores:
        store.opened.clear()
    with pytest.raises(ConfigurationError, match=OWN.recipients[0]):
        restore_set(chosen, FolderTarget(path=tmp_path / "back"), clock=now)
    with pytest.raises(ConfigurationError, match=OWN.recipients[0]):
        drill_folder(chosen, mutants=0, run_id="def456", clock=lambda: NOW)

    assert [store.opened for store in stores] == [[], []]


@pytest.mark.parametrize("protection", [None, ENCRYPTED])
def test_a_drill_compares_every_entry(
    state: Path, stores: list[Watched], protection: Protection | None
) -> None:
    """And shows with mutants that it can fail."""
    back_up(state, stores, protection=protection)
    evidence = drill(stores, mutants=4, identities=OWN)

    assert evidence.passed
    assert (evidence.figures.files, evidence.not_checked) == (5, [])
    assert [each.name for each in evidence.checks] == [
        "stored objects", "restore", "files", "mutants",
    ]  # fmt: skip
    assert list(evidence.figures.phases) == ["fetch", "restore", "compare", "mutants"]
    assert evidence.figures.rto_seconds is not None
    assert evidence.figures.rpo_seconds == 0
    assert evidence.figures.mutants is not None
    assert (
        evidence.figures.mutants["killed"] == evidence.figures.mutants["planted"] == 4
    )


def test_a_drill_without_mutants_says_so(state: Path, stores: list[Watched]) -> None:
    """What was not checked is in the evidence."""
    back_up(state, stores)
    evidence = drill(stores)

    assert evidence.passed
    assert evidence.figures.mutants is None
    assert [each.name for each in evidence.not_checked] == ["mutants"]


@pytest.mark.parametrize("damage", [alter, remove])
@pytest.mark.parametrize(
    ("name", "check", "phases"),
    [
        ("files.tar.zst", "restore", ["fetch", "restore"]),
        ("RESTORE.md", "stored objects", ["fetch"]),
    ],
)
def test_damage_is_a_failed_check_and_no_error(
    state: Path,
    stores: list[Watched],
    name: str,
    check: str,
    phases: list[str],
    damage: Any,
) -> None:
    """The nearest copy is the one that is judged, and nothing takes its place."""
    back_up(state, stores)
    damage(stores[0], name)
    evidence = drill(stores, mutants=4)

    assert not evidence.passed
    assert [each.name for each in failed(evidence)] == [check]
    assert name in failed(evidence)[0].detail
    assert list(evidence.figures.phases) == phases
    assert evidence.figures.rto_seconds is None
    assert evidence.figures.files == 0


def test_the_service_is_locked_out_while_its_files_are_read(
    state: Path, tmp_path: Path
) -> None:
    """Until the manifest is there; then it may go on, also after a failure."""
    lock = tmp_path / "service.lock"
    lock.touch()
    store = Watched("near", lock)
    back_up(state, [store], lock=lock)
    after = is_free(lock)
    store.is_down = True
    with pytest.raises(StoreError, match="down"):
        back_up(state, [store], lock=lock)

    assert store.free == [False, False, False]
    assert after
    assert is_free(lock)


def test_a_service_that_does_not_let_go_keeps_the_set_from_beginning(
    state: Path, stores: list[Watched], tmp_path: Path
) -> None:
    """Nothing is written anywhere."""
    lock = tmp_path / "service.lock"
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(LockHeld, match=r"service\.lock"):
            back_up(state, stores, lock=lock, lock_wait=timedelta(0))

    assert [[*store.list()] for store in stores] == [[], []]
