"""A file that a thread writes: everything, in order, and no error is lost."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from opskit.restore.unpack import WriteBehind


def _threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name == "writer"]


def test_all_is_written_in_order(tmp_path: Path) -> None:
    """More blocks than wait at once; when the block is left, they are in the file."""
    blocks = [b"%d " % number * 1000 for number in range(200)]
    with (tmp_path / "file").open("wb") as file:
        with WriteBehind(file.write) as behind:
            for each in blocks:
                behind.write(each)
        file.flush()

        assert (tmp_path / "file").read_bytes() == b"".join(blocks)
    assert _threads() == []


def _fill_the_disk(blocks: int, then: Exception | None = None) -> None:
    with (
        Path("/dev/full").open("wb", buffering=0) as file,
        WriteBehind(file.write) as behind,
    ):
        for _ in range(blocks):
            behind.write(b"x" * 1000)
        if then is not None:
            raise then


@pytest.mark.parametrize("blocks", [1, 100])
def test_a_full_disk_is_told(blocks: int) -> None:
    """At the next block or at the end; the thread has ended, nobody waits for ever."""
    with pytest.raises(OSError, match="No space left"):
        _fill_the_disk(blocks)

    assert _threads() == []


def test_what_went_wrong_first_is_told() -> None:
    """An error of whoever makes the blocks is not hidden by the disk's."""
    with pytest.raises(ValueError, match="mine"):
        _fill_the_disk(1, then=ValueError("mine"))

    assert _threads() == []
