"""Atomic files: whatever fails, a reader sees the old content or the new."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from opskit import files
from opskit.errors import LockHeld
from tests.unit.conftest import Unprivileged

NEW = [b"new ", b"content"]
# Every call that the writing consists of, before the new file is in place.
STEPS = ("files.tempfile.mkstemp", "files.os.fdopen", "files.os.fchmod")
STEPS_BEFORE_RENAME = (*STEPS, "files.os.fsync", "files.Path.replace")
STEPS_BEFORE_LINK = (*STEPS, "files.os.fsync", "files.os.link")


def _fail(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Make a system call fail as it does on a full disk."""

    def failing(*_arguments: Any, **_options: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(f"opskit.{step}", failing)


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_new_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    """Content, size and mode of a new file are as asked for, whatever the umask."""
    umask = os.umask(0)
    try:
        size_bytes = files.write_atomically(tmp_path / "a", NEW)
        files.write_atomically(tmp_path / "b", NEW, mode=0o644)
    finally:
        os.umask(umask)

    assert (tmp_path / "a").read_bytes() == b"new content"
    assert size_bytes == 11
    assert (tmp_path / "a").stat().st_mode & 0o7777 == 0o600
    assert (tmp_path / "b").stat().st_mode & 0o7777 == 0o644
    assert _names(tmp_path) == ["a", "b"]


def test_the_content_is_not_visible_before_its_end(tmp_path: Path) -> None:
    """While the writing lasts, the old content is there under the name."""
    target = tmp_path / "a"
    target.write_bytes(b"old")

    with files.atomic_writer(target) as file:
        file.write(b"new")
        file.flush()

        assert target.read_bytes() == b"old"

    assert target.read_bytes() == b"new"


@pytest.mark.parametrize("step", STEPS_BEFORE_RENAME)
def test_an_error_keeps_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """A step that fails leaves the old file as it is, and nothing beside it."""
    target = tmp_path / "a"
    target.write_bytes(b"old")
    with monkeypatch.context() as patched:
        _fail(patched, step)
        with pytest.raises(OSError, match="No space left"):
            files.write_atomically(target, NEW)

    assert target.read_bytes() == b"old"
    assert _names(tmp_path) == ["a"]


@pytest.mark.parametrize("step", STEPS_BEFORE_LINK)
def test_an_error_makes_no_new_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """A step that fails leaves no file under a name that was free."""
    with monkeypatch.context() as patched:
        _fail(patched, step)
        with pytest.raises(OSError, match="No space left"):
            files.write_atomically(tmp_path / "a", NEW, overwrite=False)

    assert _names(tmp_path) == []


@pytest.mark.parametrize("overwrite", [True, False])
def test_an_error_at_the_very_end_leaves_a_whole_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    """Once renamed, the new file is whole even if its folder cannot be synced."""
    with monkeypatch.context() as patched:
        _fail(patched, "files.fsync_directory")
        with pytest.raises(OSError, match="No space left"):
            files.write_atomically(tmp_path / "a", NEW, overwrite=overwrite)

    assert _names(tmp_path) in ([], ["a"])
    assert all(path.read_bytes() == b"new content" for path in tmp_path.iterdir())


@pytest.mark.parametrize(
    "error", [ValueError("no"), OSError("no"), KeyboardInterrupt()]
)
@pytest.mark.parametrize("after", range(3))
def test_an_error_of_the_source_keeps_the_old_content(
    tmp_path: Path, error: BaseException, after: int
) -> None:
    """If the chunks raise, at whichever, the old file stays and the error comes out."""
    target = tmp_path / "a"
    target.write_bytes(b"old")

    def chunks() -> Iterator[bytes]:
        yield from NEW[:after]
        raise error

    with pytest.raises(type(error)) as raised:
        files.write_atomically(target, chunks())

    assert raised.value is error
    assert target.read_bytes() == b"old"
    assert _names(tmp_path) == ["a"]


def test_an_existing_file_is_not_overwritten_unless_asked(tmp_path: Path) -> None:
    """With `overwrite=False` a name that is taken is refused and not touched."""
    target = tmp_path / "a"
    target.write_bytes(b"old")

    with pytest.raises(FileExistsError):
        files.write_atomically(target, NEW, overwrite=False)

    assert target.read_bytes() == b"old"
    assert _names(tmp_path) == ["a"]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o755])
def test_an_existing_file_keeps_its_mode(tmp_path: Path, mode: int) -> None:
    """Replacing a file does not change who may read it."""
    target = tmp_path / "a"
    target.write_bytes(b"old")
    target.chmod(mode)
    files.write_atomically(target, NEW, mode=0o644)

    assert target.stat().st_mode & 0o7777 == mode


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_an_existing_file_keeps_its_owner(tmp_path: Path) -> None:
    """Replacing another user's file leaves it theirs, as far as the system allows."""
    target = tmp_path / "a"
    target.write_bytes(b"old")
    os.chown(target, 12345, 23456)
    files.write_atomically(target, NEW)

    assert (target.stat().st_uid, target.stat().st_gid) == (12345, 23456)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a file of another")
def test_a_file_that_changes_hands_is_not_opened_to_others(
    shared_path: Path, unprivileged: Unprivileged
) -> None:
    """What one group could read is not opened to another group on replacing it."""
    target = shared_path / "a"
    target.write_bytes(b"old")
    target.chmod(0o640)
    os.chown(target, 12345, 23456)
    with unprivileged():
        files.write_atomically(target, NEW)
    found = target.stat()

    assert found.st_gid == 23456 or found.st_mode & 0o070 == 0


def test_directories_are_made_for_their_owner_alone(tmp_path: Path) -> None:
    """Missing parents are made, private; what is there is left as it is."""
    tmp_path.chmod(0o755)
    files.make_directories(tmp_path / "a" / "b")
    files.make_directories(tmp_path / "a" / "b")

    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
    assert tmp_path.stat().st_mode & 0o777 == 0o755


def test_a_lock_that_stays_taken_is_reported(tmp_path: Path) -> None:
    """The wait for another process is bounded, and the error says how long it was."""
    lock = tmp_path / "state.lock"

    with (
        FileLock(lock),
        pytest.raises(LockHeld, match=r"the state is locked .* over 0\.1 seconds"),
        files.locked(lock, what="the state", wait_seconds=0.1),
    ):
        pass
    with files.locked(lock, what="the state", wait_seconds=0):
        assert lock.exists()
