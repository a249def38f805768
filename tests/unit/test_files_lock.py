"""The lock of a service: taken as the service takes it, waited for, and given back."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock, Timeout

from opskit.errors import ConfigurationError, LockHeld
from opskit.folders.lock import LockKind, ServiceLock, held
from tests.unit.conftest import Unprivileged
from tests.unit.files_sets import IS_ROOT, dump, dumping

HOLD = """
import fcntl, sys
file = open(sys.argv[1], "r+b")
(fcntl.flock if sys.argv[2] == "flock" else fcntl.lockf)(file, fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.read()
"""
TRY = """
import fcntl, sys
file = open(sys.argv[1], "r+b")
try:
    (fcntl.flock if sys.argv[2] == "flock" else fcntl.lockf)(
        file, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    print("busy")
else:
    print("free")
"""
KINDS: tuple[LockKind, ...] = ("flock", "fcntl")


def _lock(path: Path, kind: LockKind = "flock", wait: float = 0.1) -> ServiceLock:
    return ServiceLock(path=path, kind=kind, wait=timedelta(seconds=wait))


@contextmanager
def _service(path: Path, kind: LockKind) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock until its input ends."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), kind],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield process
        process.communicate()


def _state(path: Path, kind: LockKind) -> str:
    """Return whether another process finds the lock free."""
    done = subprocess.run(
        [sys.executable, "-c", TRY, str(path), kind],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A lock file."""
    path = tmp_path / "state.lock"
    path.touch()
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_a_lock_that_the_service_holds_is_waited_for_in_vain(
    path: Path, kind: LockKind
) -> None:
    """After the time that was allowed, the error names the process that holds it."""
    with (
        _service(path, kind) as service,
        pytest.raises(LockHeld, match="is locked by process") as raised,
        held(_lock(path, kind)),
    ):
        pass

    assert raised.value.exit_code == 11
    assert f"process {service.pid} (python" in raised.value.message
    assert "over 0.1 seconds" in raised.value.message


@pytest.mark.parametrize("kind", KINDS)
def test_the_service_is_locked_out_for_the_length_of_the_block(
    path: Path, kind: LockKind
) -> None:
    """Another process finds the lock busy within, and free again after."""
    with held(_lock(path, kind)) as is_new:
        within = _state(path, kind)

    assert not is_new
    assert within == "busy"
    assert _state(path, kind) == "free"


def test_filelock_and_the_backup_lock_each_other_out(path: Path) -> None:
    """It is the same lock that the filelock library takes."""
    with (
        held(_lock(path)),
        pytest.raises(Timeout),
        FileLock(path, timeout=0),
    ):
        pass
    with FileLock(path), pytest.raises(LockHeld), held(_lock(path)):
        pass


def test_a_lock_that_is_released_in_time_is_taken(path: Path) -> None:
    """The service may take its time, within bounds."""
    with _service(path, "flock") as service:
        assert service.stdin is not None
        service.stdin.close()
        with held(_lock(path, wait=300)) as is_new:
            found = _state(path, "flock")

        service.stdin = None

    assert (is_new, found) == (False, "busy")


def test_a_lock_file_that_its_holder_removes_is_not_held_in_vain(path: Path) -> None:
    """A lock on a file that has lost its name protects nothing: the new one counts."""
    descriptor = os.open(path, os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    real = fcntl.flock

    def release_and_remove(lock: int, how: int) -> None:
        if path.exists() and os.path.samestat(os.fstat(lock), os.fstat(descriptor)):
            path.unlink()
            real(descriptor, fcntl.LOCK_UN)
        real(lock, how)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("fcntl.flock", release_and_remove)
        with held(_lock(path, wait=300)) as is_new:
            patched.undo()
            found = _state(path, "flock")
    os.close(descriptor)

    assert (is_new, found) == (True, "busy")


def test_a_missing_lock_file_is_made_for_the_service(tmp_path: Path) -> None:
    """It belongs to whom its folder belongs, and has the folder's rights to write."""
    folder = tmp_path / "run"
    folder.mkdir()
    folder.chmod(0o770)
    if IS_ROOT:
        os.chown(folder, 12345, 23456)
    with held(_lock(folder / "lock")) as is_new:
        pass
    made, owner = (folder / "lock").stat(), folder.stat()

    assert is_new
    assert (made.st_uid, made.st_gid) == (owner.st_uid, owner.st_gid)
    assert made.st_mode & 0o7777 == 0o660


def test_a_missing_lock_file_is_warned_of(tmp_path: Path) -> None:
    """A lock that nobody has ever taken may be the wrong one."""
    folder = tmp_path / "state"
    folder.mkdir()
    (folder / "a").touch()
    lock = tmp_path / "state.lock"
    first = dump(folder, lock=lock)
    second = dump(folder, lock=lock)

    assert first.warnings == (
        f"the lock {lock} did not exist and was made: check that it is the one that "
        "the service takes",
    )
    assert second.warnings == ()


def test_a_lock_file_that_the_service_makes_meanwhile_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between looking for the file and making it, the service may have made it."""
    path = tmp_path / "lock"
    real = os.open

    def make_first(*arguments: Any, **options: Any) -> int:
        if arguments[1] & os.O_EXCL:
            path.touch()
        return real(*arguments, **options)

    monkeypatch.setattr("os.open", make_first)
    with held(_lock(path)) as is_new:
        found = _state(path, "flock")

    assert (is_new, found) == (False, "busy")


@pytest.mark.parametrize("place", ["nothing/lock", "file/lock", "folder", "dangling"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_lock_that_cannot_be_one_is_refused(
    tmp_path: Path, place: str, kind: LockKind
) -> None:
    """A wrong path is a fault of the configuration; nothing is made there."""
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "dangling").symlink_to("elsewhere")

    with (
        pytest.raises(ConfigurationError, match="cannot be opened"),
        held(_lock(tmp_path / place, kind)),
    ):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_a_pipe_as_lock_does_not_hold_the_backup_up(tmp_path: Path) -> None:
    """What is no file is refused without waiting."""
    os.mkfifo(tmp_path / "lock")

    with (
        pytest.raises(ConfigurationError, match="it is not a file"),
        held(_lock(tmp_path / "lock")),
    ):
        pass


def test_a_lock_that_only_others_may_write_can_be_taken_to_read(
    shared_path: Path, unprivileged: Unprivileged
) -> None:
    """flock asks for no right to write; record locks do, and say so."""
    path = shared_path / "lock"
    with unprivileged():
        path.touch()
        path.chmod(0o444)
        with held(_lock(path)):
            found = _state_of(path)
        with (
            pytest.raises(ConfigurationError, match="Permission denied"),
            held(_lock(path, "fcntl")),
        ):
            pass

    assert found == "busy"


def _state_of(path: Path) -> str:
    """The same question within this process: such a lock belongs to the open file."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return "busy"
    return "free"


@pytest.mark.parametrize("kind", KINDS)
def test_reading_the_lock_file_itself_does_not_free_it(
    tmp_path: Path, kind: LockKind
) -> None:
    """A lock that lies in the directory is held until all of it was read."""
    (tmp_path / "lock").touch()
    (tmp_path / "z").touch()
    found: list[str] = []
    with dumping(tmp_path, lock=tmp_path / "lock", lock_kind=kind) as opened:
        for _block in opened.stream():
            if opened.records[-1].path == "z" and not found:
                found.append(_state(tmp_path / "lock", kind))

    assert found == ["busy"]
    assert [each.path for each in opened.records] == [".", "lock", "z"]
