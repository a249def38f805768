"""The work folder of a restore: swept, private, and with room enough."""

from __future__ import annotations

from pathlib import Path

import pytest

from opskit.errors import DatabaseError
from opskit.restore import unpack
from opskit.workspace import Limits

_MORE_THAN_ANY_DISK = 2**60


@pytest.mark.parametrize(
    ("needed_bytes", "room_bytes"),
    [(_MORE_THAN_ANY_DISK, 0), (0, _MORE_THAN_ANY_DISK)],
)
def test_a_disk_that_is_too_small_is_refused_before_anything_is_read(
    tmp_path: Path, needed_bytes: int, room_bytes: int
) -> None:
    """For the dump, and for what else the limits say is needed there."""
    limits = Limits(seconds=60, jobs=1, work_dir=tmp_path, room_bytes=room_bytes)

    with (
        pytest.raises(DatabaseError, match="MiB free, the restore needs"),
        unpack.folder(limits, needed_bytes),
    ):
        pass

    assert list(tmp_path.iterdir()) == []


def test_a_work_folder_is_private_and_goes_away(tmp_path: Path) -> None:
    """Where there is room for all of it."""
    limits = Limits(seconds=60, jobs=1, work_dir=tmp_path, room_bytes=1)

    with unpack.folder(limits, 1) as folder:
        assert folder.parent == tmp_path
        assert folder.stat().st_mode & 0o077 == 0

    assert list(tmp_path.iterdir()) == []
