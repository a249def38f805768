"""Restoring a directory: beside, compared, and swapped under the service's lock."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

import pytest
from filelock import FileLock

from opskit.errors import IntegrityError, LockHeld, StoreError, UsageError
from opskit.folders import restore as folders_beside
from opskit.folders.lock import ServiceLock
from opskit.folders.restore import FolderResult, FolderTarget, OpenTar, restore_folder
from opskit.operations.outcome import Record
from tests.unit.conftest import Unprivileged
from tests.unit.files_sets import Dumped, differences, dump, make_odd

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
KEPT = "target.before-20260102T030405Z"


@pytest.fixture
def dumped(tmp_path: Path) -> Dumped:
    """An archive with two files."""
    folder = tmp_path / "made" / "state"
    folder.mkdir(parents=True)
    (folder / "a").write_text("new a")
    (folder / "b").write_text("new b")
    return dump(folder)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The folder that targets lie in."""
    home = tmp_path / "home"
    home.mkdir()
    return home


@pytest.fixture
def target(home: Path) -> Path:
    """A target that holds something."""
    target = home / "target"
    target.mkdir()
    (target / "old").write_text("old")
    return target


def _restore(
    dumped: Dumped,
    target: Path,
    *,
    replace: bool = False,
    lock: Path | None = None,
    opener: OpenTar | None = None,
) -> FolderResult:
    service = lock and ServiceLock(path=lock, wait=timedelta(seconds=0.1))
    wanted = FolderTarget(path=target, replace=replace, lock=service or None)
    return restore_folder(
        wanted, dumped.records, opener or dumped.opener, clock=lambda: AT
    )


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_directory_is_restored_where_there_was_none(
    home: Path, dumped: Dumped
) -> None:
    """It has its name, equals the archive, and nothing lies beside it."""
    result = _restore(dumped, home / "target")

    assert differences(home / "target", dumped) == {}
    assert _names(home) == ["target"]
    assert (result.target, result.replaced) == (home / "target", None)
    assert (result.entries, result.size_bytes) == (3, 10)
    assert [check.name for check in result.checks] == ["files"]


def test_every_kind_of_entry_is_restored(tmp_path: Path, home: Path) -> None:
    """Also modes that keep the owner out, and the directory's own time."""
    dumped = dump(make_odd(tmp_path / "odd"))
    _restore(dumped, home / "target")

    assert differences(home / "target", dumped) == {}


def test_an_empty_directory_is_replaced(home: Path, dumped: Dumped) -> None:
    """Nothing is lost with it, so nobody need ask."""
    (home / "target").mkdir()
    result = _restore(dumped, home / "target")

    assert _names(home) == ["target"]
    assert result.replaced is None


def test_a_directory_with_contents_is_refused(target: Path, dumped: Dumped) -> None:
    """Without `replace` nothing is touched, nor is the archive opened."""

    def opener() -> None:
        raise AssertionError("the archive was opened")

    with pytest.raises(UsageError, match="exists and is not empty") as raised:
        _restore(dumped, target, opener=opener)  # type: ignore[arg-type]

    assert raised.value.exit_code == 2
    assert _names(target.parent) == ["target"]
    assert _names(target) == ["old"]


@pytest.mark.parametrize("in_one_step", [True, False])
def test_a_directory_is_replaced_and_kept(
    target: Path, dumped: Dumped, monkeypatch: pytest.MonkeyPatch, in_one_step: bool
) -> None:
    """With `replace` the old one has the time in its name, with all that was in it."""
    if not in_one_step:
        monkeypatch.setattr(folders_beside, "exchange", lambda *_paths: False)
    result = _restore(dumped, target, replace=True)

    assert _names(target.parent) == ["target", KEPT]
    assert (target.parent / KEPT / "old").read_text() == "old"
    assert differences(target, dumped) == {}
    assert result.replaced == target.parent / KEPT


def test_a_name_that_is_taken_is_not_taken_twice(target: Path, dumped: Dumped) -> None:
    """Two restores within a second keep what each of them has replaced."""
    _restore(dumped, target, replace=True)
    (target / "mine").touch()
    result = _restore(dumped, target, replace=True)

    assert _names(target.parent) == ["target", KEPT, f"{KEPT}-2"]
    assert result.replaced == target.parent / f"{KEPT}-2"
    assert (target.parent / f"{KEPT}-2" / "mine").exists()


def test_a_target_that_is_a_link_keeps_being_one(
    target: Path, dumped: Dumped, tmp_path: Path
) -> None:
    """What the link leads to is replaced, where it lies."""
    link = tmp_path / "link"
    link.symlink_to(target)
    _restore(dumped, link, replace=True)

    assert link.is_symlink()
    assert _names(target.parent) == ["target", KEPT]


@pytest.mark.parametrize("place", ["nothing/target", "file", "file/target"])
def test_a_target_that_cannot_be_one_is_refused(
    home: Path, dumped: Dumped, place: str
) -> None:
    """A missing folder is not made, and a file not replaced."""
    (home / "file").write_text("file")

    with pytest.raises(UsageError):
        _restore(dumped, home / place, replace=True)
    assert (home / "file").read_text() == "file"
    assert _names(home) == ["file"]


@pytest.mark.parametrize("part", [0.1, 0.3])
def test_a_damaged_archive_replaces_nothing(
    target: Path, dumped: Dumped, part: float
) -> None:
    """The old directory stays, and the copy is gone."""
    damaged = Dumped(dumped.tar[: int(len(dumped.tar) * part)], dumped.records, ())

    with pytest.raises(IntegrityError):
        _restore(damaged, target, replace=True)
    assert _names(target.parent) == ["target"]
    assert _names(target) == ["old"]


def test_a_copy_that_differs_replaces_nothing(target: Path, dumped: Dumped) -> None:
    """What the manifest says is compared before the name is given."""
    damaged = Dumped(dumped.tar.replace(b"new a", b"bad a"), dumped.records, ())

    with pytest.raises(IntegrityError, match=r"says: files; file a$") as raised:
        _restore(damaged, target, replace=True)
    assert _names(target.parent) == ["target"]
    assert _names(target) == ["old"]
    assert raised.value.exit_code == 20


def test_no_digest_of_a_file_goes_on_record(target: Path, dumped: Dumped) -> None:
    """The ledger has the message, and is copied in the open; the details stay here."""
    damaged = Dumped(dumped.tar.replace(b"new a", b"bad a"), dumped.records, ())
    record = Record(operation="restore", run_id="abc123", started_at=AT)

    with pytest.raises(IntegrityError) as raised:
        _restore(damaged, target, replace=True)
    record.fail(raised.value)
    record.end()

    digest = dumped.record("a").sha256
    assert digest in json.dumps(dict(raised.value.details))
    assert digest not in json.dumps(record.details)


def test_a_failing_store_replaces_nothing(target: Path, dumped: Dumped) -> None:
    """An error of who gives the bytes comes out as it is."""

    @contextmanager
    def opener() -> Iterator[BinaryIO]:
        yield io.BytesIO(dumped.tar)
        raise StoreError("the digest is another one")

    with pytest.raises(StoreError, match="the digest is another one"):
        _restore(dumped, target, replace=True, opener=opener)
    assert _names(target.parent) == ["target"]
    assert _names(target) == ["old"]


def test_the_swap_waits_for_the_service_in_vain(target: Path, dumped: Dumped) -> None:
    """As long as the service has its lock, its directory is not touched."""
    lock = target.parent / "target.lock"
    with FileLock(lock), pytest.raises(LockHeld):
        _restore(dumped, target, replace=True, lock=lock)

    assert _names(target.parent) == ["target", "target.lock"]
    assert _names(target) == ["old"]


def test_what_appears_in_an_empty_target_meanwhile_is_not_lost(
    home: Path, dumped: Dumped
) -> None:
    """It is looked at again under the lock, right before the swap."""
    target = home / "target"
    target.mkdir()

    @contextmanager
    def opener() -> Iterator[BinaryIO]:
        yield io.BytesIO(dumped.tar)
        (target / "precious").touch()

    with pytest.raises(UsageError, match="is not empty"):
        _restore(dumped, target, opener=opener)
    assert _names(target) == ["precious"]
    assert _names(home) == ["target"]


def test_a_lock_inside_of_the_target_is_told_of(target: Path, dumped: Dumped) -> None:
    """Who waits for it goes on with the old directory; the service must restart."""
    (target / "lock").touch()
    with_lock = _restore(dumped, target, replace=True, lock=target / "lock")
    fresh = _restore(
        dumped, target.parent / "fresh", lock=target.parent / "fresh" / "lock"
    )

    assert "restart the service" in with_lock.warnings[0]
    assert fresh.warnings == ()


def test_what_a_killed_run_left_is_removed(
    home: Path, dumped: Dumped, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only this target's, and only what nobody holds."""
    monkeypatch.setattr(folders_beside, "_settle", lambda *_arguments: None)
    monkeypatch.setattr(Path, "unlink", lambda *_arguments, **_options: None)
    for name in ("target", "targets"):
        with folders_beside.beside(home / name) as killed:
            (killed.path / "half").touch()
    monkeypatch.undo()
    assert len(_names(home)) == 4
    with folders_beside.beside(home / "target") as living:
        _restore(dumped, home / "target")
        lives = living.path.is_dir()

    assert lives
    left = _names(home)
    assert [each.split(".opskit-")[0] for each in left] == [
        ".targets",
        ".targets",
        "target",
    ]


@pytest.mark.parametrize("text", ["", "{}", '"opskit"', '{"opskit copy": "other"}'])
def test_what_is_only_named_like_a_copy_stays(
    home: Path, dumped: Dumped, text: str
) -> None:
    """A folder of the user, and a lock of theirs that is free just now."""
    own = home / ".target.opskit-notes"
    own.mkdir()
    (own / "precious").touch()
    own.with_name(own.name + ".lock").write_text(text)

    _restore(dumped, home / "target")

    assert (own / "precious").exists()


def test_very_long_names_are_restored(home: Path, dumped: Dumped) -> None:
    """The name of the copy beside does not outgrow what a file system takes."""
    target = home / ("é" * 125)
    _restore(dumped, target)

    assert _names(home) == [target.name]


def test_an_ordinary_user_leaves_nothing_behind(
    tmp_path: Path, shared_path: Path, unprivileged: Unprivileged
) -> None:
    """Directories that even their owner may not enter are removed, too."""
    folder = tmp_path / "state"
    (folder / "closed" / "deeper").mkdir(parents=True)
    (folder / "closed" / "deeper" / "a").touch()
    (folder / "closed" / "link").symlink_to("/")
    (folder / "closed").chmod(0o500)
    dumped = dump(folder)
    damaged = Dumped(dumped.tar[:-12000] + bytes(100), dumped.records, ())
    with unprivileged():
        home = shared_path / "home"
        home.mkdir()
        with pytest.raises(IntegrityError):
            _restore(damaged, home / "target")
        left = _names(home)
        _restore(dumped, home / "target")
        folders_beside.remove_tree(home / "target")

    assert left == []
    assert _names(home) == []


def test_a_folder_that_may_not_be_written_is_an_error(
    shared_path: Path, unprivileged: Unprivileged, dumped: Dumped
) -> None:
    """The message names the target."""
    with unprivileged():
        home = shared_path / "home"
        home.mkdir()
        home.chmod(0o500)

        with pytest.raises(StoreError, match="target cannot be restored: Permission"):
            _restore(dumped, home / "target")


def test_an_error_between_the_two_renames_is_taken_back(
    target: Path, dumped: Dumped, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where names cannot be exchanged, a failed second step undoes the first."""
    monkeypatch.setattr(folders_beside, "exchange", lambda *_paths: False)
    real = Path.rename

    def rename(path: Path, to: Path) -> Path:
        if path.name.startswith(".target") and to == target:
            raise OSError(5, "Input/output error")
        return real(path, to)

    monkeypatch.setattr(Path, "rename", rename)

    with pytest.raises(StoreError, match="Input/output error"):
        _restore(dumped, target, replace=True)
    assert _names(target.parent) == ["target"]
    assert os.listdir(target) == ["old"]
