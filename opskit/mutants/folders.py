"""The kinds of damage that a restored directory can have, and how each is done."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager

from opskit.catalog.file_record import ROOT, FileRecord
from opskit.drill.files_ground import Ground, Unsuited
from opskit.folders.tree import encoded

# What must be named, and whose contents must be read again.
Planted = tuple[str, Collection[str]]
Plant = Callable[[Ground, FileRecord], AbstractContextManager[Planted]]

_COPIED_BYTES_MAX = 64 * 1024**2


def _require(condition: bool) -> None:
    if not condition:
        raise Unsuited


@contextlib.contextmanager
def _flipped(ground: Ground, record: FileRecord) -> Iterator[Planted]:
    _require(record.type == "file" and record.size_bytes > 0)
    with _rewritten(ground, record, ground.rng.randrange(record.size_bytes)) as write:
        write(lambda byte: bytes([byte[0] ^ 1]))
        yield record.path, {record.path}


@contextlib.contextmanager
def _cut(ground: Ground, record: FileRecord) -> Iterator[Planted]:
    _require(record.type == "file" and record.size_bytes > 0)
    with _rewritten(ground, record, record.size_bytes - 1) as write:
        write(lambda _byte: b"")
        yield record.path, {record.path}


@contextlib.contextmanager
def _rewritten(
    ground: Ground, record: FileRecord, offset: int
) -> Iterator[Callable[[Callable[[bytes], bytes]], None]]:
    """Yield what changes one byte, or ends the file there; time and mode stay."""
    place = ground.place(record.path)
    marks = os.lstat(place)
    with ground.kept(record.path), open(place, "r+b", buffering=0) as file:
        byte = os.pread(file.fileno(), 1, offset)

        def write(change: Callable[[bytes], bytes]) -> None:
            changed = change(byte)
            if changed:
                os.pwrite(file.fileno(), changed, offset)
            else:
                file.truncate(offset)
            ground.mark(record.path, marks)

        try:
            yield write
        finally:
            os.pwrite(file.fileno(), byte, offset)


@contextlib.contextmanager
def _removed(ground: Ground, record: FileRecord) -> Iterator[Planted]:
    _require(record.type != "directory")
    with _without(ground, record) as planted:
        yield planted


@contextlib.contextmanager
def _directory_removed(ground: Ground, record: FileRecord) -> Iterator[Planted]:
    _require(record.type == "directory" and record.path != ROOT)
    _require(ground.is_empty(record))
    with _without(ground, record) as planted:
        yield planted


@contextlib.contextmanager
def _without(ground: Ground, record: FileRecord) -> Iterator[Planted]:
    with ground.taken_out(record.path):
        ground.settle_parent(record.path)
        yield record.path, {record.path}


@contextlib.contextmanager
def _added(ground: Ground, record: FileRecord) -> Iterator[Planted]:
    _require(record.type == "directory")
    path = ground.new_path(record)
    place = ground.place(path)
    with ground.kept(path):
        os.close(os.open(place, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        try:
            ground.settle_parent(path)
            yield path, ()
        finally:
            os.unlink(place)


@contextlib.contextmanager
def _other_mode(ground: Ground, record: FileRecord) -> Iterator[Planted]:
    _require(record.type != "symlink")
    place = ground.place(record.path)
    with ground.kept(record.path):
        os.chmod(place, stat.S_IMODE(os.lstat(place).st_mode) ^ 0o010)
        yield record.path, ()


@contextlib.contextmanager
def _other_time(ground: Ground, record: FileRecord) -> Iterator[Planted]:
    later_ns = record.mtime_ns + 1
    with ground.kept(record.path):
        os.utime(
            ground.place(record.path), ns=(later_ns, later_ns), follow_symlinks=False
        )
        yield record.path, ()


@contextlib.contextmanager
def _other_owner(ground: Ground, record: FileRecord) -> Iterator[Planted]:
    _require(os.geteuid() == 0)
    with ground.kept(record.path):
        place = ground.place(record.path)
        os.chown(place, record.uid + 1, record.gid, follow_symlinks=False)
        yield record.path, ()


@contextlib.contextmanager
def _other_target(ground: Ground, record: FileRecord) -> Iterator[Planted]:
    _require(record.type == "symlink")
    marks = os.lstat(ground.place(record.path))
    with ground.taken_out(record.path):
        os.symlink(encoded(record.target) + b"x", ground.place(record.path))
        ground.mark(record.path, marks)
        ground.settle_parent(record.path)
        yield record.path, ()


@contextlib.contextmanager
def _linked_away(ground: Ground, record: FileRecord) -> Iterator[Planted]:
    _require(record.type == "file")
    with ground.taken_out(record.path) as away:
        # Who follows the link finds the very content.
        os.symlink(away, ground.place(record.path))
        ground.settle_parent(record.path)
        yield record.path, {record.path}


@contextlib.contextmanager
def _link_broken(ground: Ground, record: FileRecord) -> Iterator[Planted]:
    _require(record.type == "hardlink")
    place = ground.place(record.path)
    marks = os.lstat(place)
    _require(marks.st_size <= _COPIED_BYTES_MAX)
    with ground.taken_out(record.path) as away:
        shutil.copyfile(away, place)
        ground.mark(record.path, marks)
        ground.settle_parent(record.path)
        yield record.path, {record.path}


@contextlib.contextmanager
def _swapped(ground: Ground, record: FileRecord) -> Iterator[Planted]:
    """Two files change places, but each name keeps its owner, mode and time."""
    _require(record.type == "file" and record.path not in ground.linked)
    other = _partner(ground, record)
    one_place, other_place = ground.place(record.path), ground.place(other.path)
    marks = os.lstat(one_place), os.lstat(other_place)
    away = os.path.join(ground.aside, b"swapped")
    with ground.kept(record.path, other.path):
        _exchange(one_place, other_place, away)
        try:
            ground.mark(record.path, marks[0])
            ground.mark(other.path, marks[1])
            ground.settle_parent(record.path)
            ground.settle_parent(other.path)
            yield record.path, {record.path, other.path}
        finally:
            _exchange(one_place, other_place, away)


def _partner(ground: Ground, record: FileRecord) -> FileRecord:
    """Return another file, of the same size if there is one."""
    _require(ground.has_several_contents)
    others = [each for each in ground.with_one_name if each.sha256 != record.sha256]
    return min(others, key=lambda each: abs(each.size_bytes - record.size_bytes))


def _exchange(one: bytes, other: bytes, away: bytes) -> None:
    os.rename(one, away)
    os.rename(other, one)
    os.rename(away, other)


KINDS: dict[str, Plant] = {
    "byte flipped": _flipped,
    "file cut": _cut,
    "entry removed": _removed,
    "empty directory removed": _directory_removed,
    "file added": _added,
    "mode changed": _other_mode,
    "time changed": _other_time,
    "owner changed": _other_owner,
    "link target changed": _other_target,
    "file replaced by a link": _linked_away,
    "hard link broken": _link_broken,
    "contents swapped": _swapped,
}
