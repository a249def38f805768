"""The folder that a dump is unpacked into, and whether it has room."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from opskit import workspace
from opskit.errors import DatabaseError

KIND = "restore"


@contextmanager
def folder(base: Path | None) -> Iterator[Path]:
    """Sweep what killed runs left, then yield a private folder for an unpacked dump."""
    workspace.sweep(KIND, base=base)
    with workspace.throwaway(KIND, base=base) as path:
        yield path


def require_space(path: Path, needed_bytes: int) -> None:
    """Refuse early what would fill the disk half-way.

    Raises:
        DatabaseError: less than `needed_bytes` is free there.
    """
    free_bytes = shutil.disk_usage(path).free
    if free_bytes < needed_bytes:
        raise DatabaseError(
            f"{path} has {free_bytes // 2**20} MiB free, the restore needs about "
            f"{needed_bytes // 2**20} MiB",
            hint="Free some space, or set [drill] work_dir to a larger file system.",
        )
