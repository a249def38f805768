"""Gives a restored entry its owner, mode and time."""

from __future__ import annotations

import errno
import os

from opskit.catalog.file_record import ROOT, FileRecord
from opskit.folders.tree import named, open_directory

# Bits that lend the rights of an owner: they must not lend those of another one.
LENDING_BITS = 0o6000
# Not root, or root of a container that knows no such user.
_NOT_GIVEN = (errno.EPERM, errno.EINVAL)


def set_marks(parent: int, name: bytes, record: FileRecord) -> None:
    """Set owner, mode and time of an entry that is not a directory.

    Raises:
        OSError: as the system says, with the path in the tree.
    """
    with named(record.path):
        is_owned = _give(parent, name, record)
        if record.type != "symlink":  # its mode means nothing
            os.chmod(name, _mode(record, is_owned=is_owned), dir_fd=parent)
        times = (record.mtime_ns, record.mtime_ns)
        os.utime(name, ns=times, dir_fd=parent, follow_symlinks=False)


def set_marks_of_directory(root: int, record: FileRecord) -> None:
    """Set owner, mode and time of a directory in the tree, once all is in it.

    Raises:
        OSError: as the system says, with the path in the tree.
    """
    if record.path == ROOT:
        _mark_open(root, record)
        return
    directory = open_directory(root, record.path)
    try:
        _mark_open(directory, record)
    finally:
        os.close(directory)


def _mark_open(directory: int, record: FileRecord) -> None:
    with named(record.path):
        is_owned = _give(directory, b".", record)
        os.utime(directory, ns=(record.mtime_ns, record.mtime_ns))
        os.fchmod(directory, _mode(record, is_owned=is_owned))


def _give(parent: int, name: bytes, record: FileRecord) -> bool:
    """Give an entry to its owner; return whether it is theirs."""
    try:
        os.chown(name, record.uid, record.gid, dir_fd=parent, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NOT_GIVEN:
            raise
        return False
    return True


def _mode(record: FileRecord, *, is_owned: bool) -> int:
    return record.mode if is_owned else record.mode & ~LENDING_BITS
