"""Locks: one holder at a time, named, and freed when it dies however it dies."""

from __future__ import annotations

import fcntl
import os
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from opskit.errors import ConfigurationError, LockHeld
from opskit.locks import exclusive, in_use, unused
from tests.unit import processes

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
_HOLD = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from opskit.locks import exclusive
with exclusive(Path(sys.argv[1]), "source-shop", operation="backup shop",
               run_id="abc123", now=datetime(2026, 3, 10, 11, tzinfo=UTC)):
    print("ready", flush=True)
    sys.stdin.read()
"""


def _try(directory: Path, name: str = "source-shop") -> None:
    with exclusive(directory, name, operation="prune shop", run_id="def456", now=NOW):
        pass


def test_a_second_process_is_refused_with_the_owner(tmp_path: Path) -> None:
    """Who comes second is told operation, run, process, host and start of the first."""
    with processes.holding(_HOLD, tmp_path) as holder:
        with pytest.raises(LockHeld) as refused:
            _try(tmp_path)

        assert refused.value.message == (
            f"source-shop is locked by backup shop (run abc123, process {holder.pid} "
            f"on {socket.gethostname()}, started 2026-03-10T11:00:00+00:00)"
        )
        assert refused.value.exit_code == 11
        assert refused.value.details["holder"] == {
            "operation": "backup shop",
            "run_id": "abc123",
            "pid": holder.pid,
            "host": socket.gethostname(),
            "started_at": "2026-03-10T11:00:00+00:00",
        }


def test_a_refusal_leaves_the_holder_its_lock(tmp_path: Path) -> None:
    """However often others try, the holder keeps its lock and its name on it."""
    with processes.holding(_HOLD, tmp_path):
        for _ in range(3):
            with pytest.raises(LockHeld, match="run abc123"):
                _try(tmp_path)


def test_a_killed_holder_frees_the_lock(tmp_path: Path) -> None:
    """SIGKILL frees the lock, and what the dead holder wrote is in nobody's way."""
    with processes.holding(_HOLD, tmp_path) as holder:
        processes.kill(holder)
        _try(tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["source-shop.lock"]


def test_a_second_holder_in_the_same_process_is_refused(tmp_path: Path) -> None:
    """The lock is no less exclusive within one process."""
    with (
        exclusive(tmp_path, "a", operation="backup", run_id="one", now=NOW),
        pytest.raises(LockHeld, match=rf"run one, process {os.getpid()} "),
    ):
        _try(tmp_path, "a")


def test_an_error_in_the_block_frees_the_lock(tmp_path: Path) -> None:
    """The lock is free again however the block ends, also by Ctrl-C."""
    for error in (ValueError("no"), KeyboardInterrupt()):
        with (
            pytest.raises(type(error)),
            exclusive(tmp_path, "a", operation="backup", run_id="one", now=NOW),
        ):
            raise error
        _try(tmp_path, "a")

    assert [path.name for path in tmp_path.iterdir()] == ["a.lock"]


def test_locks_of_other_names_are_free(tmp_path: Path) -> None:
    """A lock of one source does not hold up another."""
    with exclusive(tmp_path, "a", operation="backup", run_id="one", now=NOW):
        _try(tmp_path, "b")


@pytest.mark.parametrize(
    "content",
    [
        None,
        "",
        "{}",
        '{"operation": "backup"}',
        "[]",
    ],
)
def test_a_holder_without_a_name_is_refused_all_the_same(
    tmp_path: Path, content: str | None
) -> None:
    """In the moment before the owner is written, the lock still holds."""
    owner = tmp_path / "a.owner.json"
    with exclusive(tmp_path, "a", operation="backup", run_id="one", now=NOW):
        owner.unlink()
        if content is not None:
            owner.write_text(content)
        with pytest.raises(LockHeld, match="a run that has only just started"):
            _try(tmp_path, "a")


def test_the_folder_of_locks_is_made(tmp_path: Path) -> None:
    """The first run makes the folder, for its user alone."""
    directory = tmp_path / "state" / "locks"
    _try(directory, "a")

    assert directory.stat().st_mode & 0o777 == 0o700


_READ = """
import sys
from pathlib import Path
from opskit.locks import in_use
with in_use(Path(sys.argv[1]), "set-x.reading"):
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_what_is_read_is_not_unused_until_its_reader_died(tmp_path: Path) -> None:
    """Readers go beside each other; a killed one holds up nobody."""
    with processes.holding(_READ, tmp_path) as reader:
        with (
            in_use(tmp_path, "set-x.reading"),
            unused(tmp_path, "set-x.reading") as free,
        ):
            assert not free
        reader.kill()
        reader.wait(10)

        with unused(tmp_path, "set-x.reading") as free:
            assert free

    assert list(tmp_path.iterdir()) == []


def test_a_reader_waits_until_what_is_deleted_is_gone(tmp_path: Path) -> None:
    """Nobody begins to read in the middle of it."""
    with (
        unused(tmp_path, "set-x.reading") as free,
        unused(tmp_path, "set-x.reading") as again,
    ):
        assert (free, again) == (True, False)


@pytest.mark.parametrize("how", [in_use, unused])
def test_a_lock_that_was_removed_while_it_was_waited_for_locks_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: Any
) -> None:
    """Another run held it, and removed it: the file of that name is what counts."""
    path, flock = tmp_path / "set-x.reading", fcntl.flock

    def removed_before(descriptor: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        path.unlink()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", removed_before)
    with how(tmp_path, path.name), unused(tmp_path, path.name) as free:
        assert not free


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """A full disk or a file in its place is the configuration's fault, not a bug."""
    (tmp_path / "locks").write_text("no folder")
    with (
        pytest.raises(ConfigurationError, match="cannot be written"),
        exclusive(tmp_path / "locks", "a", operation="b", run_id="c", now=NOW),
    ):
        pass
