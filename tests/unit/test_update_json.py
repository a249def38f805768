"""State files: changed under a lock, and never overwritten when not understood."""

from __future__ import annotations

from pathlib import Path

import pytest
from filelock import FileLock

from opskit import files
from opskit.errors import IntegrityError, LockHeld
from tests.unit import processes

_COUNT = """
import sys
from pathlib import Path
from opskit import files
for _ in range(int(sys.argv[2])):
    files.update_json(Path(sys.argv[1]), lambda count: count + 1, default=0)
"""


def _plus_one(count: int) -> int:
    return count + 1


def test_the_default_is_where_it_starts(tmp_path: Path) -> None:
    """The first change gets the default, the next what was written; both return it."""
    path = tmp_path / "state.json"

    assert files.update_json(path, _plus_one, default=41) == 42
    assert files.update_json(path, _plus_one, default=0) == 43
    assert path.read_text() == "43\n"
    assert path.stat().st_mode & 0o777 == 0o600


def test_concurrent_processes_lose_no_update(tmp_path: Path) -> None:
    """Four processes that count at once have counted every step."""
    path = tmp_path / "state.json"
    running = [processes.start(_COUNT, path, 25) for _ in range(4)]
    for process in running:
        process.communicate(timeout=60)

    assert [process.returncode for process in running] == [0] * 4
    assert path.read_text() == "100\n"


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"\xff\xfe", b"nil"])
def test_what_is_not_json_is_refused(tmp_path: Path, content: bytes) -> None:
    """A damaged file is refused, not started anew, and left as it is."""
    path = tmp_path / "state.json"
    path.write_bytes(content)

    with pytest.raises(IntegrityError, match=r"state\.json is not valid JSON"):
        files.update_json(path, _plus_one, default=0)

    assert path.read_bytes() == content


def test_a_change_that_fails_changes_nothing(tmp_path: Path) -> None:
    """If the change raises, the file stays and the lock is free again."""
    path = tmp_path / "state.json"
    path.write_text("1\n")

    def failing(_count: int) -> int:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        files.update_json(path, failing, default=0)

    assert path.read_text() == "1\n"
    assert files.update_json(path, _plus_one, default=0, wait_seconds=0) == 2


def test_a_lock_that_stays_taken_is_told(tmp_path: Path) -> None:
    """The wait for another process is bounded, and says so when it gives up."""
    path = tmp_path / "state.json"

    with (
        FileLock(tmp_path / "state.json.lock"),
        pytest.raises(LockHeld, match=r"state\.json is locked .* over 0\.1 seconds"),
    ):
        files.update_json(path, _plus_one, default=0, wait_seconds=0.1)

    assert not path.exists()
