"""Doctor's look at folders of files: what a backup would stumble over, by day."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from opskit.checks import Health
from opskit.doctor import stores
from opskit.folders.lock import ServiceLock


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A folder with two files, one in a folder of its own, and a link."""
    folder = tmp_path / "state"
    (folder / "below").mkdir(parents=True)
    (folder / "a").write_bytes(b"12345")
    (folder / "below" / "b").write_bytes(b"678")
    (folder / "link").symlink_to("/nowhere")
    return folder


def test_a_folder_that_can_be_read_is_healthy(state: Path) -> None:
    """Its files are counted, links are not followed."""
    (found,) = stores.examine_files("state", state, None)

    assert (found.status, found.observed) == (Health.HEALTHY, "2 files can be read")
    assert stores.size_bytes(state) == 8


def test_a_file_that_vanishes_meanwhile_is_not_counted(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is in use."""
    files = [*os.scandir(state / "below")]
    (state / "below" / "b").unlink()
    monkeypatch.setattr(stores, "_files", lambda *_arguments: files)

    assert stores.size_bytes(state) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_folder_in_one_that_is_closed_to_this_user_is_unhealthy(
    tmp_path: Path,
) -> None:
    """Its state folder, and the lock of its service; nothing ends the examination."""
    closed = tmp_path / "closed"
    (closed / "state" / "below").mkdir(parents=True)
    for each in (tmp_path, *tmp_path.parents[:-2]):
        each.chmod(0o755)
    closed.chmod(0o700)
    script = (
        "import os, sys; from pathlib import Path; from opskit.doctor import stores\n"
        "from opskit.folders.lock import ServiceLock\n"
        "os.setgid(65534); os.setuid(65534); below = Path(sys.argv[1])\n"
        "print(stores.examine_folder('f', below, 'hint').status.value)\n"
        "lock = ServiceLock(path=below / 'lock', kind='flock')\n"
        "print(stores._lock('l', lock).status.value)\n"
    )

    ended = subprocess.run(
        [sys.executable, "-c", script, str(closed / "state" / "below")],
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.stdout.split() == ["unhealthy", "unhealthy"], ended.stderr


def test_a_folder_that_is_missing_is_unhealthy(tmp_path: Path) -> None:
    """By its path."""
    (found,) = stores.examine_files("state", tmp_path / "gone", None)

    assert found.status is Health.UNHEALTHY
    assert "gone" in found.observed


def test_what_this_user_may_not_read_is_named(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One file is enough."""
    monkeypatch.setattr(os, "access", lambda path, _mode: not str(path).endswith("b"))

    (found,) = stores.examine_files("state", state, None)

    assert found.status is Health.UNHEALTHY
    assert found.observed.startswith("1 cannot be read")
    assert "below/b" in found.observed


@pytest.mark.parametrize(
    ("make", "status"),
    [
        (lambda path: path.touch(), Health.HEALTHY),
        (lambda path: None, Health.HEALTHY),
        (lambda path: path.mkdir(), Health.UNHEALTHY),
    ],
    ids=["a file", "nothing yet", "a folder"],
)
def test_the_lock_is_looked_at_and_not_taken(
    state: Path, tmp_path: Path, make: object, status: Health
) -> None:
    """It is neither made nor locked."""
    lock = tmp_path / "service.lock"
    make(lock)  # type: ignore[operator]
    was_there = lock.exists()

    _folder, found = stores.examine_files("state", state, ServiceLock(path=lock))

    assert found.status is status
    assert lock.exists() == was_there


def test_a_lock_whose_folder_is_gone_is_unhealthy(state: Path, tmp_path: Path) -> None:
    """A backup could not make it."""
    lock = ServiceLock(path=tmp_path / "gone" / "service.lock")

    _folder, found = stores.examine_files("state", state, lock)

    assert found.status is Health.UNHEALTHY
