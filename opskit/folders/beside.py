"""A private folder beside the one to be replaced, and their swap, safe against kills.

Beside `NAME` are `.NAME.opskit-RANDOM`, the copy, and a file of the same name with
`.lock`, which its owner keeps locked. The file says which folder is opskit's, and a
swap is written there before it begins. If the lock is free, a later run reads from the
file what to finish, and removes the rest. Names alone prove nothing.

Every function may raise the OSError of the system.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import secrets
import shutil
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opskit.files import fsync_directory
from opskit.folders.tree import encoded

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_UNSUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)


def exchange(one: Path, other: Path) -> bool:
    """Swap two names; return False if this system or file system cannot.

    Neither name is missing at any moment.
    """
    if sys.platform != "linux":
        return False
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    paths = (os.fsencode(one), os.fsencode(other))
    failed = call(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE)
    if not failed:
        return True
    number = ctypes.get_errno()
    if number in _UNSUPPORTED:
        return False
    raise OSError(number, os.strerror(number), str(other))


_LOCK = ".lock"
_MARK = ".opskit-"
# With the random part and the lock's, no longer than what a file system takes.
_NAME_BYTES_MAX = 200


@dataclass(frozen=True, kw_only=True)
class Beside:
    """A new folder beside `target`, and the open lock of its owner."""

    target: Path
    path: Path
    lock: int

    def take_place(self) -> None:
        """Give the copy the target's name, which is free or that of an empty folder.

        Raises:
            OSError: something else has the name.
        """
        self.path.rename(self.target)
        fsync_directory(self.target.parent)

    def swap(self, kept: Path) -> None:
        """Give the copy the target's name, and the target the name `kept`.

        Raises:
            OSError: as the system says; the target is then as it was.
        """
        _write(
            self.lock,
            _mark(self.path) | {"kept": kept.name, "copy": _identity(self.path)},
        )
        if exchange(self.path, self.target):
            self.path.rename(kept)
        else:
            # A failure between the two is repaired as after a kill.
            self.target.rename(kept)
            self.path.rename(self.target)
        fsync_directory(self.target.parent)


@contextlib.contextmanager
def beside(target: Path) -> Iterator[Beside]:
    """Yield a new empty folder (0700) beside a folder, and remove it if it is left."""
    while True:
        path = target.with_name(f"{_prefix(target)}{secrets.token_hex(4)}")
        lock_path = path.with_name(path.name + _LOCK)
        lock = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        if _claim(lock, lock_path):
            break
        os.close(lock)  # a sweep has just removed it
    try:
        _write(lock, _mark(path))
        path.mkdir(mode=0o700)
        yield Beside(target=target, path=path, lock=lock)
    finally:
        try:
            _settle(target, path, lock)
            lock_path.unlink(missing_ok=True)
        finally:
            os.close(lock)


def sweep(target: Path) -> list[Path]:
    """Finish or remove what killed runs left beside a folder; return the removed."""
    removed = []
    prefix = _prefix(target)
    for name in sorted(os.listdir(target.parent)):
        if not (name.startswith(prefix) and name.endswith(_LOCK)):
            continue
        lock_path = target.with_name(name)
        path = target.with_name(name.removesuffix(_LOCK))
        try:
            lock = os.open(lock_path, os.O_RDWR | os.O_NOFOLLOW)
        except OSError:
            continue  # gone, or another user's
        try:
            ours = os.fstat(lock).st_uid == os.geteuid()
            marked = _mark(path).items() <= _read(lock).items()
            if ours and marked and _claim(lock, lock_path):
                _settle(target, path, lock)
                lock_path.unlink()
                removed.append(path)
        finally:
            os.close(lock)
    return removed


def remove_tree(path: Path) -> None:
    """Remove a folder and all in it, even if the modes forbid that."""
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
        return
    make_removable(path)
    shutil.rmtree(path)


def make_removable(path: Path) -> None:
    """Make all folders below writable for their owner, so that they can be removed."""
    if os.geteuid() == 0:
        return  # no mode keeps root out
    path.chmod(0o700)
    for _folder, names, _files, directory in os.fwalk(path):
        for name in names:
            # The names include links to directories, which lead out.
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                os.chmod(name, 0o700, dir_fd=directory)


def _prefix(target: Path) -> str:
    name = encoded(target.name)[:_NAME_BYTES_MAX]
    return f".{os.fsdecode(name)}{_MARK}"


def _identity(path: Path) -> list[int]:
    status = path.lstat()
    return [status.st_dev, status.st_ino]


def _claim(lock: int, path: Path) -> bool:
    """Lock an open lock file; return whether that succeeded and it has its name."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(lock), path.stat())
    except OSError:
        return False


def _settle(target: Path, path: Path, lock: int) -> None:
    """Finish a swap that was begun, and remove the copy if it is still there."""
    swap = _planned_swap(lock)
    if swap is not None:
        kept, copy = target.with_name(swap[0]), swap[1]
        if os.path.lexists(path) and _identity(path) != copy:
            path.rename(kept)  # swapped in one step: this is the old one
        elif not os.path.lexists(target) and kept.exists():
            kept.rename(target)  # ended between the two steps
        fsync_directory(target.parent)
    if os.path.lexists(path):
        remove_tree(path)


def _planned_swap(lock: int) -> tuple[str, list[int]] | None:
    content = _read(lock)
    try:
        return str(content["kept"]), list(content["copy"])
    except (KeyError, TypeError):
        return None


def _mark(path: Path) -> dict[str, Any]:
    return {"opskit copy": encoded(path.name).decode("utf-8", "backslashreplace")}


def _read(lock: int) -> dict[str, Any]:
    """Return the content of a lock; empty if it is not opskit's."""
    try:
        content = json.loads(os.pread(lock, 4096, 0))
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _write(lock: int, content: dict[str, Any]) -> None:
    """Replace the content by a longer one, so that no part of the old one is left."""
    os.pwrite(lock, json.dumps(content).encode(), 0)
    os.fsync(lock)
