"""Walks a folder by descriptors, so that no link put there meanwhile leads out.

Every function may raise the OSError of the system, with the path in the tree.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from opskit.catalog.file_record import ROOT, file_type

# On the way only search permission is needed; not every system has such a flag.
_PASS = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW
_LIST = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
# Without NONBLOCK, opening a named pipe that replaced a file would wait for ever.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
_REPLACED = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


@dataclass(frozen=True)
class Entry:
    """An entry of a tree, and the open directory that contains it as `name`.

    A directory contains itself, as `.`. The descriptor is closed when the next entry
    is requested.
    """

    path: str
    name: bytes
    directory: int
    stat: os.stat_result

    def look(self) -> os.stat_result:
        with named(self.path):
            return os.stat(self.name, dir_fd=self.directory, follow_symlinks=False)

    def read_link(self) -> str:
        with named(self.path):
            return decoded(os.readlink(self.name, dir_fd=self.directory))

    def opened(self) -> contextlib.AbstractContextManager[int]:
        """Open a file, or what has replaced it; yield its descriptor."""
        with named(self.path):
            return closing(os.open(self.name, _READ, dir_fd=self.directory))


def walk(
    root: int,
    *,
    leave_out: Callable[[str], bool] = lambda _path: False,
    gone: Callable[[str], None] = lambda _path: None,
) -> Iterator[Entry]:
    """Yield every entry beneath an open directory, and the directory itself first.

    A directory comes before what is in it; the order is that of the names' bytes and
    the same each time. What vanishes meanwhile is passed to `gone`. Only one directory
    is open at a time, however deep the tree.
    """
    pending = [ROOT]
    while pending:
        path = pending.pop()
        try:
            opened = open_directory(root, path)
        except OSError as error:
            if error.errno not in _REPLACED:
                raise
            gone(path)
            continue
        below: list[str] = []
        with closing(opened) as directory:
            yield Entry(path, b".", directory, os.fstat(directory))
            for entry in _entries(directory, path, leave_out, gone):
                if file_type(entry.stat.st_mode) == "directory":
                    below.append(entry.path)
                else:
                    yield entry
        pending += reversed(below)


def _entries(
    directory: int,
    path: str,
    leave_out: Callable[[str], bool],
    gone: Callable[[str], None],
) -> Iterator[Entry]:
    with named(path):
        names = sorted(os.fsencode(each) for each in os.listdir(directory))
    for name in names:
        below = join(path, decoded(name))
        if leave_out(below):
            continue
        try:
            with named(below):
                status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            gone(below)
        else:
            yield Entry(below, name, directory, status)


@contextlib.contextmanager
def open_root(path: Path) -> Iterator[int]:
    """Yield a descriptor of the directory that a tree begins with."""
    with closing(os.open(path, os.O_RDONLY | os.O_DIRECTORY)) as descriptor:
        yield descriptor


@contextlib.contextmanager
def closing(descriptor: int) -> Iterator[int]:
    """Close a descriptor when the block ends."""
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def open_directory(root: int, path: str, *, to_list: bool = True) -> int:
    """Return a new descriptor of a directory in a tree, reached through no link.

    With `to_list` off it serves only to reach what is in the directory.
    """
    parts = [] if path == ROOT else path.split("/")
    last = _LIST if to_list else _PASS
    with named(path):
        descriptor = os.open(b".", _PASS if parts else last, dir_fd=root)
        for number, part in enumerate(parts, start=1):
            flags = last if number == len(parts) else _PASS
            try:
                below = os.open(encoded(part), flags, dir_fd=descriptor)
            finally:
                os.close(descriptor)
            descriptor = below
    return descriptor


@contextlib.contextmanager
def parent_of(root: int, path: str) -> Iterator[tuple[int, bytes]]:
    """Yield an open directory of a tree and the name in it that a path stands for."""
    parent, _slash, name = path.rpartition("/")
    opened = open_directory(root, parent or ROOT, to_list=False)
    with closing(opened) as descriptor, named(path):
        yield descriptor, encoded(name)


@contextlib.contextmanager
def named(path: str) -> Iterator[None]:
    """Put the path in the tree into an error of the system."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, os.strerror(error.errno or 0), path) from error


def join(directory: str, name: str) -> str:
    return name if directory == ROOT else f"{directory}/{name}"


def decoded(name: bytes) -> str:
    """Return a name as records hold it, whatever the locale is."""
    return name.decode("utf-8", "surrogateescape")


def encoded(path: str) -> bytes:
    """Return a path as the bytes that the system uses, whatever the locale."""
    return path.encode("utf-8", "surrogateescape")


BLOCK_BYTES = 1024 * 1024


def blocks(descriptor: int, size_bytes: int) -> Iterator[bytes]:
    """Yield the first bytes of an open file, up to a size; fewer if it is shorter."""
    offset = 0
    while offset < size_bytes:
        block = os.pread(descriptor, min(BLOCK_BYTES, size_bytes - offset), offset)
        if not block:
            return
        yield block
        offset += len(block)


def sha256(descriptor: int, size_bytes: int) -> str:
    digest = hashlib.sha256()
    for block in blocks(descriptor, size_bytes):
        digest.update(block)
    return digest.hexdigest()
