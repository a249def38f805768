"""Throw-away folders: gone when their owner is, and never before."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from opskit import workspace
from tests.unit import processes

_HOLD = """
import sys
from pathlib import Path
from opskit import workspace
with workspace.throwaway("drill", base=Path(sys.argv[1])) as path:
    (path / "data").write_text("data")
    print("ready", flush=True)
    sys.stdin.read()
"""


def _ignore(_path: Path) -> None:
    pass


def _fail(path: Path) -> None:
    pytest.fail(f"{path} would be removed")


def _sweep(
    base: Path, kind: str = "drill", *, told: Callable[[Path], None] = _ignore
) -> list[Path]:
    return workspace.sweep(kind, base=base, before_removal=told)


def _left_by_a_killed_owner(base: Path) -> Path:
    """Return a folder whose owner was killed: a real process, by SIGKILL."""
    before = set(base.iterdir())
    with processes.holding(_HOLD, base) as owner:
        processes.kill(owner)
    (path,) = set(base.iterdir()) - before
    return path


def test_a_folder_is_private_and_gone_afterwards(tmp_path: Path) -> None:
    """The folder is its owner's alone, and no trace is left of it."""
    with workspace.throwaway("drill", base=tmp_path) as path:
        (path / "below").mkdir()
        (path / "below" / "data").write_text("data")

        assert path.stat().st_mode & 0o777 == 0o700
        assert path.name.startswith("opskit-drill-")

    assert list(tmp_path.iterdir()) == []


def test_an_error_in_the_block_removes_the_folder(tmp_path: Path) -> None:
    """The folder is gone however the block ends, also by Ctrl-C."""
    for error in (ValueError("no"), KeyboardInterrupt()):
        with (
            pytest.raises(type(error)),
            workspace.throwaway("drill", base=tmp_path),
        ):
            raise error

    assert list(tmp_path.iterdir()) == []


def test_a_killed_owners_folder_is_removed(tmp_path: Path) -> None:
    """What a killed run left is removed with all it holds, and told."""
    path = _left_by_a_killed_owner(tmp_path)
    told: list[tuple[Path, bool]] = []
    removed = _sweep(
        tmp_path, told=lambda each: told.append((each, (each / "data").exists()))
    )

    assert removed == [path]
    assert told == [(path, True)]
    assert list(tmp_path.iterdir()) == []


def test_a_living_owners_folder_stays(tmp_path: Path) -> None:
    """Neither another process's nor our own folder in use is touched."""
    with (
        processes.holding(_HOLD, tmp_path),
        workspace.throwaway("drill", base=tmp_path) as own,
    ):
        (theirs,) = set(tmp_path.iterdir()) - {own}

        assert _sweep(tmp_path, told=_fail) == []
        assert (theirs / "data").read_text() == "data"
        assert own.is_dir()


def test_folders_of_other_kinds_stay(tmp_path: Path) -> None:
    """A sweep for one kind leaves the others to their own."""
    path = _left_by_a_killed_owner(tmp_path)

    assert _sweep(tmp_path, "restore") == []
    assert path.is_dir()


def test_what_only_bears_the_name_stays(tmp_path: Path) -> None:
    """Without a lock, behind a link, or open to others, a folder is not ours."""
    for name in ("opskit-drill-bare", "opskit-drill-open", "elsewhere"):
        (tmp_path / name).mkdir(mode=0o700)
    for name in ("opskit-drill-open", "elsewhere"):
        (tmp_path / name / ".owner.lock").touch()
    (tmp_path / "opskit-drill-open").chmod(0o750)
    (tmp_path / "opskit-drill-link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "opskit-drill-file").touch()
    before = sorted(tmp_path.iterdir())

    assert _sweep(tmp_path, told=_fail) == []
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a file of another")
def test_a_folder_with_another_users_lock_stays(tmp_path: Path) -> None:
    """A shared temporary folder may hold anybody's names."""
    path = _left_by_a_killed_owner(tmp_path)
    os.chown(path / ".owner.lock", 12345, 12345)

    assert _sweep(tmp_path, told=_fail) == []
    assert path.is_dir()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root hands folders to others")
def test_a_folder_handed_to_another_user_is_still_ours(tmp_path: Path) -> None:
    """Root gives the folder to the user who runs the server; the lock stays its own."""
    path = _left_by_a_killed_owner(tmp_path)
    os.chown(path, 12345, 12345)

    assert _sweep(tmp_path) == [path]
    assert not path.exists()


def test_a_sweep_that_fails_leaves_the_folder_to_the_next(tmp_path: Path) -> None:
    """If what still runs in it cannot be ended, the folder stays for another time."""
    path = _left_by_a_killed_owner(tmp_path)

    def failing(_path: Path) -> None:
        raise RuntimeError("still running")

    with pytest.raises(RuntimeError, match="still running"):
        _sweep(tmp_path, told=failing)

    assert _sweep(tmp_path) == [path]


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("hours", [0.5, 2])
def test_an_empty_folder_without_its_lock_goes_when_it_is_old(
    tmp_path: Path, hours: float, named: bool
) -> None:
    """Its owner was killed before it was locked, or when it was all but removed.

    With its proper name it may be anybody's: what opskit named was locked before.
    """
    path = tmp_path / f"{'' if named else '.'}opskit-drill-abcdefgh"
    path.mkdir(mode=0o700)
    os.utime(path, (time.time() - hours * 3600,) * 2)
    swept = _sweep(tmp_path)

    assert swept == ([path] if hours > 1 and not named else [])
    assert path.exists() == (not swept)


def test_what_holds_something_but_no_lock_stays(tmp_path: Path) -> None:
    """The name alone says nothing."""
    path = tmp_path / ".opskit-drill-abcdefgh"
    path.mkdir(mode=0o700)
    (path / "thesis").touch()
    os.utime(path, (0, 0))

    assert _sweep(tmp_path) == []
    assert (path / "thesis").exists()


def test_the_lock_is_removed_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill in between leaves it, so that the next sweep knows the folder."""
    with workspace.throwaway("drill", base=tmp_path) as path:
        (path / "data").mkdir()
        monkeypatch.setattr(shutil, "rmtree", lambda *_arguments, **_options: None)

    assert [each.name for each in tmp_path.iterdir()] == [f".{path.name}"]
    assert set(os.listdir(tmp_path / f".{path.name}")) == {"data", ".owner.lock"}


def test_an_old_folder_of_somebody_else_stays(tmp_path: Path) -> None:
    """Anybody may give a folder such a name."""
    path = tmp_path / ".opskit-drill-abcdefgh"
    path.mkdir(mode=0o755)
    os.utime(path, (0, 0))

    assert _sweep(tmp_path) == []
    assert path.exists()
