"""The kinds of damage that a restored directory can have, and how each is done."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from opskit.catalog.file_record import ROOT, FileRecord, shown
from opskit.checks import Check
from opskit.folders.copy import compare, may_give
from opskit.folders.tree import encoded, join
from opskit.mutants.mutant import Attempts, Miss, Mutant, MutantReport, rotate


class Unsuited(Exception):
    """An entry cannot have this kind of damage."""


class Ground:
    """A copy that equals its records, and a folder beside it for what is taken out."""

    def __init__(self, copy: Path, records: Sequence[FileRecord], seed: str) -> None:
        self._copy = os.fsencode(copy)
        self.aside = os.fsencode(copy.with_name("aside"))
        os.makedirs(os.path.dirname(self.aside), exist_ok=True)
        os.mkdir(self.aside, 0o700)
        self.records = {record.path: record for record in records}
        self.rng = random.Random(seed)  # noqa: S311 - one seed, the same mutants
        self.touched: set[str] = set()
        self._parents = {parent_path(path) for path in self.records if path != ROOT}
        self.linked = {each.target for each in records if each.type == "hardlink"}
        self.with_one_name = [
            each
            for each in records
            if each.type == "file" and each.path not in self.linked
        ]
        self.has_several_contents = len({e.sha256 for e in self.with_one_name}) > 1
        self._digests = {each.path: each.sha256 for each in records if each.sha256}

    def shuffled(self) -> list[FileRecord]:
        return self.rng.sample(list(self.records.values()), len(self.records))

    def digests_but(self, paths: Collection[str]) -> dict[str, str]:
        return {p: each for p, each in self._digests.items() if p not in paths}

    def place(self, path: str) -> bytes:
        return os.path.join(self._copy, encoded(path))

    def is_empty(self, record: FileRecord) -> bool:
        return record.path not in self._parents

    @contextlib.contextmanager
    def kept(self, *paths: str) -> Iterator[None]:
        """Give entries and their folders back what they had, as far as they are there.

        Once the block has begun and once it has ended, `mark` does so: what is planted
        must not be noticed by a time that it left behind.
        """
        affected = {*paths, *(parent_path(path) for path in paths)}
        self.touched |= affected
        before = {path: os.lstat(self.place(path)) for path in sorted(affected)
                  if os.path.lexists(self.place(path))}  # fmt: skip
        try:
            yield
        finally:
            for path in sorted(before, reverse=True):
                self.mark(path, before[path])

    def mark(self, path: str, marks: os.stat_result) -> None:
        """Give an entry an owner, a mode and a time."""
        place = self.place(path)
        if os.geteuid() == 0:
            os.chown(place, marks.st_uid, marks.st_gid, follow_symlinks=False)
        if not stat.S_ISLNK(os.lstat(place).st_mode):
            os.chmod(place, stat.S_IMODE(marks.st_mode))
        os.utime(
            place, ns=(marks.st_mtime_ns, marks.st_mtime_ns), follow_symlinks=False
        )

    @contextlib.contextmanager
    def taken_out(self, path: str) -> Iterator[bytes]:
        """Move an entry out of the copy for the block; yield where it is."""
        away = os.path.join(self.aside, b"entry")
        place = self.place(path)
        with self.kept(path):
            os.rename(place, away)
            try:
                yield away
            finally:
                if os.path.lexists(place):
                    os.unlink(place)
                os.rename(away, place)

    def settle_parent(self, path: str) -> None:
        """Give the folder of an entry the time of its record."""
        parent = parent_path(path)
        time_ns = self.records[parent].mtime_ns
        os.utime(self.place(parent), ns=(time_ns, time_ns))

    def new_path(self, record: FileRecord) -> str:
        path = join(record.path, "mutant")
        while path in self.records:
            path += "-"
        return path


def parent_path(path: str) -> str:
    """Return the directory that an entry is in; the root is in itself."""
    return path.rpartition("/")[0] or ROOT


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
    with _rewritten(ground, record, ground.rng.randrange(record.size_bytes), 1):
        yield record.path, {record.path}


@contextlib.contextmanager
def _cut(ground: Ground, record: FileRecord) -> Iterator[Planted]:
    _require(record.type == "file" and record.size_bytes > 0)
    with _rewritten(ground, record, record.size_bytes - 1, 0):
        yield record.path, {record.path}


@contextlib.contextmanager
def _rewritten(
    ground: Ground, record: FileRecord, offset: int, flip: int
) -> Iterator[None]:
    """Flip bits of one byte, or, with none to flip, end the file there."""
    place = ground.place(record.path)
    marks = os.lstat(place)
    with ground.kept(record.path), open(place, "r+b", buffering=0) as file:
        byte = os.pread(file.fileno(), 1, offset)
        try:
            if flip:
                os.pwrite(file.fileno(), bytes([byte[0] ^ flip]), offset)
            else:
                file.truncate(offset)
            ground.mark(record.path, marks)
            yield
        finally:
            os.pwrite(file.fileno(), byte, offset)


def _replacing(
    suits: Callable[[Ground, FileRecord], bool],
    put: Callable[[bytes, bytes, FileRecord], object] = lambda *_what: None,
) -> Plant:
    """Return what takes an entry away, and puts something else in its place."""

    @contextlib.contextmanager
    def plant(ground: Ground, record: FileRecord) -> Iterator[Planted]:
        _require(suits(ground, record))
        place = ground.place(record.path)
        marks = os.lstat(place)
        with ground.taken_out(record.path) as away:
            put(place, away, record)
            if os.path.lexists(place):
                ground.mark(record.path, marks)
            ground.settle_parent(record.path)
            yield record.path, {record.path}

    return plant


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


def _marking(
    suits: Callable[[FileRecord], bool], change: Callable[[bytes, FileRecord], object]
) -> Plant:
    """Return what changes the mode, the time or the owner of an entry."""

    @contextlib.contextmanager
    def plant(ground: Ground, record: FileRecord) -> Iterator[Planted]:
        _require(suits(record))
        with ground.kept(record.path):
            change(ground.place(record.path), record)
            yield record.path, ()

    return plant


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
    "entry removed": _replacing(lambda _ground, record: record.type != "directory"),
    "empty directory removed": _replacing(
        lambda ground, record: (
            record.type == "directory"
            and record.path != ROOT
            and ground.is_empty(record)
        )
    ),
    "file added": _added,
    "mode changed": _marking(
        lambda record: record.type != "symlink",
        lambda place, _record: os.chmod(
            place, stat.S_IMODE(os.lstat(place).st_mode) ^ 0o010
        ),
    ),
    "time changed": _marking(
        lambda _record: True,
        lambda place, record: os.utime(
            place, ns=(record.mtime_ns + 1, record.mtime_ns + 1), follow_symlinks=False
        ),
    ),
    "owner changed": _marking(
        # Where the owner cannot be set, it is not compared either.
        lambda record: (
            may_give(record.uid, record.gid) and may_give(record.uid + 1, record.gid)
        ),
        lambda place, record: os.chown(
            place, record.uid + 1, record.gid, follow_symlinks=False
        ),
    ),
    "link target changed": _replacing(
        lambda _ground, record: record.type == "symlink",
        lambda place, _away, record: os.symlink(encoded(record.target) + b"x", place),
    ),
    # Who follows the link finds the very content.
    "file replaced by a link": _replacing(
        lambda _ground, record: record.type == "file",
        lambda place, away, _record: os.symlink(away, place),
    ),
    "hard link broken": _replacing(
        lambda ground, record: (
            record.type == "hardlink"
            and os.lstat(ground.place(record.path)).st_size <= _COPIED_BYTES_MAX
        ),
        lambda place, away, _record: shutil.copyfile(away, place),
    ),
    "contents swapped": _swapped,
}


def plant(
    copy: Path, records: Sequence[FileRecord], *, number: int, seed: str
) -> tuple[MutantReport, list[Check]]:
    """Plant mutants in a copy that equals its records, and see which are noticed.

    After each the comparison runs again, over everything but the contents of files that
    were not touched, and must name what was. The same seed gives the same mutants in
    the same copy. Returns the report, and the comparison after the last was taken back.

    Raises:
        StoreError: the copy cannot be read.
    """
    ground = Ground(copy, records, seed)
    kinds = [
        (name, _attempts(ground, name, ground.shuffled(), copy))
        for name in ground.rng.sample(list(KINDS), len(KINDS))
    ]
    report = rotate(kinds, number=number, seed=seed)
    return report, compare(copy, records, known=ground.digests_but(ground.touched))


def _attempts(
    ground: Ground, kind: str, records: Iterable[FileRecord], copy: Path
) -> Attempts:
    """Damage one entry after the other, of those that can have the damage."""
    everything = list(ground.records.values())
    for record in records:
        try:
            with KINDS[kind](ground, record) as (path, touched):
                checks = compare(copy, everything, known=ground.digests_but(touched))
        except Unsuited:
            continue
        except OSError:
            # The modes of the copy keep an ordinary user out, as they would anybody.
            yield Miss.REFUSED
            continue
        name = f"file {shown(path)}"
        noticed = any(each.name == name and each.failed for each in checks)
        yield Mutant(
            kind=kind,
            target=shown(path),
            noticed=noticed,
            noticed_by=name if noticed else "",
        )
